//! What nodes say to each other, in bytes, both directions. Not how the bytes travel: the transport's.
//!
//! A message is its kind, one byte, and then its parts: numbers little-endian, in as many bytes as their type
//! has, and at the end, where there is one, a part as long as the rest.

use bytes::Bytes;

use crate::outbox::Wire;
use crate::record::Base;
use crate::version::{NodeId, Version};

/// The version of everything in this file, of what nodes ask of each other in clients' protocols, and of the
/// order of keys (`Store::position`). Another one is refused.
pub const PROTOCOL: u16 = 2;

/// A message cannot be understood: a defect, or a liar. Nothing of it was done.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MessageError {
    /// It ends too early.
    #[error("the message ends too early")]
    Short,
    /// There is no such kind.
    #[error("there is no message of kind {0}")]
    Kind(u8),
    /// A part says what it cannot say.
    #[error("{0}")]
    Bad(&'static str),
}

/// The first message of each side.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hello {
    /// `PROTOCOL`, of the sender.
    pub protocol: u16,
    /// Which members and rules the sender's configuration has.
    pub cluster: [u8; 16],
    /// Random at each start of the sender: a node that has lost its memory is told from one that was away.
    pub boot: u64,
    /// The last stamp of the sender's clock.
    pub clock: u64,
}

/// Why a replica did not take an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotTaken {
    /// It has no memory for it.
    NoSpace,
    /// The entry is at or below this watermark of its slot: it may have been deleted. Stamp it anew.
    Stale(Version),
}

/// A message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Message {
    /// The first one.
    Hello(Hello),
    /// The answer to it: the receiver may send anything now.
    Welcome,
    /// Entries, to be merged and confirmed under this number; 0 is not confirmed.
    Put {
        /// The number.
        batch: u64,
        /// Entries (see `record`).
        records: Bytes,
    },
    /// Entries were merged.
    Ack {
        /// The number of the `Put` or `Large`.
        batch: u64,
        /// Which of them were not taken, by their place, and why.
        refused: Vec<(u32, NotTaken)>,
    },
    /// Asks for the entry of a key.
    Fetch {
        /// To be repeated in the answer.
        id: u64,
        /// The key.
        key: Bytes,
    },
    /// The entry that was asked for: one record, or none. A large one comes as `Large` before.
    Fetched {
        /// As it was asked.
        id: u64,
        /// The sender came back blank, and may lack what it should have.
        behind: bool,
        /// A record, or nothing.
        record: Bytes,
    },
    /// A request to be run here.
    Forward {
        /// To be repeated in the answer.
        id: u64,
        /// How it is to be answered.
        wire: Wire,
        /// Bytes of the reply that may come before any are asked for; a longer one comes in parts.
        window: u64,
        /// Whether the rest of the request comes in parts, as it is asked for.
        open: bool,
    },
    /// What the request was answered.
    Reply {
        /// As it was asked.
        id: u64,
    },
    /// A part of a request or a reply that is too long to be on its way as one. Parts overtake each other.
    Part {
        /// Of which of the two.
        of: Half,
        /// As it was asked.
        id: u64,
        /// What comes before it, in bytes.
        offset: u64,
        /// Whether nothing comes after it.
        last: bool,
    },
    /// Of a request or a reply in parts, so many bytes may be sent, counted from its beginning.
    Grant {
        /// Of which of the two.
        of: Half,
        /// As it was asked.
        id: u64,
        /// Bytes.
        upto: u64,
    },
    /// A request or a reply is given up by who sends it: who asked does not wait any more, or who was asked
    /// does not answer.
    Cancel {
        /// Which of the two is over.
        of: Half,
        /// As it was asked.
        id: u64,
    },
    /// A large entry, to be merged and confirmed like `Put`.
    Large {
        /// The number.
        batch: u64,
        /// What the value belongs to.
        entry: LargeEntry,
    },
    /// A part of a healing exchange.
    Exchange(Bytes),
    /// What is at or below this version was deleted everywhere, in the slots whose primary the sender is.
    Watermark(Version),
    /// The sender stamps nothing at or below this any more, and asks which the receiver promises.
    Promise {
        /// The sender's.
        stamp: u64,
    },
}

