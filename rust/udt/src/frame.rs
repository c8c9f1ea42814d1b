//! The frames inside of a DATA packet. Both directions of the format are here and nowhere else.
//!
//! A frame is a type byte and numbers of variable length (RFC 9000, 16). Types:
//!
//! ```text
//! 0x00 PADDING   0x01 PING
//! 0x02 ACK             largest, delay in us, count, first length, (gap, length)*, ECT(0), ECT(1), CE,
//!                      arrival rate in packets/s, capacity in packets/s; ranges as in RFC 9000, 19.3
//! 0x03 MSG_DROP        id, bytes sent, after+1: the sender gives the message up
//! 0x04 MSG_STOP        id: the receiver does not want the rest
//! 0x05 MAX_DATA        bytes   0x06 MAX_MSG_DATA  id, bytes   0x07 MAX_MSGS  messages
//! 0x08 DGRAM           length, bytes; best effort
//! 0x09 PATH_CHALLENGE  u64     0x0a PATH_RESPONSE u64
//! 0x0b CLOSE           code, length, reason in UTF-8
//! 0x40 to 0x5f MSG     id, offset, [distance to its predecessor], [length], bytes
//!                      bits 3-4: class; 0: fin; 1: has a predecessor; 2: goes on to the end of the packet
//! ```

use std::ops::Range;

use smallvec::SmallVec;

use crate::coding::{Reader, VAR_MAX, put_var, var_len};
use crate::error::Malformed;

/// Ranges in one ACK. The oldest are left out: they were in earlier ones.
pub(crate) const ACK_RANGES_MAX: usize = 64;
/// Bytes of a reason for closing.
pub(crate) const REASON_MAX: usize = 256;
/// Most bytes that the head of a MSG frame takes, with a length.
pub(crate) const MESSAGE_HEAD_MAX: usize = 1 + 8 + 8 + 8 + 4;

const PADDING: u8 = 0x00;
const PING: u8 = 0x01;
const ACK: u8 = 0x02;
const MSG_DROP: u8 = 0x03;
const MSG_STOP: u8 = 0x04;
const MAX_DATA: u8 = 0x05;
const MAX_MSG_DATA: u8 = 0x06;
const MAX_MSGS: u8 = 0x07;
const DGRAM: u8 = 0x08;
const PATH_CHALLENGE: u8 = 0x09;
const PATH_RESPONSE: u8 = 0x0a;
const CLOSE: u8 = 0x0b;
const MSG: u8 = 0x40;
const MSG_FIN: u8 = 1;
const MSG_AFTER: u8 = 2;
const MSG_TO_END: u8 = 4;

/// A frame that was received, or is to be sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Frame<'a> {
    /// Nothing.
    Padding,
    /// Asks for an acknowledgement.
    Ping,
    /// Which packets came.
    Ack(Ack),
    /// A piece of a message.
    Message(MessageFrame<'a>),
    /// The sender gives a message up.
    Drop {
        /// The message.
        id: u64,
        /// Bytes of it that were sent.
        size: u64,
        /// The message that it was to follow.
        after: Option<u64>,
    },
    /// The receiver does not want the rest of a message.
    Stop {
        /// The message.
        id: u64,
    },
    /// Bytes of all messages that may be sent.
    MaxData(u64),
    /// Bytes of one message that may be sent.
    MaxMessageData {
        /// The message.
        id: u64,
        /// Bytes from its start.
        max: u64,
    },
    /// Messages that may be begun.
    MaxMessages(u64),
    /// A best-effort datagram.
    Datagram(&'a [u8]),
    /// "Are you at this address?"
    PathChallenge(u64),
    /// "Yes", from where the challenge came.
    PathResponse(u64),
    /// The connection ends.
    Close {
        /// Why, as a number.
        code: u64,
        /// Why, in words.
        reason: &'a [u8],
    },
}

/// Which packets came, and what the receiver measured.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ack {
    /// Packet numbers, the highest range first; never empty.
    pub ranges: SmallVec<[Range<u64>; 4]>,
    /// Microseconds since the largest one came.
    pub delay_us: u64,
    /// Packets by their ECN mark.
    pub ecn: EcnCounts,
    /// Packets a second that arrive; 0 is unknown.
    pub rate: u64,
    /// Packets a second that the path could take, from packet pairs; 0 is unknown.
    pub capacity: u64,
}

/// Packets received by their ECN mark (RFC 3168).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct EcnCounts {
    /// ECT(0).
    pub ect0: u64,
    /// ECT(1).
    pub ect1: u64,
    /// Congestion experienced.
    pub ce: u64,
}

/// A piece of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MessageFrame<'a> {
    /// The message.
    pub id: u64,
    /// Where the piece begins in it.
    pub offset: u64,
    /// Its class, 0 to 3.
    pub class: u8,
    /// Whether the message ends with this piece.
    pub fin: bool,
    /// The message that must be delivered before this one. Told with offset 0.
    pub after: Option<u64>,
    /// The bytes.
    pub data: &'a [u8],
}

