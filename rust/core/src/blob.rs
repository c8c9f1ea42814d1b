//! A large value: immutable chunks behind one reference count, so that a reader can stream it while it is
//! replaced and nobody ever needs it in one piece. Not for small values: those live inside their entry.

use std::marker::PhantomData;
use std::sync::Arc;

use crate::usage::{NoSpace, Reservation, Usage, footprint};

/// Values from this size on are blobs. Below it a copy under the slot's lock is cheaper than a second
/// allocation and a reference count.
pub const BLOB_BYTES_MIN: usize = 32 * 1024;

/// The size of a chunk. Small enough that filling one never delays other clients noticeably, large
/// enough that a gibibyte is a thousand of them.
pub const CHUNK_BYTES: usize = 1 << 20;

/// An immutable sequence of bytes in chunks.
#[derive(Debug, Default)]
pub struct Blob {
    /// Shared one by one, so that a longer value has most of them in common with the one it grew from.
    chunks: Vec<Arc<Chunk>>,
    len: usize,
}

/// A piece of a value, in the store's account for as long as anybody holds it: a value that was replaced
/// while a client reads it still takes memory.
#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    reserved: Reservation,
}

impl Chunk {
    fn new(capacity: usize, usage: &Arc<Usage>) -> Result<Self, NoSpace> {
        let reserved = usage.reserve(Chunk::footprint(capacity))?;
        Ok(Chunk { bytes: Vec::with_capacity(capacity), reserved })
    }

    /// What a chunk takes, with its count of references and the pointer to it.
    fn footprint(capacity: usize) -> u64 {
        (footprint(capacity) + size_of::<Chunk>() + 3 * size_of::<usize>()) as u64
    }

    fn has_room(&self, len: usize) -> bool {
        self.bytes.capacity() - self.bytes.len() >= len
    }

    fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.reserved.shrink_to(Chunk::footprint(self.bytes.capacity()));
    }
}

impl Blob {
    /// A copy of `bytes`.
    ///
    /// # Errors
    /// `NoSpace` when the node has no room for it.
    pub fn new(bytes: &[u8], usage: &Arc<Usage>) -> Result<Self, NoSpace> {
        let mut draft = BlobDraft::new(Some(bytes.len()), usage);
        draft.extend(bytes)?;
        Ok(draft.finish())
    }

    /// How many bytes the value has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the value has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value's pieces, in order.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        self.chunks.iter().map(|chunk| chunk.bytes.as_slice())
    }

    /// The bytes from `offset` to the end of the chunk they are in; empty at the end of the value.
    pub fn piece(&self, offset: usize) -> &[u8] {
        let chunk = self.chunks.get(offset / CHUNK_BYTES);
        chunk.and_then(|chunk| chunk.bytes.get(offset % CHUNK_BYTES..)).unwrap_or_default()
    }
}

impl PartialEq for Blob {
    /// All chunks but the last are full, so equal values have equal chunks.
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.chunks().eq(other.chunks())
    }
}

impl Eq for Blob {}

/// A blob as it arrives. Memory is taken chunk by chunk, whatever length was announced.
#[derive(Debug)]
pub struct BlobDraft {
    blob: Blob,
    expected: Option<usize>,
    usage: Arc<Usage>,
}

impl BlobDraft {
    /// A draft of `expected` bytes, or of as many as will come.
    pub fn new(expected: Option<usize>, usage: &Arc<Usage>) -> Self {
        BlobDraft { blob: Blob::default(), expected, usage: Arc::clone(usage) }
    }

    /// A draft that begins with a whole value, without a copy of it, to which `more` bytes will be added.
    pub fn after(blob: &Blob, more: usize, usage: &Arc<Usage>) -> Self {
        let expected = Some(blob.len + more);
        let blob = Blob { chunks: blob.chunks.clone(), len: blob.len };
        BlobDraft { blob, expected, usage: Arc::clone(usage) }
    }

    /// How many bytes have arrived.
    pub fn len(&self) -> usize {
        self.blob.len
    }

    /// Whether nothing has arrived yet.
    pub fn is_empty(&self) -> bool {
        self.blob.len == 0
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// `NoSpace` when the node has no room for the next chunk: the draft is of no use any more.
    pub fn extend(&mut self, mut bytes: &[u8]) -> Result<(), NoSpace> {
        while !bytes.is_empty() {
            let used = self.blob.len % CHUNK_BYTES;
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - used));
            self.make_room(used, now.len())?;
            // Invariant: there is room in the last chunk, which nobody shares.
            if let Some(chunk) = self.blob.chunks.last_mut().and_then(Arc::get_mut) {
                chunk.bytes.extend_from_slice(now);
            }
            self.blob.len += now.len();
            bytes = later;
        }
        Ok(())
    }

    /// Has the last chunk, with `used` bytes in it, take `len` more: a new one if it is full, another one if
    /// it is shared or too short.
    fn make_room(&mut self, used: usize, len: usize) -> Result<(), NoSpace> {
        let chunks = &mut self.blob.chunks;
        let last = chunks.last_mut().filter(|_| used > 0);
        if last.and_then(Arc::get_mut).is_some_and(|chunk| chunk.has_room(len)) {
            return Ok(());
        }
        let left = self.expected.map_or(CHUNK_BYTES, |total| total.saturating_sub(self.blob.len));
        let mut chunk = Chunk::new((used + left.clamp(len, CHUNK_BYTES)).min(CHUNK_BYTES), &self.usage)?;
        if used > 0 {
            chunks.pop().into_iter().for_each(|short| chunk.bytes.extend_from_slice(&short.bytes));
        }
        chunks.push(Arc::new(chunk));
        Ok(())
    }

    /// The finished value.
    pub fn finish(mut self) -> Blob {
        if let Some(last) = self.blob.chunks.last_mut().and_then(Arc::get_mut) {
            last.shrink();
        }
        self.blob
    }
}

