//! The store: every key's entry, by slot, with a digest a slot. Not who may write or what a client asked.
//!
//! **`Store::merge` is the only function that changes an entry, whatever brought it.** When changing it,
//! keep in step, under the slot's lock: the table, the slot's digest and its branch's, the usage, the
//! counts of entries that expire and of tombstones, the watermark.
//!
//! One lock guards a branch, 128 slots. It is held for one key, or one step of a scan; never across I/O.

mod scope;

use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;
use parking_lot::{Mutex, MutexGuard};

use crate::entry::{Entry, EntryRef, View};
use crate::keyspace::{Keyspace, Keyspaces};
use crate::merkle::{Digest, DigestKey, FANOUT, MerkleTree};
use crate::slot::{SLOTS, key_slot};
use crate::table::{TAG_BITS, Table, fetch};
use crate::usage::{Growth, NoSpace, Usage};
use crate::version::{Clock, NodeId, Version};

/// What a store is made with.
#[derive(Debug)]
pub struct StoreConfig {
    /// This node.
    pub node: NodeId,
    /// Secret: spreads the keys of a slot, so that no client can pile them up. The same on all nodes of a
    /// cluster, for which a cursor is to mean the same.
    pub hash_seed: u64,
    /// The cluster's secret for digests.
    pub digest_secret: [u8; 16],
    /// The rules by prefix.
    pub keyspaces: Keyspaces,
    /// Bytes the store may take; 0 is no limit.
    pub memory_max: u64,
}

/// Keys fetched for at once: about as many as a processor has fetches under way.
pub const PREFETCH: usize = 16;

/// One above the highest cursor.
pub const CURSOR_END: u64 = (SLOTS as u64) << TAG_BITS;

/// Every key's entry. Shared by all reactors: `&self` everywhere.
#[derive(Debug)]
pub struct Store {
    branches: Box<[Mutex<Branch>]>,
    node: NodeId,
    clock: Clock,
    hash_seed: u64,
    /// Secret too: with a known one, there are keys that collide whatever the other is.
    shared_seed: SharedSeed,
    digest_key: DigestKey,
    keyspaces: Keyspaces,
    usage: Arc<Usage>,
    keeps_tombstones: AtomicBool,
    /// See `is_behind`.
    behind: AtomicBool,
    /// Walks through the store that `collect` owes since watermarks rose.
    walks: AtomicU64,
    expiring: AtomicU64,
    tombstones: AtomicU64,
    expired: AtomicU64,
}

/// 128 slots under one lock.
#[derive(Debug)]
struct Branch {
    slots: [Slot; FANOUT],
    /// Of the keys of the first placement, or all of them if there is only one.
    digest: Digest,
    /// The digests of the slots, of the keys of each other placement.
    others: Vec<[Digest; FANOUT]>,
    /// Entries that expire, and tombstones: what `collect` may drop.
    passing: u64,
}

impl Branch {
    fn digest(&self, group: u8, slot: usize) -> Digest {
        match usize::from(group).checked_sub(1) {
            None => self.slots[slot].digest,
            Some(other) => self.others.get(other).map_or(0, |digests| digests[slot]),
        }
    }
}

/// What there is of an entry to be counted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Tally {
    values: u64,
    tombstones: u64,
    expiring: u64,
}

impl Tally {
    fn of(view: &View<'_>) -> Self {
        let tombstone = u64::from(view.value.is_none());
        Tally { values: 1 - tombstone, tombstones: tombstone, expiring: u64::from(view.expires_ms != 0) }
    }
}

/// The keys of one slot, and what is known of all of them. One cache line: a write waits for no second one.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Slot {
    table: Table,
    /// What is at or below this version and has no entry was deleted on every replica.
    watermark: Version,
    digest: Digest,
}

/// What a merge did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Merged {
    /// The entry is now what was merged.
    Applied,
    /// The store's entry beats it, or is the same.
    Kept,
    /// It is at or below the watermark of a slot without the key: a write that was deleted everywhere.
    Stale,
}

