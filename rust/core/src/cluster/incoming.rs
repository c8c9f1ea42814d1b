//! Messages of peers as they come, whole or in pieces: what is short is kept until it is whole, what is long
//! goes where it belongs piece by piece.

use bytes::{Bytes, BytesMut};

use super::Cluster;
use crate::blob::{BLOB_BYTES_MIN, BlobDraft, BlobRef, Value};
use crate::entry::View;
use crate::message::{Half, LargeEntry, Message, MessageError, is_stream};
use crate::record::RecordError;
use crate::routes::MemberIndex;

/// Bytes of a message that is kept until it is whole: an entry with the largest inline value and key.
const WHOLE_MAX: usize = BLOB_BYTES_MIN + 2 * 65_536;

/// A message that has come in part.
#[derive(Debug, Default)]
pub enum Incoming {
    /// What it is cannot be told yet, or it is acted upon when it is whole.
    #[default]
    New,
    /// As above, and some of it.
    Head(BytesMut),
    /// A large entry.
    Large(u64, Box<LargeEntry>, BlobDraft),
    /// A large entry for which there is no memory.
    NoSpace(u64),
    /// A request for the guest with this number.
    Request(u64),
    /// The head of a request that comes in parts, for the guest with this number, and its own.
    RequestHead(u64, u64),
    /// A part of such a request, as `ReplyPart`.
    RequestPart(u64, u64, bool),
    /// The reply to what was forwarded.
    Reply(u64),
    /// A part of such a reply: its number, what comes before the next bytes, and whether it is the last.
    ReplyPart(u64, u64, bool),
    /// Nobody wants it.
    Unwanted,
}

impl From<RecordError> for MessageError {
    fn from(_: RecordError) -> Self {
        MessageError::Bad("entries that cannot be read")
    }
}

impl Cluster {
    /// Takes a piece of a message; `whole` if it is all of it.
    pub(super) fn take_piece(
        &mut self,
        peer: MemberIndex,
        incoming: &mut Incoming,
        bytes: Bytes,
        whole: bool,
    ) -> Result<(), MessageError> {
        match incoming {
            Incoming::New | Incoming::Head(_) => self.take_head(peer, incoming, bytes, whole),
            Incoming::Large(batch, _, draft) => {
                if draft.extend(&bytes).is_err() {
                    *incoming = Incoming::NoSpace(*batch);
                }
                Ok(())
            }
            Incoming::Request(guest) | Incoming::RequestHead(guest, _) => {
                self.feed_guest(*guest, &bytes);
                Ok(())
            }
            Incoming::RequestPart(id, offset, _) => {
                let at = std::mem::replace(offset, offset.saturating_add(bytes.len() as u64));
                self.handle_request_part(peer, *id, at, bytes)
            }
            Incoming::Reply(id) => {
                self.handle_reply(peer, *id, bytes, false);
                Ok(())
            }
            Incoming::ReplyPart(id, offset, _) => {
                let at = std::mem::replace(offset, offset.saturating_add(bytes.len() as u64));
                self.handle_reply_part(peer, *id, at, bytes)
            }
            Incoming::NoSpace(_) | Incoming::Unwanted => Ok(()),
        }
    }

    fn take_head(
        &mut self,
        peer: MemberIndex,
        incoming: &mut Incoming,
        bytes: Bytes,
        whole: bool,
    ) -> Result<(), MessageError> {
        let bytes = match std::mem::take(incoming) {
            Incoming::Head(mut head) => {
                head.extend_from_slice(&bytes);
                head.freeze()
            }
            _ => bytes,
        };
        let stream = bytes.first().is_some_and(|kind| is_stream(*kind));
        let begun = if stream { Message::decode(bytes.clone(), whole)? } else { None };
        if let Some((message, rest)) = begun {
            *incoming = self.begin_stream(peer, message)?;
            return if rest.is_empty() { Ok(()) } else { self.take_piece(peer, incoming, rest, whole) };
        }
        if bytes.len() > WHOLE_MAX {
            return Err(MessageError::Bad("a message longer than any"));
        }
        *incoming = Incoming::Head(BytesMut::from(bytes));
        Ok(())
    }

