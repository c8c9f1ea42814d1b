//! A large value: immutable chunks behind one reference count, so that a reader can stream it while it is
//! replaced and nobody ever needs it in one piece. Not for small values: those live inside their entry.

use std::marker::PhantomData;
use std::sync::Arc;

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
    chunks: Vec<Arc<Vec<u8>>>,
    len: usize,
}

impl Blob {
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
        self.chunks.iter().map(|chunk| chunk.as_slice())
    }

    /// The bytes from `offset` to the end of the chunk they are in; empty at the end of the value.
    pub fn piece(&self, offset: usize) -> &[u8] {
        let chunk = self.chunks.get(offset / CHUNK_BYTES);
        chunk.and_then(|chunk| chunk.get(offset % CHUNK_BYTES..)).unwrap_or_default()
    }
}

impl PartialEq for Blob {
    /// All chunks but the last are full, so equal values have equal chunks.
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.chunks == other.chunks
    }
}

impl Eq for Blob {}

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Self {
        let mut draft = BlobDraft::new(Some(bytes.len()));
        draft.extend(bytes);
        draft.finish()
    }
}

/// A blob as it arrives. Memory is taken chunk by chunk, whatever length was announced.
#[derive(Debug)]
pub struct BlobDraft {
    blob: Blob,
    expected: Option<usize>,
}

impl BlobDraft {
    /// A draft of `expected` bytes, or of as many as will come.
    pub fn new(expected: Option<usize>) -> Self {
        BlobDraft { blob: Blob::default(), expected }
    }

    /// A draft that begins with a whole value, without a copy of it.
    pub fn after(blob: &Blob) -> Self {
        BlobDraft { blob: Blob { chunks: blob.chunks.clone(), len: blob.len }, expected: None }
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
    pub fn extend(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let used = self.blob.len % CHUNK_BYTES;
            if used == 0 {
                let left = self.expected.map_or(CHUNK_BYTES, |total| total.saturating_sub(self.blob.len));
                let capacity = left.clamp(bytes.len().min(CHUNK_BYTES), CHUNK_BYTES);
                self.blob.chunks.push(Arc::new(Vec::with_capacity(capacity)));
            }
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - used));
            if let Some(chunk) = self.blob.chunks.last_mut() {
                Arc::make_mut(chunk).extend_from_slice(now);
            }
            self.blob.len += now.len();
            bytes = later;
        }
    }

    /// The finished value.
    pub fn finish(mut self) -> Blob {
        if let Some(last) = self.blob.chunks.last_mut().and_then(Arc::get_mut) {
            last.shrink_to_fit();
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

    #[test]
    fn chunks_hold_what_came_however_it_was_split() {
        let bytes: Vec<u8> = (0..3 * CHUNK_BYTES + 17).map(|i| (i % 251) as u8).collect();
        let whole = Blob::from(&bytes[..]);
        let mut draft = BlobDraft::new(None);
        bytes.chunks(70_001).for_each(|part| draft.extend(part));
        let parts = draft.finish();

        assert_eq!(whole, parts);
        assert_eq!(whole.chunks().count(), 4);
        assert_eq!(Value::Blob(BlobRef::from(&Arc::new(parts))).to_vec(), bytes);
        assert_eq!(whole.piece(3 * CHUNK_BYTES + 16), &bytes[3 * CHUNK_BYTES + 16..]);
        assert!(whole.piece(bytes.len()).is_empty());
    }

    #[test]
    fn an_announced_length_takes_no_memory() {
        let mut draft = BlobDraft::new(Some(1 << 40));
        draft.extend(b"x");
        assert_eq!(draft.blob.chunks[0].capacity(), CHUNK_BYTES);
    }
}
