//! An entry: one key's value, or its tombstone, with its version, in a single allocation of its own.
//! Not the rule of which entry wins: that is `View::join`, and only `Store::merge` applies it.
//!
//! ```text
//! | stamp 8 | flags 1 | key length 1-2 | value length 0-4 | node 8? | expires 8? | floor 16? | key | value |
//! ```
//! What a usual entry does not need takes no room: its overhead is 11 bytes.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cmp::{Ordering, Reverse};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::blob::{Blob, BlobRef, Value};
use crate::keyspace::Writes;
use crate::usage::{Growth, footprint};
use crate::version::{NodeId, Version};

/// Keys are at most this long whatever the configuration says: the length has two bytes.
pub const KEY_BYTES_MAX: usize = u16::MAX as usize;

/// Entries are aligned to this many bytes, which leaves the low bits of their address to the table.
pub const ENTRY_ALIGN: usize = 16;

/// What an entry says, borrowed from wherever it lies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct View<'a> {
    /// When and by whom it was written.
    pub version: Version,
    /// The Unix millisecond from which the value counts as absent; 0 is never.
    pub expires_ms: u64,
    /// Immutable keys only: the delete after which this value was written, its generation.
    pub floor: Version,
    /// The value; `None` is a tombstone.
    pub value: Option<Value<'a>>,
}

impl<'a> View<'a> {
    /// A tombstone: the key was deleted at `version`.
    pub fn tombstone(version: Version) -> Self {
        View { version, expires_ms: 0, floor: Version::ZERO, value: None }
    }

    /// A value that never expires.
    pub fn value(version: Version, value: Value<'a>) -> Self {
        View { version, expires_ms: 0, floor: Version::ZERO, value: Some(value) }
    }

    /// The value, unless it is deleted or has expired by `now_ms`.
    pub fn live(&self, now_ms: u64) -> Option<Value<'a>> {
        self.value.filter(|_| self.expires_ms == 0 || self.expires_ms > now_ms)
    }

    /// What two replicas agree on after each has seen both entries of a key. The laws, property-tested:
    ///
    /// ```text
    /// commutative   a + b       = b + a
    /// associative   (a + b) + c = a + (b + c)
    /// idempotent    a + a       = a
    /// ```
    ///
    /// They hold because it is the maximum of a total order. Versioned keys: the later version wins.
    /// Immutable keys: the later generation wins, within one the first value; a delete ends a generation,
    /// so it also ends a conflicting write whose writer had not seen the delete.
    pub fn join(self, other: Self, writes: Writes) -> Self {
        let order = match writes {
            Writes::Versioned => self.version.cmp(&other.version),
            Writes::Immutable => self.generation().cmp(&other.generation()).then_with(|| {
                let first = |view: &Self| (view.value.is_some(), Reverse(view.version));
                first(&self).cmp(&first(&other))
            }),
        };
        if order.then_with(|| self.tie(&other)).is_ge() { self } else { other }
    }

    /// The delete after which the entry came, or which it is.
    fn generation(&self) -> Version {
        if self.value.is_none() { self.version } else { self.floor }
    }

    /// Equal versions are equal entries unless a node broke its promise never to reuse a stamp; then any
    /// order does, as long as every replica uses the same.
    fn tie(&self, other: &Self) -> Ordering {
        if self == other {
            return Ordering::Equal;
        }
        let content =
            |view: &Self| (view.value.is_none(), view.expires_ms, view.floor, view.value.map(|v| v.to_vec()));
        content(self).cmp(&content(other))
    }
}

const TOMBSTONE: u8 = 1;
const NODE: u8 = 1 << 1;
const EXPIRES: u8 = 1 << 2;
const FLOOR: u8 = 1 << 3;
const LONG_KEY: u8 = 1 << 4;
/// Two bits: the value's length takes 1, 2 or 4 bytes, or the value is a blob's address.
const VALUE_SHIFT: u8 = 5;
const VALUE_BLOB: u8 = 3;