    fn begin_stream(&mut self, peer: MemberIndex, message: Message) -> Result<Incoming, MessageError> {
        if !self.peers[usize::from(peer)].greeted {
            return Err(MessageError::Bad("it did not say what it is first"));
        }
        Ok(match message {
            Message::Forward { id, wire, window, open } => match self.begin_guest(peer, id, wire, window) {
                Some(guest) if open => Incoming::RequestHead(guest, id),
                Some(guest) => Incoming::Request(guest),
                None => Incoming::Unwanted,
            },
            Message::Reply { id } => Incoming::Reply(id),
            Message::Part { of: Half::Request, id, offset, last } => Incoming::RequestPart(id, offset, last),
            Message::Part { of: Half::Reply, id, offset, last } if self.begin_reply_part(peer, id) => {
                Incoming::ReplyPart(id, offset, last)
            }
            Message::Large { batch, entry } => {
                if entry.len > self.replica.limits().value_max as u64 {
                    return Err(MessageError::Bad(
                        "a value longer than limits.max_value, which is not the same",
                    ));
                }
                let usage = self.replica.store().usage();
                let draft = BlobDraft::new(Some(entry.len as usize), usage);
                Incoming::Large(batch, Box::new(entry), draft)
            }
            _ => Incoming::Unwanted,
        })
    }

    /// The message is complete.
    pub(super) fn take_end(&mut self, peer: MemberIndex, incoming: Incoming) -> Result<(), MessageError> {
        match incoming {
            Incoming::New => Err(MessageError::Short),
            Incoming::Head(bytes) => match Message::decode(bytes.freeze(), true)? {
                Some((message, rest)) if rest.is_empty() => self.handle(peer, message),
                _ => Err(MessageError::Bad("a message with more behind it")),
            },
            Incoming::Large(batch, entry, draft) => self.take_large(peer, batch, &entry, draft),
            Incoming::NoSpace(batch) => {
                self.confirm_to(peer, batch, vec![(0, crate::message::NotTaken::NoSpace)]);
                Ok(())
            }
            Incoming::Request(guest) => {
                self.end_request(guest);
                Ok(())
            }
            Incoming::Reply(id) => {
                self.handle_reply(peer, id, Bytes::new(), true);
                Ok(())
            }
            Incoming::RequestHead(guest, id) => {
                self.ask_for_request(peer, id, guest);
                Ok(())
            }
            Incoming::RequestPart(id, len, true) => {
                self.end_request_part(peer, id, len);
                Ok(())
            }
            Incoming::ReplyPart(id, len, true) => {
                self.end_reply(peer, id, len);
                Ok(())
            }
            Incoming::RequestPart(..) | Incoming::ReplyPart(..) | Incoming::Unwanted => Ok(()),
        }
    }

    /// The rest of the message will not come.
    pub(super) fn take_drop(&mut self, incoming: Incoming) {
        if let Incoming::Request(guest) | Incoming::RequestHead(guest, _) = incoming {
            self.drop_guest(guest);
        }
    }

    fn take_large(
        &mut self,
        peer: MemberIndex,
        batch: u64,
        entry: &LargeEntry,
        draft: BlobDraft,
    ) -> Result<(), MessageError> {
        if draft.len() as u64 != entry.len || draft.len() < BLOB_BYTES_MIN {
            return Err(MessageError::Bad("a large value of another length than announced"));
        }
        let blob = std::sync::Arc::new(draft.finish());
        let view = View {
            version: entry.version,
            expires_ms: entry.expires_ms,
            floor: entry.floor,
            value: Some(Value::Blob(BlobRef::from(&blob))),
        };
        let refused = self.arrive(peer, &entry.key, &view, entry.base).err();
        self.confirm_to(peer, batch, refused.map(|why| (0, why)).into_iter().collect());
        self.settle_fetches_of(&entry.key);
        Ok(())
    }

    fn handle(&mut self, peer: MemberIndex, message: Message) -> Result<(), MessageError> {
        let greeted = self.peers[usize::from(peer)].greeted;
        if let Message::Hello(hello) = message {
            return self.handle_hello(peer, hello);
        }
        if !greeted {
            // Datagrams overtake.
            let overtaking = matches!(message, Message::Put { batch: 0, .. });
            let early = MessageError::Bad("it did not say what it is first");
            return if overtaking { Ok(()) } else { Err(early) };
        }
        match message {
            Message::Welcome => self.handle_welcome(peer),
            Message::Exchange(bytes) => self.handle_exchange(peer, &bytes)?,
            Message::Promise { stamp } => self.handle_promise(peer, stamp),
            Message::Watermark(watermark) => self.handle_watermark(peer, watermark),
            Message::Put { batch, records } => self.handle_put(peer, batch, &records)?,
            Message::Ack { batch, refused } => self.handle_ack(peer, batch, &refused),
            Message::Fetch { id, key } => self.handle_fetch(peer, id, &key),
            Message::Fetched { id, behind, record } => self.handle_fetched(peer, (id, behind), &record)?,
            Message::Grant { of: Half::Request, id, upto } => self.request_granted(peer, id, upto),
            Message::Grant { of: Half::Reply, id, upto } => self.handle_grant(peer, id, upto),
            Message::Cancel { of, id } => self.handle_cancel(peer, of, id),
            _ => {}
        }
        Ok(())
    }
}