/// What of a request in another node's hands is spoken of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Half {
    /// What was asked.
    Request,
    /// What is answered.
    Reply,
}

/// An entry with a large value, which follows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LargeEntry {
    /// The key.
    pub key: Bytes,
    /// Its version.
    pub version: Version,
    /// As `View::expires_ms`.
    pub expires_ms: u64,
    /// As `View::floor`.
    pub floor: Version,
    /// What the write replaced, as `Record::base`.
    pub base: Option<Base>,
    /// Bytes of the value.
    pub len: u64,
}

/// A base that the sender does not know: no node is called so.
const UNKNOWN: Version = Version { stamp: u64::MAX, node: NodeId(u64::MAX) };

const HELLO: u8 = 1;
const PUT: u8 = 2;
const ACK: u8 = 3;
const FETCH: u8 = 4;
const FETCHED: u8 = 5;
const FORWARD: u8 = 6;
const REPLY: u8 = 7;
const LARGE: u8 = 8;
const EXCHANGE: u8 = 9;
const WATERMARK: u8 = 10;
const PROMISE: u8 = 11;
const WELCOME: u8 = 12;
const PART: u8 = 13;
const GRANT: u8 = 14;
const CANCEL: u8 = 15;

const NO_SPACE: u8 = 0;
const STALE: u8 = 1;

/// Of a stream that may be longer than is kept: the kinds whose last part is taken as it comes.
pub fn is_stream(kind: u8) -> bool {
    matches!(kind, FORWARD | REPLY | LARGE | PART)
}