/// A blob's address takes this many bytes in an entry.
const BLOB_WIDTH: usize = 8;

const FLAGS_AT: usize = 8;
const KEY_LENGTH_AT: usize = 9;

/// Where the parts of an entry lie; a function of its first bytes.
#[derive(Clone, Copy)]
struct Shape {
    flags: u8,
    optional_at: usize,
    key_at: usize,
    key_len: usize,
    value_len: usize,
}

impl Shape {
    fn of(key_len: usize, view: &View<'_>, home: NodeId) -> Self {
        assert!(key_len <= KEY_BYTES_MAX, "the length of a key has two bytes");
        let mut flags = 0;
        let mut set = |condition: bool, flag: u8| flags |= if condition { flag } else { 0 };
        set(view.value.is_none(), TOMBSTONE);
        set(view.version.node != home, NODE);
        set(view.expires_ms != 0, EXPIRES);
        set(view.floor != Version::ZERO, FLOOR);
        set(key_len > usize::from(u8::MAX), LONG_KEY);
        let (width, value_len) = match view.value {
            None => (0, 0),
            Some(Value::Blob(_)) => (VALUE_BLOB, BLOB_WIDTH),
            Some(Value::Inline(bytes)) => match bytes.len() {
                0..=0xFF => (0, bytes.len()),
                0x100..=0xFFFF => (1, bytes.len()),
                _ => (2, bytes.len()),
            },
        };
        flags |= width << VALUE_SHIFT;
        Shape::from_lengths(flags, key_len, value_len)
    }

    fn from_lengths(flags: u8, key_len: usize, value_len: usize) -> Self {
        let optional_at = Self::value_length_at(flags) + Self::value_length_width(flags);
        let optional = usize::from(flags & NODE != 0) * 8
            + usize::from(flags & EXPIRES != 0) * 8
            + usize::from(flags & FLOOR != 0) * 16;
        Shape { flags, optional_at, key_at: optional_at + optional, key_len, value_len }
    }

    fn value_length_at(flags: u8) -> usize {
        KEY_LENGTH_AT + 1 + usize::from(flags & LONG_KEY != 0)
    }

    fn value_length_width(flags: u8) -> usize {
        match (flags & TOMBSTONE != 0, flags >> VALUE_SHIFT) {
            (true, _) | (_, VALUE_BLOB) => 0,
            (_, width) => 1 << width,
        }
    }

    fn is_blob(&self) -> bool {
        self.flags >> VALUE_SHIFT == VALUE_BLOB
    }

    fn value_at(&self) -> usize {
        self.key_at + self.key_len
    }

    fn layout(&self) -> Layout {
        let size = (self.value_at() + self.value_len).next_multiple_of(ENTRY_ALIGN);
        // SAFETY: the alignment is a power of two, and keys and inline values are far below isize::MAX.
        unsafe { Layout::from_size_align_unchecked(size, ENTRY_ALIGN) }
    }
}

/// An owned entry: one thin pointer.
#[derive(Debug)]
pub struct Entry {
    start: NonNull<u8>,
}

// SAFETY: an entry owns its bytes and a shared, immutable blob; nothing in it is tied to a thread.
unsafe impl Send for Entry {}
// SAFETY: all methods that take &self only read.
unsafe impl Sync for Entry {}

impl Entry {
    /// Makes the entry of `key`. `home` is this node, whose own versions are stored without their node.
    pub fn new(key: &[u8], view: &View<'_>, home: NodeId) -> Self {
        let shape = Shape::of(key.len(), view, home);
        let layout = shape.layout();
        // SAFETY: the layout is not empty: a shape has at least its stamp.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        let mut entry = Entry { start };
        entry.write_around_key(&shape, view);
        entry.part_mut(shape.key_at, shape.key_len).copy_from_slice(key);
        entry
    }