/// Reads the next frame, or `None` at the end.
pub(crate) fn read<'a>(reader: &mut Reader<'a>) -> Result<Option<Frame<'a>>, Malformed> {
    if reader.is_empty() {
        return Ok(None);
    }
    Ok(Some(match reader.u8()? {
        PADDING => Frame::Padding,
        PING => Frame::Ping,
        ACK => Frame::Ack(Ack::read(reader)?),
        MSG_DROP => {
            let (id, size, after) = (reader.var()?, reader.var()?, reader.var()?);
            if after > id {
                return Err(Malformed::Value("the predecessor"));
            }
            Frame::Drop { id, size, after: after.checked_sub(1) }
        }
        MSG_STOP => Frame::Stop { id: reader.var()? },
        MAX_DATA => Frame::MaxData(reader.var()?),
        MAX_MSG_DATA => Frame::MaxMessageData { id: reader.var()?, max: reader.var()? },
        MAX_MSGS => Frame::MaxMessages(reader.var()?),
        DGRAM => {
            let len = reader.var_len()?;
            Frame::Datagram(reader.bytes(len)?)
        }
        PATH_CHALLENGE => Frame::PathChallenge(reader.u64()?),
        PATH_RESPONSE => Frame::PathResponse(reader.u64()?),
        CLOSE => {
            let (code, len) = (reader.var()?, reader.var_len()?);
            if len > REASON_MAX {
                return Err(Malformed::Value("the reason"));
            }
            Frame::Close { code, reason: reader.bytes(len)? }
        }
        kind @ MSG..0x60 => Frame::Message(MessageFrame::read(kind, reader)?),
        kind => return Err(Malformed::Type(kind)),
    }))
}

impl Frame<'_> {
    /// Appends the frame. A message's bytes come with their length.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Padding => out.push(PADDING),
            Frame::Ping => out.push(PING),
            Frame::Ack(ack) => ack.write(out),
            Frame::Message(message) => {
                message.write_head(out, Some(message.data.len()));
                out.extend_from_slice(message.data);
            }
            Frame::Drop { id, size, after } => {
                put(out, MSG_DROP, &[*id, *size, after.map_or(0, |after| after + 1)]);
            }
            Frame::Stop { id } => put(out, MSG_STOP, &[*id]),
            Frame::MaxData(max) => put(out, MAX_DATA, &[*max]),
            Frame::MaxMessageData { id, max } => put(out, MAX_MSG_DATA, &[*id, *max]),
            Frame::MaxMessages(max) => put(out, MAX_MSGS, &[*max]),
            Frame::Datagram(data) => {
                put(out, DGRAM, &[data.len() as u64]);
                out.extend_from_slice(data);
            }
            Frame::PathChallenge(number) => {
                out.push(PATH_CHALLENGE);
                out.extend_from_slice(&number.to_le_bytes());
            }
            Frame::PathResponse(number) => {
                out.push(PATH_RESPONSE);
                out.extend_from_slice(&number.to_le_bytes());
            }
            Frame::Close { code, reason } => {
                put(out, CLOSE, &[*code, reason.len() as u64]);
                out.extend_from_slice(reason);
            }
        }
    }
}

fn put(out: &mut Vec<u8>, kind: u8, numbers: &[u64]) {
    out.push(kind);
    numbers.iter().for_each(|number| put_var(out, *number));
}

impl<'a> MessageFrame<'a> {
    /// Appends all but the bytes. Without a length, they go on to the end of the packet.
    pub(crate) fn write_head(&self, out: &mut Vec<u8>, len: Option<usize>) {
        let mut kind = MSG | self.class << 3;
        kind |= if self.fin { MSG_FIN } else { 0 };
        kind |= if self.after.is_some() { MSG_AFTER } else { 0 };
        kind |= if len.is_none() { MSG_TO_END } else { 0 };
        put(out, kind, &[self.id, self.offset]);
        if let Some(after) = self.after {
            put_var(out, self.id - after);
        }
        if let Some(len) = len {
            put_var(out, len as u64);
        }
    }

    /// Bytes that `write_head` takes without the length.
    pub(crate) fn head_len(&self) -> usize {
        1 + var_len(self.id) + var_len(self.offset) + self.after.map_or(0, |after| var_len(self.id - after))
    }

