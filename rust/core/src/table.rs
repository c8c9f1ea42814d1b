//! One slot's keys: open addressing in hash order. Not the store: a table knows entries, not time or
//! versions.
//!
//! A bucket is one word: 20 bits of the key's hash (its *tag*) above 44 bits of the entry's address, which is
//! 16-byte aligned. Buckets are kept in tag order, each at or after its home, and never wrap around. So
//!
//! - most lookups touch one cache line here and one entry, and misses stop at the first larger tag;
//! - a table grows, shrinks and closes gaps without reading an entry;
//! - a scan resumes at a tag, whatever happened to the table in between.
//!
//! Source: Amble and Knuth, "Ordered hash tables" (1974).

use crate::entry::{ENTRY_ALIGN, Entry, EntryRef, View};
use crate::usage::footprint;
use crate::version::NodeId;

/// Bits of a key's hash kept beside its address.
pub const TAG_BITS: u32 = 20;

const ADDRESS_BITS: u32 = 64 - TAG_BITS;
const EMPTY: u64 = 0;

/// The entries of one slot.
#[derive(Debug, Default)]
pub struct Table {
    buckets: Box<[u64]>,
    len: u32,
}

impl Table {
    /// How many entries the table has.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether the table has no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The memory of the table itself, in bytes.
    pub fn footprint(&self) -> usize {
        if self.buckets.is_empty() { 0 } else { footprint(size_of_val(&*self.buckets)) }
    }

    /// The index of `key`, whose hash begins with `tag`.
    pub fn find(&self, tag: u32, key: &[u8]) -> Option<usize> {
        let start = self.home(tag);
        for (index, &bucket) in self.buckets.iter().enumerate().skip(start) {
            if bucket == EMPTY || tag_of(bucket) > tag {
                return None;
            }
            if tag_of(bucket) == tag && self.at(index).key() == key {
                return Some(index);
            }
        }
        None
    }

    /// Fetches the bucket where an entry with `tag` begins to be looked for.
    pub fn prefetch_bucket(&self, tag: u32) {
        if let Some(bucket) = self.buckets.get(self.home(tag)) {
            fetch(bucket);
        }
    }

    /// Fetches the entry that has `tag`, if there is one.
    pub fn prefetch_entry(&self, tag: u32) {
        let from_home = self.buckets.iter().skip(self.home(tag));
        let found = from_home.take_while(|bucket| **bucket != EMPTY).find(|bucket| tag_of(**bucket) >= tag);
        if let Some(&bucket) = found {
            let address = std::ptr::without_provenance::<u8>(address_of(bucket));
            fetch(address);
            fetch(address.wrapping_add(64));
        }
    }

    /// The entry at `index`, which `find` returned and nothing has changed since.
    pub fn at(&self, index: usize) -> EntryRef<'_> {
        // SAFETY: the bucket holds the address of an entry the table owns, lent as long as the table is.
        unsafe { EntryRef::from_address(address_of(self.buckets[index])) }
    }

    /// Makes the entry at `index` say `view`.
    pub fn rewrite(&mut self, index: usize, view: &View<'_>, home: NodeId) {
        let tag = tag_of(self.buckets[index]);
        let mut entry = self.take(index);
        if !entry.rewrite(view, home) {
            entry = Entry::new(entry.borrow().key(), view, home);
        }
        self.buckets[index] = bucket_of(tag, entry);
    }

    /// Adds an entry whose key is not in the table; returns its index.
    pub fn insert(&mut self, tag: u32, entry: Entry) -> usize {
        let bucket = bucket_of(tag, entry);
        self.len += 1;
        let mut capacity = self.buckets.len();
        if self.len() <= load_max(capacity)
            && let Some(index) = self.place(bucket)
        {
            return index;
        }
        loop {
            capacity = grown(capacity);
            if self.rebuild(capacity)
                && let Some(index) = self.place(bucket)
            {
                return index;
            }
        }
    }

    /// Takes out the entry at `index`.
    pub fn remove(&mut self, index: usize) -> Entry {
        let entry = self.take(index);
        let mut gap = index;
        while let Some(&next) = self.buckets.get(gap + 1) {
            if next == EMPTY || self.home(tag_of(next)) > gap {
                break;
            }
            self.buckets[gap] = next;
            gap += 1;
        }
        self.buckets[gap] = EMPTY;
        self.len -= 1;
        self.shrink();
        entry
    }

    /// The entries from `tag` on, with their tags, in tag order.
    pub fn iter_from(&self, tag: u32) -> impl Iterator<Item = (u32, EntryRef<'_>)> {
        let full =
            self.buckets.iter().enumerate().skip(self.home(tag)).filter(|(_, bucket)| **bucket != EMPTY);
        full.map(|(index, &bucket)| (tag_of(bucket), self.at(index)))
            .skip_while(move |(found, _)| *found < tag)
    }

    /// All entries, in tag order.
    pub fn iter(&self) -> impl Iterator<Item = EntryRef<'_>> {
        self.iter_from(0).map(|(_, entry)| entry)
    }

    /// The first bucket where an entry with `tag` may be. The last few buckets are nobody's home: they
    /// take what is pushed beyond the others.
    fn home(&self, tag: u32) -> usize {
        let capacity = self.buckets.len();
        let homes = (capacity - capacity / 32).saturating_sub(1);
        (tag as usize * homes) >> TAG_BITS
    }

    /// Puts a bucket in its place, and tells which, if it can without reaching beyond the end.
    fn place(&mut self, bucket: u64) -> Option<usize> {
        let tag = tag_of(bucket);
        let mut at = self.home(tag);
        while self.buckets.get(at).is_some_and(|&found| found != EMPTY && tag_of(found) <= tag) {
            at += 1;
        }
        let run = self.buckets.get(at..)?.iter().position(|&found| found == EMPTY)?;
        self.buckets.copy_within(at..at + run, at + 1);
        self.buckets[at] = bucket;
        Some(at)
    }

    /// Moves every bucket to a table of `capacity`. Returns whether they fit.
    fn rebuild(&mut self, capacity: usize) -> bool {
        let old = std::mem::replace(&mut self.buckets, vec![EMPTY; capacity].into_boxed_slice());
        let mut free = 0;
        for &bucket in old.iter().filter(|&&bucket| bucket != EMPTY) {
            let at = self.home(tag_of(bucket)).max(free);
            if at >= capacity {
                self.buckets = old;
                return false;
            }
            self.buckets[at] = bucket;
            free = at + 1;
        }
        true
    }

    /// Gives memory back once three quarters are unused.
    fn shrink(&mut self) {
        if self.len == 0 {
            self.buckets = Box::default();
        } else if self.buckets.len() > 16 && self.len() < self.buckets.len() / 4 {
            self.rebuild(self.buckets.len() / 2);
        }
    }

    /// Takes the entry out of its bucket, which the caller fills or empties.
    fn take(&mut self, index: usize) -> Entry {
        let bucket = std::mem::replace(&mut self.buckets[index], EMPTY);
        assert_ne!(bucket, EMPTY, "the index is not of an entry");
        // SAFETY: the bucket owned the entry and is now empty, so it is taken back once.
        unsafe { Entry::from_address(address_of(bucket)) }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        for index in 0..self.buckets.len() {
            if self.buckets[index] != EMPTY {
                drop(self.take(index));
            }
        }
    }
}