    /// Replaces what the entry says in place, when its parts keep their sizes. Returns whether it did.
    pub fn rewrite(&mut self, view: &View<'_>, home: NodeId) -> bool {
        let old = self.borrow().shape();
        let new = Shape::of(old.key_len, view, home);
        // The same flags put the key at the same place, so it stays where it is.
        if old.flags != new.flags || old.layout() != new.layout() {
            return false;
        }
        self.drop_blob();
        self.write_around_key(&new, view);
        true
    }

    /// The entry, lent.
    pub fn borrow(&self) -> EntryRef<'_> {
        EntryRef { start: self.start, lent: PhantomData }
    }

    /// Gives the entry away as its address, a multiple of `ENTRY_ALIGN`; `from_address` takes it back.
    pub fn into_address(self) -> usize {
        let address = self.start.as_ptr().expose_provenance();
        std::mem::forget(self);
        address
    }

    /// Takes back an entry that `into_address` gave away.
    ///
    /// # Safety
    /// `address` came from `into_address` and nobody else takes it back.
    pub unsafe fn from_address(address: usize) -> Self {
        // SAFETY: the address of a live allocation is not null.
        Entry { start: unsafe { NonNull::new_unchecked(std::ptr::with_exposed_provenance_mut(address)) } }
    }

    /// Writes everything but the key. The allocation has the layout of `shape` and holds no blob.
    fn write_around_key(&mut self, shape: &Shape, view: &View<'_>) {
        self.part_mut(0, 8).copy_from_slice(&view.version.stamp.to_ne_bytes());
        self.part_mut(FLAGS_AT, 1)[0] = shape.flags;
        let key_len = (shape.key_len as u16).to_le_bytes();
        let width = 1 + usize::from(shape.flags & LONG_KEY != 0);
        self.part_mut(KEY_LENGTH_AT, width).copy_from_slice(&key_len[..width]);
        let value_len = (shape.value_len as u32).to_le_bytes();
        let width = Shape::value_length_width(shape.flags);
        self.part_mut(Shape::value_length_at(shape.flags), width).copy_from_slice(&value_len[..width]);
        let optional = [
            (NODE, view.version.node.0),
            (EXPIRES, view.expires_ms),
            (FLOOR, view.floor.stamp),
            (FLOOR, view.floor.node.0),
        ];
        let mut at = shape.optional_at;
        for (_, word) in optional.into_iter().filter(|(flag, _)| shape.flags & flag != 0) {
            self.part_mut(at, 8).copy_from_slice(&word.to_ne_bytes());
            at += 8;
        }
        match view.value {
            None => {}
            Some(Value::Inline(bytes)) => self.part_mut(shape.value_at(), bytes.len()).copy_from_slice(bytes),
            Some(Value::Blob(blob)) => {
                let address = Arc::into_raw(blob.share()).expose_provenance() as u64;
                self.part_mut(shape.value_at(), BLOB_WIDTH).copy_from_slice(&address.to_ne_bytes());
            }
        }
    }

    fn drop_blob(&mut self) {
        let entry = self.borrow();
        if let Some(Value::Blob(blob)) = entry.value(&entry.shape()) {
            // SAFETY: `write_around_key` leaked exactly this reference, and the caller overwrites or frees
            // it.
            unsafe { Arc::decrement_strong_count(blob.as_ptr()) };
        }
    }

    fn part_mut(&mut self, at: usize, len: usize) -> &mut [u8] {
        // SAFETY: callers stay inside the shape, whose size the allocation has; the bytes are plain, so
        // writing them before they were ever read is sound.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(at), len) }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let layout = self.borrow().shape().layout();
        self.drop_blob();
        // SAFETY: allocated with this very layout, which the header still tells.
        unsafe { dealloc(self.start.as_ptr(), layout) };
    }
}

