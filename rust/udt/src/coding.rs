//! Numbers as bytes: fixed little-endian, and the variable length of RFC 9000, section 16.

use crate::error::Malformed;

/// The largest number that `put_var` takes.
pub(crate) const VAR_MAX: u64 = (1 << 62) - 1;

/// Bytes not yet read.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(Malformed::Short)?;
        self.0 = tail;
        Ok(head)
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, tail) = self.0.split_first_chunk().ok_or(Malformed::Short)?;
        self.0 = tail;
        Ok(*head)
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number of 1, 2, 4 or 8 bytes; the two highest bits say which.
    pub fn var(&mut self) -> Result<u64, Malformed> {
        let first = *self.0.first().ok_or(Malformed::Short)?;
        let mut bytes = [0; 8];
        let len = 1 << (first >> 6);
        bytes[8 - len..].copy_from_slice(self.bytes(len)?);
        bytes[8 - len] &= 0x3f;
        Ok(u64::from_be_bytes(bytes))
    }

    /// A number that is a length in memory.
    pub fn var_len(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.var()?).map_err(|_| Malformed::Short)
    }
}

/// Appends a number of up to 62 bits in 1, 2, 4 or 8 bytes.
pub(crate) fn put_var(out: &mut Vec<u8>, number: u64) {
    debug_assert!(number <= VAR_MAX);
    match var_len(number) {
        1 => out.push(number as u8),
        2 => out.extend_from_slice(&(number as u16 | 0x4000).to_be_bytes()),
        4 => out.extend_from_slice(&(number as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(number | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// Bytes that `put_var` takes for this number.
pub(crate) const fn var_len(number: u64) -> usize {
    match number {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        0x4000..0x4000_0000 => 4,
        _ => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_number_comes_back(shift in 0_u32..62, number in 0..=VAR_MAX) {
            let mut out = Vec::new();
            put_var(&mut out, number >> shift);
            prop_assert_eq!(out.len(), var_len(number >> shift));
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.var(), Ok(number >> shift));
            prop_assert!(reader.is_empty());
            prop_assert_eq!(Reader::new(&out[..out.len() - 1]).var(), Err(Malformed::Short));
        }
    }
}