    fn read(kind: u8, reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let (id, offset) = (reader.var()?, reader.var()?);
        let mut after = None;
        if kind & MSG_AFTER != 0 {
            let distance = reader.var()?;
            if distance == 0 || distance > id {
                return Err(Malformed::Value("the predecessor"));
            }
            after = Some(id - distance);
        }
        let data = if kind & MSG_TO_END != 0 {
            reader.rest()
        } else {
            let len = reader.var_len()?;
            reader.bytes(len)?
        };
        if offset + data.len() as u64 > VAR_MAX {
            return Err(Malformed::Value("the offset"));
        }
        Ok(MessageFrame { id, offset, class: kind >> 3 & 3, fin: kind & MSG_FIN != 0, after, data })
    }
}

impl Ack {
    /// The largest packet number that came.
    pub fn largest(&self) -> u64 {
        self.ranges.first().map_or(0, |range| range.end - 1)
    }

    fn write(&self, out: &mut Vec<u8>) {
        let Some(first) = self.ranges.first() else { return };
        let (largest, count) = (first.end - 1, self.ranges.len() as u64);
        put(out, ACK, &[largest, self.delay_us, count - 1, first.end - first.start - 1]);
        for pair in self.ranges.windows(2) {
            put_var(out, pair[0].start - pair[1].end - 1);
            put_var(out, pair[1].end - pair[1].start - 1);
        }
        for number in [self.ecn.ect0, self.ecn.ect1, self.ecn.ce, self.rate, self.capacity] {
            put_var(out, number);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let wrong = Malformed::Value("an acknowledged range");
        let (largest, delay_us, more) = (reader.var()?, reader.var()?, reader.var()?);
        if more >= ACK_RANGES_MAX as u64 {
            return Err(wrong);
        }
        let start = largest.checked_sub(reader.var()?).ok_or(wrong)?;
        let mut ranges = SmallVec::new();
        ranges.push(start..largest + 1);
        let mut above = start;
        for _ in 0..more {
            let end = above.checked_sub(reader.var()? + 1).ok_or(wrong)?;
            let start = end.checked_sub(reader.var()? + 1).ok_or(wrong)?;
            ranges.push(start..end);
            above = start;
        }
        let ecn = EcnCounts { ect0: reader.var()?, ect1: reader.var()?, ce: reader.var()? };
        Ok(Ack { ranges, delay_us, ecn, rate: reader.var()?, capacity: reader.var()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number() -> impl Strategy<Value = u64> {
        (0_u32..60, 0..=VAR_MAX / 4).prop_map(|(shift, number)| number >> shift)
    }

    fn ack() -> impl Strategy<Value = Ack> {
        let steps = prop::collection::vec((1_u64..9, 1_u64..9), 1..ACK_RANGES_MAX);
        (steps, number(), number()).prop_map(|(steps, base, measured)| {
            let mut ranges = SmallVec::new();
            let mut end = base + 2000;
            for (gap, len) in steps {
                ranges.push(end - len..end);
                end -= len + gap;
            }
            let ecn = EcnCounts { ect0: measured, ect1: 0, ce: 3 };
            Ack { ranges, delay_us: measured, ecn, rate: measured, capacity: measured / 2 }
        })
    }

    fn written(frame: &Frame<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        frame.write(&mut out);
        out
    }

    proptest! {
        #[test]
        fn an_ack_comes_back(ack in ack()) {
            let bytes = written(&Frame::Ack(ack.clone()));
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(read(&mut reader), Ok(Some(Frame::Ack(ack))));
            prop_assert_eq!(read(&mut reader), Ok(None));
        }

        #[test]
        fn every_other_frame_comes_back(
            id in number(), max in number(), back in number(), class in 0_u8..4, fin: bool,
            data in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let after = id.checked_sub(back + 1);
            let message = MessageFrame { id, offset: max, class, fin, after, data: &data };
            let frames = [
                Frame::Padding, Frame::Ping, Frame::Message(message), Frame::Drop { id, size: max, after },
                Frame::Stop { id }, Frame::MaxData(max), Frame::MaxMessageData { id, max },
                Frame::MaxMessages(max), Frame::Datagram(&data), Frame::PathChallenge(max),
                Frame::PathResponse(id), Frame::Close { code: max, reason: &data },
            ];
            let mut bytes: Vec<u8> = frames.iter().flat_map(written).collect();
            message.write_head(&mut bytes, None);
            bytes.extend_from_slice(&data);
            let mut reader = Reader::new(&bytes);
            for frame in frames {
                prop_assert_eq!(read(&mut reader), Ok(Some(frame)));
            }
            prop_assert_eq!(read(&mut reader), Ok(Some(Frame::Message(message))));
            prop_assert_eq!(read(&mut reader), Ok(None));
        }

        /// What can be read is written as it was, but for numbers longer than they need be.
        #[test]
        fn any_bytes_are_frames_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut reader = Reader::new(&bytes);
            while let Ok(Some(frame)) = read(&mut reader) {
                let again = written(&frame);
                prop_assert_eq!(read(&mut Reader::new(&again)), Ok(Some(frame)));
            }
        }
    }
}