impl Store {
    /// An empty store.
    pub fn new(config: StoreConfig) -> Self {
        let others = config.keyspaces.groups() - 1;
        let branch = || {
            let slots = std::array::from_fn(|_| Slot::default());
            Mutex::new(Branch { slots, digest: 0, others: vec![[0; FANOUT]; others], passing: 0 })
        };
        Store {
            branches: (0..FANOUT).map(|_| branch()).collect(),
            node: config.node,
            clock: Clock::default(),
            hash_seed: config.hash_seed,
            shared_seed: SharedSeed::from_u64(config.hash_seed.rotate_left(32)),
            digest_key: DigestKey::new(&config.digest_secret),
            usage: Arc::new(Usage::new(config.memory_max, &config.keyspaces)),
            keyspaces: config.keyspaces,
            keeps_tombstones: AtomicBool::new(false),
            behind: AtomicBool::new(false),
            walks: AtomicU64::new(0),
            expiring: AtomicU64::new(0),
            tombstones: AtomicU64::new(0),
            expired: AtomicU64::new(0),
        }
    }

    /// Tombstones, and the versions of what expired, are kept for peers that have not seen them. A node
    /// without peers collects them at once.
    pub fn keep_tombstones(&self, keep: bool) {
        self.keeps_tombstones.store(keep, Relaxed);
    }

    /// Whether it began blank and may lack what other replicas have: it is none to be read from by itself.
    pub fn is_behind(&self) -> bool {
        self.behind.load(Relaxed)
    }

    /// It is behind, or not any more.
    pub fn set_behind(&self, behind: bool) {
        self.behind.store(behind, Relaxed);
    }

    /// The node whose store this is.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The clock that stamps this node's writes.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What the store holds.
    pub fn usage(&self) -> &Arc<Usage> {
        &self.usage
    }

    /// The secret of the digests.
    pub fn digest_key(&self) -> &DigestKey {
        &self.digest_key
    }

    /// The rules by prefix.
    pub fn keyspaces(&self) -> &Keyspaces {
        &self.keyspaces
    }

    /// How many entries have a time to expire.
    pub fn expiring(&self) -> u64 {
        self.expiring.load(Relaxed)
    }

    /// How many tombstones there are.
    pub fn tombstones(&self) -> u64 {
        self.tombstones.load(Relaxed)
    }

    /// Whether `collect` may find something to drop, now or later.
    pub fn has_passing(&self) -> bool {
        let may_go = !self.keeps_tombstones.load(Relaxed) || self.walks.load(Relaxed) > 0;
        self.expiring() > 0 || (may_go && self.tombstones() > 0)
    }

    /// How many entries were dropped because their time had passed.
    pub fn expired(&self) -> u64 {
        self.expired.load(Relaxed)
    }

    /// Merges an entry of `key`, from a client, a peer or a healing exchange: the one way to change it.
    ///
    /// # Errors
    /// `NoSpace` when the entry would pass a memory limit; nothing changed.
    pub fn merge(&self, key: &[u8], view: &View<'_>) -> Result<Merged, NoSpace> {
        self.cell(key).merge(view)
    }

    /// What is at or below `watermark` and not there was deleted everywhere, in the slot of `key`.
    pub fn raise_watermark(&self, key: &[u8], watermark: Version) {
        let mut cell = self.cell(key);
        let slot = cell.slot_mut();
        slot.watermark = slot.watermark.max(watermark);
        // As `raise_watermarks`: tombstones of the slot may go now.
        self.walks.store(2, Relaxed);
    }