/// A borrowed entry.
#[derive(Clone, Copy, Debug)]
pub struct EntryRef<'a> {
    start: NonNull<u8>,
    lent: PhantomData<&'a Entry>,
}

impl<'a> EntryRef<'a> {
    /// Lends out the entry at an address.
    ///
    /// # Safety
    /// `address` came from `Entry::into_address`; the entry is neither changed nor freed during `'a`.
    pub unsafe fn from_address(address: usize) -> Self {
        // SAFETY: the address of a live allocation is not null.
        let start = unsafe { NonNull::new_unchecked(std::ptr::with_exposed_provenance_mut(address)) };
        EntryRef { start, lent: PhantomData }
    }

    /// The key.
    pub fn key(self) -> &'a [u8] {
        let shape = self.shape();
        self.part(shape.key_at, shape.key_len)
    }

    /// What the entry says. `home` is the node it was made with.
    pub fn view(self, home: NodeId) -> View<'a> {
        let shape = self.shape();
        let mut at = shape.optional_at;
        let mut next = |flag: u8| {
            (shape.flags & flag != 0).then(|| {
                at += 8;
                self.u64_at(at - 8)
            })
        };
        let node = next(NODE).map_or(home, NodeId);
        let expires_ms = next(EXPIRES).unwrap_or(0);
        let floor = Version { stamp: next(FLOOR).unwrap_or(0), node: NodeId(next(FLOOR).unwrap_or(0)) };
        View {
            version: Version { stamp: self.u64_at(0), node },
            expires_ms,
            floor,
            value: self.value(&shape),
        }
    }

    /// The memory the entry takes, with what the allocator rounds it up to, and the blob it refers to.
    pub fn footprint(self) -> Growth {
        let shape = self.shape();
        Growth { own: footprint(shape.layout().size()) as i64, blob: blob_footprint(self.value(&shape)) }
    }

    /// The memory the entry would take if it said `view`.
    pub fn footprint_of(self, view: &View<'_>, home: NodeId) -> Growth {
        let shape = Shape::of(self.shape().key_len, view, home);
        Growth { own: footprint(shape.layout().size()) as i64, blob: blob_footprint(view.value) }
    }

    fn value(self, shape: &Shape) -> Option<Value<'a>> {
        if shape.flags & TOMBSTONE != 0 {
            return None;
        }
        if !shape.is_blob() {
            return Some(Value::Inline(self.part(shape.value_at(), shape.value_len)));
        }
        let blob = std::ptr::with_exposed_provenance::<Blob>(self.u64_at(shape.value_at()) as usize);
        // SAFETY: `write_around_key` put an `Arc::into_raw` here, which the entry keeps as long as it is
        // lent.
        Some(Value::Blob(unsafe { BlobRef::from_raw(blob) }))
    }

    fn shape(self) -> Shape {
        let flags = self.byte_at(FLAGS_AT);
        let key_len = self.length_at(KEY_LENGTH_AT, 1 + usize::from(flags & LONG_KEY != 0));
        let width = Shape::value_length_width(flags);
        let value_len = match width {
            0 if flags & TOMBSTONE != 0 => 0,
            0 => BLOB_WIDTH,
            _ => self.length_at(Shape::value_length_at(flags), width),
        };
        Shape::from_lengths(flags, key_len, value_len)
    }

    /// A little-endian length of `width` bytes.
    fn length_at(self, at: usize, width: usize) -> usize {
        (0..width).fold(0, |length, i| length | usize::from(self.byte_at(at + i)) << (8 * i))
    }

    fn byte_at(self, at: usize) -> u8 {
        // SAFETY: callers stay inside the shape, whose size the allocation has.
        unsafe { *self.start.as_ptr().add(at) }
    }

    fn u64_at(self, at: usize) -> u64 {
        // SAFETY: as in `byte_at`.
        unsafe { self.start.as_ptr().add(at).cast::<u64>().read_unaligned() }
    }

    fn part(self, at: usize, len: usize) -> &'a [u8] {
        // SAFETY: as in `byte_at`; every part of the shape has been written.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(at), len) }
    }
}