/// Has the processor fetch the cache line at an address, which need not be valid.
pub fn fetch<T>(address: *const T) {
    // SAFETY: a prefetch is a hint, and never faults.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

fn tag_of(bucket: u64) -> u32 {
    (bucket >> ADDRESS_BITS) as u32
}

fn address_of(bucket: u64) -> usize {
    (bucket as usize & ((1 << ADDRESS_BITS) - 1)) * ENTRY_ALIGN
}

fn bucket_of(tag: u32, entry: Entry) -> u64 {
    let address = entry.into_address() / ENTRY_ALIGN;
    assert!(address >> ADDRESS_BITS == 0, "user addresses have at most 48 bits on the supported systems");
    (u64::from(tag) << ADDRESS_BITS) | address as u64
}

/// How many entries a table of `capacity` takes: seven eighths.
fn load_max(capacity: usize) -> usize {
    capacity - capacity.div_ceil(8)
}

/// The next size: four a doubling, which is also what the allocator has.
fn grown(capacity: usize) -> usize {
    let step = (capacity.next_power_of_two() / 8).max(2);
    (capacity + step) / step * step
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::Value;
    use crate::version::Version;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const HOME: NodeId = NodeId(1);

    fn view(stamp: u64) -> View<'static> {
        View::value(Version { stamp, node: HOME }, Value::Inline(b"v"))
    }

    fn tag(key: u16, clustered: bool) -> u32 {
        if clustered {
            u32::from(key % 3) + (1 << TAG_BITS) - 3
        } else {
            u32::from(key).wrapping_mul(2_654_435_761) >> 12
        }
    }

    proptest! {
        /// Against a map, with tags spread out and with all of them at the very end of the table.
        #[test]
        fn behaves_as_a_map(
            steps in proptest::collection::vec((0u16..200, 0u8..3), 0..600), clustered: bool,
        ) {
            let (mut table, mut map) = (Table::default(), BTreeMap::new());
            for (stamp, (key, action)) in steps.into_iter().enumerate() {
                let (tag, bytes, stamp) = (tag(key, clustered), key.to_be_bytes(), stamp as u64);
                match (action, table.find(tag, &bytes)) {
                    (0 | 1, None) => {
                        let index = table.insert(tag, Entry::new(&bytes, &view(stamp), HOME));
                        prop_assert_eq!(table.find(tag, &bytes), Some(index));
                    }
                    (0 | 1, Some(index)) => table.rewrite(index, &view(stamp), HOME),
                    (_, Some(index)) => drop(table.remove(index)),
                    (_, None) => {}
                }
                if action < 2 { map.insert(key, stamp); } else { map.remove(&key); }
            }
            prop_assert_eq!(table.len(), map.len());
            for (key, stamp) in &map {
                let index = table.find(tag(*key, clustered), &key.to_be_bytes());
                prop_assert_eq!(index.map(|index| table.at(index).view(HOME).version.stamp), Some(*stamp));
            }
            let tags: Vec<u32> = table.iter_from(0).map(|(tag, _)| tag).collect();
            prop_assert!(tags.is_sorted());
            prop_assert_eq!(table.iter_from(tags.get(tags.len() / 2).copied().unwrap_or(0)).count(),
                tags.iter().filter(|found| **found >= tags[tags.len() / 2]).count());
        }
    }

    #[test]
    fn three_quarters_of_the_buckets_are_used() {
        let (mut table, mut total, mut worst) = (Table::default(), 0.0, 1.0f64);
        let count = 5_000u32;
        for i in 0..count {
            let hash = foldhash::fast::FixedState::with_seed(9);
            let tag = (std::hash::BuildHasher::hash_one(&hash, i) >> (64 - TAG_BITS)) as u32;
            table.insert(tag, Entry::new(&i.to_be_bytes(), &view(1), HOME));
            let load = table.len() as f64 / table.buckets.len() as f64;
            total += load;
            worst = if i > 100 { worst.min(load) } else { worst };
        }
        assert!(total / f64::from(count) > 0.75, "mean load {}", total / f64::from(count));
        assert!(worst > 0.6, "worst load {worst}");
    }
}