impl Message {
    /// Appends the message; what follows it, if anything does, the caller appends.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Message::Hello(hello) => {
                out.push(HELLO);
                out.extend_from_slice(&hello.protocol.to_le_bytes());
                out.extend_from_slice(&hello.cluster);
                numbers(out, &[hello.boot, hello.clock]);
            }
            Message::Welcome => out.push(WELCOME),
            Message::Put { batch, records } => tail(out, PUT, *batch, records),
            Message::Ack { batch, refused } => {
                tail(out, ACK, *batch, &[]);
                for (place, why) in refused {
                    out.extend_from_slice(&place.to_le_bytes());
                    match why {
                        NotTaken::NoSpace => out.push(NO_SPACE),
                        NotTaken::Stale(watermark) => {
                            out.push(STALE);
                            version(out, *watermark);
                        }
                    }
                }
            }
            Message::Fetch { id, key } => tail(out, FETCH, *id, key),
            Message::Fetched { id, behind, record } => {
                tail(out, FETCHED, *id, &[u8::from(*behind)]);
                out.extend_from_slice(record);
            }
            Message::Forward { id, wire, window, open } => {
                let wire = match wire {
                    Wire::Resp2 => 0,
                    Wire::Resp3 => 1,
                    Wire::Pipe => 2,
                    Wire::PipeFramed => 3,
                };
                tail(out, FORWARD, *id, &[wire, u8::from(*open)]);
                numbers(out, &[*window]);
            }
            Message::Reply { id } => tail(out, REPLY, *id, &[]),
            Message::Part { of, id, offset, last } => {
                tail(out, PART, *id, &[of.byte(), u8::from(*last)]);
                numbers(out, &[*offset]);
            }
            Message::Grant { of, id, upto } => {
                tail(out, GRANT, *id, &[of.byte()]);
                numbers(out, &[*upto]);
            }
            Message::Cancel { of, id } => tail(out, CANCEL, *id, &[of.byte()]),
            Message::Large { batch, entry } => {
                tail(out, LARGE, *batch, &[]);
                out.extend_from_slice(&(entry.key.len() as u16).to_le_bytes());
                out.extend_from_slice(&entry.key);
                version(out, entry.version);
                numbers(out, &[entry.expires_ms]);
                version(out, entry.floor);
                version(out, entry.base.map_or(UNKNOWN, |base| base.version));
                out.push(u8::from(entry.base.is_some_and(|base| base.late)));
                numbers(out, &[entry.len]);
            }
            Message::Exchange(bytes) => {
                out.push(EXCHANGE);
                out.extend_from_slice(bytes);
            }
            Message::Watermark(of) => {
                out.push(WATERMARK);
                version(out, *of);
            }
            Message::Promise { stamp } => tail(out, PROMISE, *stamp, &[]),
        }
    }

    /// The message, by itself.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::new();
        self.encode(&mut out);
        out.into()
    }

    /// Reads a message that is whole, or as much of a stream as has come. Returns it with what follows it, or
    /// `None` if more of a stream must come first.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(bytes: Bytes, whole: bool) -> Result<Option<(Self, Bytes)>, MessageError> {
        let mut parts = Parts { rest: bytes };
        let kind = match parts.byte() {
            Ok(kind) => kind,
            Err(_) if !whole => return Ok(None),
            Err(error) => return Err(error),
        };
        match parts.message(kind) {
            Ok(message) => Ok(Some((message, parts.rest))),
            Err(MessageError::Short) if !whole && is_stream(kind) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Half {
    fn byte(self) -> u8 {
        match self {
            Half::Request => 0,
            Half::Reply => 1,
        }
    }
}

fn numbers(out: &mut Vec<u8>, all: &[u64]) {
    all.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
}

fn version(out: &mut Vec<u8>, version: Version) {
    numbers(out, &[version.stamp, version.node.0]);
}

fn tail(out: &mut Vec<u8>, kind: u8, number: u64, rest: &[u8]) {
    out.push(kind);
    numbers(out, &[number]);
    out.extend_from_slice(rest);
}

/// What of a message has not been read.
struct Parts {
    rest: Bytes,
}

impl Parts {
    fn take(&mut self, len: usize) -> Result<Bytes, MessageError> {
        if self.rest.len() < len { Err(MessageError::Short) } else { Ok(self.rest.split_to(len)) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let mut array = [0; N];
        array.copy_from_slice(&self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8, MessageError> {
        Ok(self.array::<1>()?[0])
    }

    fn number(&mut self) -> Result<u64, MessageError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn base(&mut self) -> Result<Option<Base>, MessageError> {
        match (self.version()?, self.array()?) {
            (UNKNOWN, [0]) => Ok(None),
            (version, [late @ (0 | 1)]) if version != UNKNOWN => Ok(Some(Base { version, late: late == 1 })),
            _ => Err(MessageError::Bad("what a write replaced cannot be read")),
        }
    }

    fn version(&mut self) -> Result<Version, MessageError> {
        Ok(Version { stamp: self.number()?, node: NodeId(self.number()?) })
    }

    fn all(&mut self) -> Bytes {
        std::mem::take(&mut self.rest)
    }

    fn message(&mut self, kind: u8) -> Result<Message, MessageError> {
        Ok(match kind {
            HELLO => Message::Hello(Hello {
                protocol: u16::from_le_bytes(self.array()?),
                cluster: self.array()?,
                boot: self.number()?,
                clock: self.number()?,
            }),
            WELCOME => Message::Welcome,
            PUT => Message::Put { batch: self.number()?, records: self.all() },
            ACK => Message::Ack { batch: self.number()?, refused: self.refused()? },
            FETCH => Message::Fetch { id: self.number()?, key: self.all() },
            FETCHED => {
                let (id, behind) = (self.number()?, self.flag()?);
                Message::Fetched { id, behind, record: self.all() }
            }
            FORWARD => {
                let (id, wire, open) = (self.number()?, self.wire()?, self.flag()?);
                Message::Forward { id, wire, window: self.number()?, open }
            }
            REPLY => Message::Reply { id: self.number()? },
            PART => {
                let (id, of, last) = (self.number()?, self.half()?, self.flag()?);
                Message::Part { of, id, offset: self.number()?, last }
            }
            GRANT => {
                let (id, of) = (self.number()?, self.half()?);
                Message::Grant { of, id, upto: self.number()? }
            }
            CANCEL => {
                let id = self.number()?;
                Message::Cancel { of: self.half()?, id }
            }
            LARGE => Message::Large { batch: self.number()?, entry: self.large()? },
            EXCHANGE => Message::Exchange(self.all()),
            WATERMARK => Message::Watermark(self.version()?),
            PROMISE => Message::Promise { stamp: self.number()? },
            other => return Err(MessageError::Kind(other)),
        })
    }

    fn wire(&mut self) -> Result<Wire, MessageError> {
        match self.byte()? {
            0 => Ok(Wire::Resp2),
            1 => Ok(Wire::Resp3),
            2 => Ok(Wire::Pipe),
            3 => Ok(Wire::PipeFramed),
            _ => Err(MessageError::Bad("a forwarded request in no known protocol")),
        }
    }

    fn half(&mut self) -> Result<Half, MessageError> {
        match self.byte()? {
            0 => Ok(Half::Request),
            1 => Ok(Half::Reply),
            _ => Err(MessageError::Bad("neither a request nor a reply")),
        }
    }

    fn flag(&mut self) -> Result<bool, MessageError> {
        match self.byte()? {
            flag @ (0 | 1) => Ok(flag == 1),
            _ => Err(MessageError::Bad("neither yes nor no")),
        }
    }

    fn refused(&mut self) -> Result<Vec<(u32, NotTaken)>, MessageError> {
        let mut refused = Vec::new();
        while !self.rest.is_empty() {
            let place = u32::from_le_bytes(self.array()?);
            refused.push(match self.byte()? {
                NO_SPACE => (place, NotTaken::NoSpace),
                STALE => (place, NotTaken::Stale(self.version()?)),
                _ => return Err(MessageError::Bad("an entry that was refused for no known reason")),
            });
        }
        Ok(refused)
    }

    fn large(&mut self) -> Result<LargeEntry, MessageError> {
        let len = u16::from_le_bytes(self.array()?);
        Ok(LargeEntry {
            key: self.take(usize::from(len))?,
            version: self.version()?,
            expires_ms: self.number()?,
            floor: self.version()?,
            base: self.base()?,
            len: self.number()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Message> {
        let version = Version { stamp: 7, node: NodeId(9) };
        let entry = LargeEntry {
            key: Bytes::from_static(b"key"),
            version,
            expires_ms: 5,
            floor: Version::ZERO,
            base: Some(Base { version, late: true }),
            len: 1 << 40,
        };
        let refused = vec![(3, NotTaken::NoSpace), (4, NotTaken::Stale(version))];
        vec![
            Message::Hello(Hello { protocol: PROTOCOL, cluster: [7; 16], boot: 1, clock: 2 }),
            Message::Welcome,
            Message::Put { batch: 1, records: Bytes::from_static(b"records") },
            Message::Ack { batch: 1, refused },
            Message::Fetch { id: 2, key: Bytes::from_static(b"key") },
            Message::Fetched { id: 2, behind: true, record: Bytes::new() },
            Message::Forward { id: 3, wire: Wire::PipeFramed, window: 1 << 22, open: true },
            Message::Reply { id: 3 },
            Message::Part { of: Half::Reply, id: 3, offset: 1 << 40, last: true },
            Message::Grant { of: Half::Request, id: 3, upto: 1 << 40 },
            Message::Cancel { of: Half::Reply, id: 3 },
            Message::Large { batch: 4, entry },
            Message::Exchange(Bytes::from_static(b"digest")),
            Message::Watermark(version),
            Message::Promise { stamp: 11 },
        ]
    }

    #[test]
    fn messages_go_there_and_back() {
        for message in all() {
            let decoded = Message::decode(message.to_bytes(), true);
            assert_eq!(decoded, Ok(Some((message, Bytes::new()))));
        }
    }

    #[test]
    fn what_is_cut_off_is_refused_and_a_stream_waits() {
        for message in all() {
            let bytes = message.to_bytes();
            for end in 0..bytes.len() {
                let whole = Message::decode(bytes.slice(..end), true);
                assert!(whole.is_err() || whole != Ok(Some((message.clone(), Bytes::new()))));
                if is_stream(bytes[0]) {
                    assert_eq!(Message::decode(bytes.slice(..end), false), Ok(None));
                }
            }
        }
        assert_eq!(Message::decode(Bytes::from_static(&[99]), true), Err(MessageError::Kind(99)));
    }
}