fn blob_footprint(value: Option<Value<'_>>) -> i64 {
    match value {
        Some(Value::Blob(blob)) => blob.get().len() as i64,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::NoSpace;
    use proptest::prelude::*;

    const HOME: NodeId = NodeId(7);

    fn version(stamp: u64, node: u64) -> Version {
        Version { stamp, node: NodeId(node) }
    }

    #[test]
    fn a_usual_entry_costs_eleven_bytes() {
        let view = View::value(version(1, 7), Value::Inline(&[b'v'; 100]));
        let entry = Entry::new(&[b'k'; 16], &view, HOME);
        assert_eq!(entry.borrow().shape().value_at() + 100, 16 + 100 + 11);
        assert_eq!(entry.borrow().footprint(), Growth { own: 128, blob: 0 });
    }

    #[test]
    fn a_blob_is_shared_and_freed() -> Result<(), NoSpace> {
        let blob = Arc::new(Blob::new(&[1; 100_000], &Arc::default())?);
        let view = View::value(version(1, 7), Value::Blob(BlobRef::from(&blob)));
        let mut entry = Entry::new(b"key", &view, HOME);
        assert_eq!(Arc::strong_count(&blob), 2);
        assert!(entry.rewrite(&View { version: version(2, 7), ..view }, HOME));
        assert_eq!(Arc::strong_count(&blob), 2);
        assert_eq!(entry.borrow().view(HOME).value, view.value);
        drop(entry);
        assert_eq!(Arc::strong_count(&blob), 1);
        Ok(())
    }

    prop_compose! {
        fn content()(
            value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..400)),
            stamp in 1u64..6, node in 6u64..9, expires_ms in 0u64..3,
            floor in 0u64..4,
        ) -> (Option<Vec<u8>>, Version, u64, Version) {
            (value, version(stamp, node), expires_ms, version(floor, floor))
        }
    }

    fn view_of(content: &(Option<Vec<u8>>, Version, u64, Version)) -> View<'_> {
        let (value, version, expires_ms, floor) = content;
        View {
            version: *version,
            expires_ms: *expires_ms,
            floor: *floor,
            value: value.as_deref().map(Value::Inline),
        }
    }

    proptest! {
        #[test]
        fn an_entry_says_what_it_was_given(
            key in proptest::collection::vec(any::<u8>(), 0..600), first in content(), second in content(),
        ) {
            let mut entry = Entry::new(&key, &view_of(&first), HOME);
            prop_assert_eq!(entry.borrow().key(), &key[..]);
            prop_assert_eq!(entry.borrow().view(HOME), view_of(&first));
            if entry.rewrite(&view_of(&second), HOME) {
                prop_assert_eq!(entry.borrow().key(), &key[..]);
                prop_assert_eq!(entry.borrow().view(HOME), view_of(&second));
            }
        }

        #[test]
        fn join_obeys_its_laws(a in content(), b in content(), c in content()) {
            for writes in [Writes::Versioned, Writes::Immutable] {
                let clean = |content| normal(view_of(content), writes);
                let (a, b, c) = (clean(&a), clean(&b), clean(&c));
                prop_assert_eq!(a.join(b, writes), b.join(a, writes));
                prop_assert_eq!(a.join(b, writes).join(c, writes), a.join(b.join(c, writes), writes));
                prop_assert_eq!(a.join(a, writes), a);
            }
        }
    }

    /// Entries as writes make them: only immutable values have a floor, and it is below their version.
    fn normal(view: View<'_>, writes: Writes) -> View<'_> {
        let floor =
            if writes == Writes::Immutable && view.floor < view.version { view.floor } else { Version::ZERO };
        if view.value.is_some() { View { floor, ..view } } else { View::tombstone(view.version) }
    }
}