/// A borrowed `Arc<Blob>` that fits in one unaligned word, which is all an entry has for it.
#[derive(Clone, Copy, Debug)]
pub struct BlobRef<'a> {
    blob: *const Blob,
    lent: PhantomData<&'a Arc<Blob>>,
}

impl<'a> BlobRef<'a> {
    /// Lends out the blob behind a pointer.
    ///
    /// # Safety
    /// `blob` came from `Arc::into_raw`, and that reference is kept for all of `'a`.
    pub(crate) unsafe fn from_raw(blob: *const Blob) -> Self {
        BlobRef { blob, lent: PhantomData }
    }

    /// A reference of its own, to outlive the loan.
    pub fn share(self) -> Arc<Blob> {
        // SAFETY: the pointer came from an `Arc` that is kept at least as long as this loan.
        unsafe {
            Arc::increment_strong_count(self.blob);
            Arc::from_raw(self.blob)
        }
    }

    /// The pointer that `Arc::into_raw` gave, with the right to the reference count beside the blob.
    pub(crate) fn as_ptr(self) -> *const Blob {
        self.blob
    }

    /// The blob itself.
    pub fn get(self) -> &'a Blob {
        // SAFETY: as in `share`.
        unsafe { &*self.blob }
    }
}

impl<'a> From<&'a Arc<Blob>> for BlobRef<'a> {
    fn from(blob: &'a Arc<Blob>) -> Self {
        BlobRef { blob: Arc::as_ptr(blob), lent: PhantomData }
    }
}

/// A value on its way into the store or out of it.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// A small value, borrowed from where it lies.
    Inline(&'a [u8]),
    /// A large value, shared.
    Blob(BlobRef<'a>),
}

impl<'a> Value<'a> {
    /// How many bytes the value has.
    pub fn len(&self) -> usize {
        match self {
            Value::Inline(bytes) => bytes.len(),
            Value::Blob(blob) => blob.get().len(),
        }
    }

    /// Whether the value has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value's pieces, in order.
    pub fn chunks(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (inline, blob) = match self {
            Value::Inline(bytes) => (Some(*bytes), None),
            Value::Blob(blob) => (None, Some(blob.get().chunks())),
        };
        inline.into_iter().chain(blob.into_iter().flatten())
    }

    /// The value in one piece: a copy.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        self.chunks().for_each(|chunk| bytes.extend_from_slice(chunk));
        bytes
    }
}

impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Value::Inline(a), Value::Inline(b)) => a == b,
            (Value::Blob(a), Value::Blob(b)) => std::ptr::eq(a.blob, b.blob) || a.get() == b.get(),
            // A value's size decides its form, so different forms are different values.
            _ => false,
        }
    }
}

impl Eq for Value<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::Keyspaces;

    #[test]
    fn chunks_hold_what_came_however_it_was_split() -> Result<(), NoSpace> {
        let bytes: Vec<u8> = (0..3 * CHUNK_BYTES + 17).map(|i| (i % 251) as u8).collect();
        let usage = Arc::default();
        let whole = Blob::new(&bytes, &usage)?;
        let mut draft = BlobDraft::new(None, &usage);
        bytes.chunks(70_001).try_for_each(|part| draft.extend(part))?;
        let parts = draft.finish();

        assert_eq!(whole, parts);
        assert_eq!(whole.chunks().count(), 4);
        assert_eq!(Value::Blob(BlobRef::from(&Arc::new(parts))).to_vec(), bytes);
        assert_eq!(whole.piece(3 * CHUNK_BYTES + 16), &bytes[3 * CHUNK_BYTES + 16..]);
        assert!(whole.piece(bytes.len()).is_empty());
        drop(whole);
        assert_eq!(usage.total().bytes(), 0);
        Ok(())
    }

    #[test]
    fn an_announced_length_takes_no_memory() -> Result<(), NoSpace> {
        let usage = Arc::new(Usage::new(2 << 20, &Keyspaces::default()));
        let mut draft = BlobDraft::new(Some(1 << 40), &usage);
        draft.extend(b"x")?;
        assert_eq!(draft.blob.chunks[0].bytes.capacity(), CHUNK_BYTES);
        assert!(draft.extend(&[0; 2 << 20]).is_err());
        drop(draft);
        assert_eq!(usage.total().bytes(), 0);
        Ok(())
    }

    #[test]
    fn a_longer_value_shares_the_chunks_of_the_one_it_grew_from() -> Result<(), NoSpace> {
        let usage = Arc::default();
        let short = Blob::new(&[1; 2 * CHUNK_BYTES + 5], &usage)?;
        let before = usage.total().bytes();
        let mut draft = BlobDraft::after(&short, 10, &usage);
        draft.extend(&[2; 10])?;
        let long = draft.finish();
        assert_eq!(
            (long.len(), long.piece(2 * CHUNK_BYTES)),
            (short.len() + 10, &[&[1; 5][..], &[2; 10]].concat()[..])
        );
        assert!(usage.total().bytes() - before < 1000);
        drop(short);
        assert_eq!(long.chunks().count(), 3);
        assert!(usage.total().bytes() < before + 1000);
        Ok(())
    }
}