    /// Reads the entry of `key`, tombstones and expired values too.
    pub fn read<R>(&self, key: &[u8], read: impl FnOnce(Option<View<'_>>) -> R) -> R {
        let place = self.place(key);
        let branch = self.branches[place.branch].lock();
        let table = &branch.slots[place.slot].table;
        read(table.find(place.tag, key).map(|index| table.at(index).view(self.node)))
    }

    /// Has the processor fetch what `read` and `merge` of these keys will touch. Only a hint: each key by
    /// itself waits for main memory twice or more, and all of them together hardly longer.
    pub fn prefetch(&self, keys: &[&[u8]]) {
        for keys in keys.chunks(PREFETCH) {
            let mut places = [Place::default(); PREFETCH];
            let places = &mut places[..keys.len()];
            places.iter_mut().zip(keys).for_each(|(place, key)| *place = self.place(key));
            self.prefetch_places(places);
        }
    }

    fn prefetch_places(&self, places: &[Place]) {
        for place in places {
            fetch(&raw const self.branches[place.branch]);
            // SAFETY: only the address of a field, which is not read.
            fetch(unsafe { &raw const (*self.branches[place.branch].data_ptr()).slots[place.slot] });
        }
        for place in places {
            self.branches[place.branch].lock().slots[place.slot].table.prefetch_bucket(place.tag);
        }
        for place in places {
            self.branches[place.branch].lock().slots[place.slot].table.prefetch_entry(place.tag);
        }
    }

    /// The bytes that `key` takes, its share of the table included; `None` when it has no entry.
    pub fn footprint(&self, key: &[u8]) -> Option<usize> {
        let place = self.place(key);
        let branch = self.branches[place.branch].lock();
        let table = &branch.slots[place.slot].table;
        let entry = table.at(table.find(place.tag, key)?).footprint();
        Some((entry.own + entry.blob) as usize + table.footprint() / table.len())
    }

    /// Locks `key`, to read it and merge what follows from that as one step.
    pub fn cell<'s>(&'s self, key: &'s [u8]) -> Cell<'s> {
        let place = self.place(key);
        let branch = self.branches[place.branch].lock();
        let index = branch.slots[place.slot].table.find(place.tag, key);
        Cell { store: self, key, place, branch, index }
    }

    /// Visits entries in slot and hash order from `cursor`, about `limit` of them, and returns the cursor
    /// to go on with; 0 is both the start and the end. An entry that is there during the whole scan is
    /// visited at least once, whatever is written meanwhile.
    pub fn scan(&self, cursor: u64, limit: usize, mut visit: impl FnMut(&[u8], View<'_>)) -> u64 {
        self.walk(cursor, limit, |_| true, |entry| visit(entry.key(), entry.view(self.node)))
    }

    /// Where `key` has its place in the order of `scan`: a cursor. It is the same on all nodes of a cluster,
    /// as their `hash_seed` is.
    pub fn position(&self, key: &[u8]) -> u64 {
        let place = self.place(key);
        ((place.branch * FANOUT + place.slot) as u64) << TAG_BITS | u64::from(place.tag)
    }

    /// Looks at about `limit` entries, from `cursor` on, and drops those whose time has passed and tombstones
    /// that need not be kept; returns the cursor to go on with, 0 at the end, and how many were dropped.
    /// Skips branches where nothing can be.
    pub fn collect(&self, cursor: u64, limit: usize, now_ms: u64) -> (u64, usize) {
        self.collect_each(cursor, limit, now_ms, |_, _, _| {})
    }

    /// The same, and tells the key, the version and the size of each value whose time has passed, which is
    /// locked meanwhile.
    pub fn collect_each(
        &self,
        cursor: u64,
        limit: usize,
        now_ms: u64,
        mut over: impl FnMut(&[u8], Version, usize),
    ) -> (u64, usize) {
        let mut due = Vec::new();
        let next = self.walk(
            cursor,
            limit,
            |branch| branch.passing > 0,
            |entry| {
                if entry.view(self.node).live(now_ms).is_none() {
                    due.push(entry.key().to_vec());
                }
            },
        );
        let mut dropped = 0;
        for key in &due {
            let mut cell = self.cell(key);
            let Some(view) = cell.view().filter(|view| view.live(now_ms).is_none()) else { continue };
            let (version, expired) = (view.version, view.value.map(|value| value.len()));
            if cell.collect() {
                if let Some(size) = expired {
                    self.expired.fetch_add(1, Relaxed);
                    over(key, version, size);
                }
                dropped += 1;
            }
        }
        if next == 0 {
            let _ = self.walks.fetch_update(Relaxed, Relaxed, |walks| walks.checked_sub(1));
        }
        (next, dropped)
    }

    /// The digests of everything, branch by branch; exact when nothing is written meanwhile.
    pub fn merkle(&self) -> MerkleTree {
        let mut tree = MerkleTree::new();
        for (index, branch) in self.branches.iter().enumerate() {
            let branch = branch.lock();
            for slot in 0..FANOUT {
                let others = branch.others.iter().map(|digests| digests[slot]);
                let digest = others.fold(branch.slots[slot].digest, |all, other| all ^ other);
                tree.add(index * FANOUT + slot, digest);
            }
        }
        tree
    }

    /// The digest of everything.
    pub fn root(&self) -> Digest {
        let of = |branch: &Mutex<Branch>| {
            let branch = branch.lock();
            branch.others.iter().flatten().fold(branch.digest, |all, other| all ^ other)
        };
        self.branches.iter().fold(0, |root, branch| root ^ of(branch))
    }

    fn group_of(&self, key: &[u8]) -> u8 {
        self.keyspaces.get(self.keyspaces.index_of(key)).group
    }

    fn walk(
        &self,
        cursor: u64,
        limit: usize,
        wanted: impl Fn(&Branch) -> bool,
        mut visit: impl FnMut(EntryRef<'_>),
    ) -> u64 {
        let mut slot = (cursor >> TAG_BITS) as usize;
        let mut tag = (cursor & ((1 << TAG_BITS) - 1)) as u32;
        let mut visited = 0;
        while slot < SLOTS {
            let branch = self.branches[slot / FANOUT].lock();
            let end = (slot / FANOUT + 1) * FANOUT;
            if !wanted(&branch) {
                (slot, tag) = (end, 0);
                continue;
            }
            for slot in slot..end {
                let mut last = None;
                for (found, entry) in branch.slots[slot % FANOUT].table.iter_from(tag) {
                    // Entries with one tag stay together: the cursor cannot tell them apart.
                    if visited >= limit && last != Some(found) {
                        return (slot as u64) << TAG_BITS | u64::from(found);
                    }
                    visit(entry);
                    (visited, last) = (visited + 1, Some(found));
                }
                tag = 0;
            }
            slot = end;
        }
        0
    }

    fn place(&self, key: &[u8]) -> Place {
        let slot = usize::from(key_slot(key));
        let mut hasher = FoldHasher::with_seed(self.hash_seed, &self.shared_seed);
        hasher.write(key);
        let tag = (hasher.finish() >> (64 - TAG_BITS)) as u32;
        Place { branch: slot / FANOUT, slot: slot % FANOUT, tag }
    }
}

/// Where a key belongs.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    branch: usize,
    slot: usize,
    tag: u32,
}

/// One key, locked.
pub struct Cell<'s> {
    store: &'s Store,
    key: &'s [u8],
    place: Place,
    branch: MutexGuard<'s, Branch>,
    index: Option<usize>,
}

impl Cell<'_> {
    /// The entry, also when it is a tombstone or has expired.
    pub fn view(&self) -> Option<View<'_>> {
        self.index.map(|index| self.entry(index).view(self.store.node))
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        self.key
    }

    /// The rules of the key.
    pub fn keyspace(&self) -> &Keyspace {
        self.store.keyspaces.get(self.store.keyspaces.index_of(self.key))
    }

    /// A version that beats the entry there is and all this node has made; `None` when there is none.
    pub fn next_version(&self, now_ms: u64) -> Option<Version> {
        let seen = self.view().map_or(Version::ZERO, |view| view.version).max(self.watermark());
        let stamp = self.store.clock.tick(now_ms).max(seen.stamp.checked_add(1)?);
        Some(Version { stamp, node: self.store.node })
    }

    /// The version up to which deletes in this slot are known to everyone.
    pub fn watermark(&self) -> Version {
        self.slot().watermark
    }

    /// See `Store::merge`.
    ///
    /// # Errors
    /// `NoSpace` when the entry would pass a memory limit; nothing changed.
    pub fn merge(&mut self, incoming: &View<'_>) -> Result<Merged, NoSpace> {
        let keyspace = self.store.keyspaces.index_of(self.key);
        let writes = self.store.keyspaces.get(keyspace).writes;
        let Some(index) = self.index else {
            if incoming.version <= self.watermark() {
                return Ok(Merged::Stale);
            }
            if incoming.value.is_none() && !self.store.keeps_tombstones.load(Relaxed) {
                self.slot_mut().watermark = incoming.version;
                return Ok(Merged::Applied);
            }
            self.insert(keyspace, incoming)?;
            return Ok(Merged::Applied);
        };
        let current = self.entry(index).view(self.store.node);
        let joined = current.join(*incoming, writes);
        if joined == current {
            return Ok(Merged::Kept);
        }
        self.replace(index, keyspace, incoming)?;
        if incoming.value.is_none() {
            self.collect();
        }
        Ok(Merged::Applied)
    }

    /// Drops an entry that stands for nothing any more, if every peer knows: without peers, at once.
    fn collect(&mut self) -> bool {
        let Some(index) = self.index else { return false };
        let store = self.store;
        let view = self.entry(index).view(store.node);
        let version = view.version;
        if store.keeps_tombstones.load(Relaxed) && version > self.watermark() {
            return false;
        }
        let (digest, tally) = (store.digest_key.of(self.key, &view), Tally::of(&view));
        let table = &mut self.slot_mut().table;
        let before = table.footprint();
        let entry = table.remove(index);
        let tables = table.footprint() as i64 - before as i64;
        let shrinks = Growth::default() - entry.borrow().footprint();
        self.index = None;
        self.count(tally, Tally::default(), shrinks);
        self.toggle(digest);
        let watermark = &mut self.slot_mut().watermark;
        *watermark = version.max(*watermark);
        store.usage.change_shared(tables);
        true
    }

    fn insert(&mut self, keyspace: usize, view: &View<'_>) -> Result<(), NoSpace> {
        let (store, key, tag) = (self.store, self.key, self.place.tag);
        let entry = Entry::new(key, view, store.node);
        let grows = entry.borrow().footprint();
        if view.value.is_some() {
            store.usage.check(keyspace, grows)?;
        }
        let table = &mut self.slot_mut().table;
        let before = table.footprint();
        let index = table.insert(tag, entry);
        let tables = table.footprint() as i64 - before as i64;
        self.index = Some(index);
        store.usage.change_shared(tables);
        self.count(Tally::default(), Tally::of(view), grows);
        self.toggle(store.digest_key.of(key, view));
        Ok(())
    }

    fn replace(&mut self, index: usize, keyspace: usize, view: &View<'_>) -> Result<(), NoSpace> {
        let store = self.store;
        let old = self.entry(index);
        let before = old.view(store.node);
        let digest = store.digest_key.of(self.key, &before) ^ store.digest_key.of(self.key, view);
        let tally = Tally::of(&before);
        let grows = old.footprint_of(view, store.node) - old.footprint();
        if view.value.is_some() {
            store.usage.check(keyspace, grows)?;
        }
        self.slot_mut().table.rewrite(index, view, store.node);
        self.count(tally, Tally::of(view), grows);
        self.toggle(digest);
        Ok(())
    }

    /// Accounts for an entry that came, went or changed, and has grown by so much.
    fn count(&mut self, before: Tally, after: Tally, grown: Growth) {
        if before == after && grown == Growth::default() {
            return;
        }
        let store = self.store;
        // Two's complement: adding a negative number subtracts.
        let (expiring, tombstones) =
            (after.expiring.wrapping_sub(before.expiring), after.tombstones.wrapping_sub(before.tombstones));
        if (expiring, tombstones) != (0, 0) {
            self.branch.passing = self.branch.passing.wrapping_add(expiring).wrapping_add(tombstones);
            store.expiring.fetch_add(expiring, Relaxed);
            store.tombstones.fetch_add(tombstones, Relaxed);
        }
        let keys = after.values.wrapping_sub(before.values) as i64;
        store.usage.change(store.keyspaces.index_of(self.key), keys, grown);
    }

    fn toggle(&mut self, digest: Digest) {
        let place = self.place.slot;
        let group = if self.branch.others.is_empty() { 0 } else { self.store.group_of(self.key) };
        match usize::from(group).checked_sub(1) {
            None => {
                self.slot_mut().digest ^= digest;
                self.branch.digest ^= digest;
            }
            Some(other) => self.branch.others[other][place] ^= digest,
        }
    }

    fn entry(&self, index: usize) -> EntryRef<'_> {
        self.slot().table.at(index)
    }

    fn slot(&self) -> &Slot {
        &self.branch.slots[self.place.slot]
    }

    fn slot_mut(&mut self) -> &mut Slot {
        &mut self.branch.slots[self.place.slot]
    }
}
