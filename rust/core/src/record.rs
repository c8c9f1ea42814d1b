//! One entry as it travels between nodes, inline values only: large ones travel by themselves.
//!
//! ```text
//! | flags 1 | key length 2 | value length 4 | stamp 8 | node 8 | expires 8? | floor 16? | base 16? |
//! | key | value |
//! ```

use crate::blob::{BLOB_BYTES_MIN, Value};
use crate::entry::View;
use crate::version::{NodeId, Version};

const TOMBSTONE: u8 = 1;
const EXPIRES: u8 = 1 << 1;
const FLOOR: u8 = 1 << 2;
const BASE: u8 = 1 << 3;
/// The base is nothing: the key had no entry.
const NEW: u8 = 1 << 4;
/// It is no entry, but the name of a write that came to this version.
const NAME: u8 = 1 << 5;
/// The peer was away when it was written.
const LATE: u8 = 1 << 6;
const ALL: u8 = TOMBSTONE | EXPIRES | FLOOR | BASE | NEW | NAME | LATE;

/// These bytes are no record.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("an entry cannot be read: it ends too early, or has unknown flags")]
pub struct RecordError;

/// What a write replaced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Base {
    /// Its version; zero if there was nothing.
    pub version: Version,
    /// The write is not of this moment: who gets it was away, and may have missed others, which these are
    /// made of.
    pub late: bool,
}

/// An entry that has arrived.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// What it says.
    pub view: View<'a>,
    /// What the write replaced; `None` if the sender does not know.
    pub base: Option<Base>,
    /// It is no entry: the value is the name of a write, which came to this version.
    pub is_name: bool,
}

/// Appends the entry of `key`. Of a large value only the head: its value must not be `Value::Blob`.
pub fn encode(out: &mut Vec<u8>, key: &[u8], view: &View<'_>, base: Option<Base>) {
    let late = base.is_some_and(|base| base.late);
    let base = base.map(|base| base.version);
    let new = base == Some(Version::ZERO);
    let base = base.filter(|_| !new);
    let value = match view.value {
        Some(Value::Inline(bytes)) => bytes,
        Some(Value::Blob(_)) | None => b"",
    };
    let set = |condition: bool, flag: u8| if condition { flag } else { 0 };
    out.push(
        set(view.value.is_none(), TOMBSTONE)
            | set(view.expires_ms != 0, EXPIRES)
            | set(view.floor != Version::ZERO, FLOOR)
            | set(base.is_some(), BASE)
            | set(new, NEW)
            | set(late, LATE),
    );
    out.extend_from_slice(&(key.len() as u16).to_le_bytes());
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    let put = |out: &mut Vec<u8>, version: Version| {
        out.extend_from_slice(&version.stamp.to_le_bytes());
        out.extend_from_slice(&version.node.0.to_le_bytes());
    };
    put(out, view.version);
    if view.expires_ms != 0 {
        out.extend_from_slice(&view.expires_ms.to_le_bytes());
    }
    [Some(view.floor).filter(|floor| *floor != Version::ZERO), base]
        .into_iter()
        .flatten()
        .for_each(|of| put(out, of));
    out.extend_from_slice(key);
    out.extend_from_slice(value);
}

/// Appends the name of a write of `key`, which came to `version`.
pub fn encode_name(out: &mut Vec<u8>, key: &[u8], name: &[u8], version: Version) {
    let at = out.len();
    encode(out, key, &View::value(version, Value::Inline(name)), None);
    out[at] |= NAME;
}

/// Reads records one after the other; after an error there is none.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// The records in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(RecordError)?;
        self.rest = rest;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<u64, RecordError> {
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(self.take(N)?);
        Ok(u64::from_le_bytes(bytes))
    }

    fn version(&mut self) -> Result<Version, RecordError> {
        Ok(Version { stamp: self.number::<8>()?, node: NodeId(self.number::<8>()?) })
    }

    fn record(&mut self) -> Result<Record<'a>, RecordError> {
        let flags = self.number::<1>()? as u8;
        let (key_len, value_len) = (self.number::<2>()? as usize, self.number::<4>()? as usize);
        let is_name = flags & NAME != 0;
        if flags & !ALL != 0 || value_len >= BLOB_BYTES_MIN || is_name && flags != NAME {
            return Err(RecordError);
        }
        let version = self.version()?;
        let expires_ms = if flags & EXPIRES != 0 { self.number::<8>()? } else { 0 };
        let floor = if flags & FLOOR != 0 { self.version()? } else { Version::ZERO };
        let new = (flags & NEW != 0).then_some(Version::ZERO);
        let base = if flags & BASE != 0 { Some(self.version()?) } else { None };
        let base = base.filter(|base| *base != Version::ZERO).or(new);
        let base = base.map(|version| Base { version, late: flags & LATE != 0 });
        let (key, value) = (self.take(key_len)?, self.take(value_len)?);
        let value = (flags & TOMBSTONE == 0).then_some(Value::Inline(value));
        let view = View { version, expires_ms, floor, value };
        Ok(Record { key, view, base, is_name })
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Record<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = self.record();
        if record.is_err() {
            self.rest = &[];
        }
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_write_goes_there_and_back() {
        let (version, mut bytes) = (Version { stamp: 3, node: NodeId(1) }, Vec::new());
        encode_name(&mut bytes, b"key", b"name", version);
        let view = View::value(version, Value::Inline(b"name"));
        let read: Vec<_> = Reader::new(&bytes).collect();
        assert_eq!(read, [Ok(Record { key: b"key", view, base: None, is_name: true })]);
    }

    #[test]
    fn what_a_write_replaced_goes_there_and_back() {
        let view = View::value(Version { stamp: 3, node: NodeId(1) }, Value::Inline(b"value"));
        let known = Version { stamp: 2, node: NodeId(2) };
        let base = |version, late| Some(Base { version, late });
        for (base, more) in [(None, 0), (base(Version::ZERO, false), 0), (base(known, true), 16)] {
            let mut bytes = Vec::new();
            encode(&mut bytes, b"key", &view, base);
            assert_eq!(bytes.len(), 1 + 2 + 4 + 16 + more + 3 + 5);
            let read: Vec<_> = Reader::new(&bytes).collect();
            assert_eq!(read, [Ok(Record { key: b"key", view, base, is_name: false })]);
        }
    }
}
