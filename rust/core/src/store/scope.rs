//! What healing reads of a store: digests and entries of what two nodes both keep, and watermarks.

use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;

use super::{Branch, Store};
use crate::entry::View;
use crate::merkle::{Digest, FANOUT};
use crate::slots::{Scope, SlotSet, bits};
use crate::table::TAG_BITS;
use crate::version::Version;

impl Store {
    /// What is at or below `watermark` and not there was deleted everywhere, in these slots. `collect` drops
    /// the tombstones.
    pub fn raise_watermarks(&self, slots: &SlotSet, watermark: Version) {
        for (index, branch) in self.branches.iter().enumerate() {
            let mut branch = branch.lock();
            for (place, slot) in branch.slots.iter_mut().enumerate() {
                if slots.contains((index * FANOUT + place) as u16) {
                    slot.watermark = slot.watermark.max(watermark);
                }
            }
        }
        // One may be under way, and past some of the slots.
        self.walks.store(2, Relaxed);
    }

    /// The digest of each branch, of what two nodes both keep.
    pub fn branch_digests(&self, scope: &Scope) -> Vec<Digest> {
        let of = |(index, branch): (usize, &Mutex<Branch>)| {
            let [low, high] = scope.slots.of_branch(index);
            if (low, high) == (0, 0) {
                return 0;
            }
            let branch = branch.lock();
            if scope.group == 0 && (low, high) == (u64::MAX, u64::MAX) {
                return branch.digest;
            }
            let slots = bits(low).chain(bits(high).map(|bit| bit + 64));
            slots.fold(0, |all, slot| all ^ branch.digest(scope.group, slot))
        };
        self.branches.iter().enumerate().map(of).collect()
    }

    /// The digest of each slot of a branch, and how many entries the slot has, of what two nodes both keep.
    pub fn slot_digests(&self, scope: &Scope, branch: usize) -> Vec<(Digest, usize)> {
        let of = self.branches[branch % FANOUT].lock();
        let digest = |slot: usize| match scope.slots.contains((branch * FANOUT + slot) as u16) {
            true => (of.digest(scope.group, slot), of.slots[slot].table.len()),
            false => (0, 0),
        };
        (0..FANOUT).map(digest).collect()
    }

    /// Visits entries of the slots in `scope` from `cursor` on, at least `limit` of them or some more, and
    /// returns the cursor to go on with; `None` at the end. As `scan` otherwise.
    pub fn scan_scope(
        &self,
        scope: &Scope,
        cursor: u64,
        limit: usize,
        mut visit: impl FnMut(&[u8], &View<'_>),
    ) -> Option<u64> {
        let (mut from, mut tag) = ((cursor >> TAG_BITS) as usize, (cursor & ((1 << TAG_BITS) - 1)) as u32);
        let mut visited = 0;
        while let Some(slot) = scope.slots.next(from) {
            let slot = usize::from(slot);
            if slot != from {
                tag = 0;
            }
            if visited >= limit {
                return Some((slot as u64) << TAG_BITS | u64::from(tag));
            }
            let branch = self.branches[slot / FANOUT].lock();
            let mut last = None;
            for (found, entry) in branch.slots[slot % FANOUT].table.iter_from(tag) {
                if visited >= limit && last != Some(found) {
                    return Some((slot as u64) << TAG_BITS | u64::from(found));
                }
                (visited, last) = (visited + 1, Some(found));
                if self.keyspaces.groups() > 1 && self.group_of(entry.key()) != scope.group {
                    continue;
                }
                visit(entry.key(), &entry.view(self.node));
            }
            // An empty slot costs a look, too.
            (from, tag, visited) = (slot + 1, 0, visited + 1);
        }
        None
    }
}
