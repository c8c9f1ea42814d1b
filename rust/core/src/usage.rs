//! What the store holds and may hold: keys and bytes, in all and by keyspace. Bytes are what the allocator
//! gives, tables included, so `max_memory` means resident memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::keyspace::Keyspaces;

/// A write would have taken more memory than its node or its keyspace may. Nothing changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{used} of {limit} bytes are used and the write needs {wanted} more: delete something or raise max_memory"
)]
pub struct NoSpace {
    /// Bytes the write needs beyond what it replaces.
    pub wanted: u64,
    /// Bytes in use.
    pub used: u64,
    /// The limit that would be passed.
    pub limit: u64,
}

/// Keys and bytes under one limit.
#[derive(Debug, Default)]
pub struct Account {
    keys: AtomicU64,
    bytes: AtomicU64,
    limit: u64,
}

impl Account {
    /// Keys with a value.
    pub fn keys(&self) -> u64 {
        self.keys.load(Relaxed)
    }

    /// Bytes in use.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// The most bytes; 0 is no limit.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    fn check(&self, wanted: u64) -> Result<(), NoSpace> {
        let (used, limit) = (self.bytes(), self.limit);
        if limit != 0 && used.saturating_add(wanted) > limit {
            return Err(NoSpace { wanted, used, limit });
        }
        Ok(())
    }

    fn change(&self, keys: i64, bytes: i64) {
        if keys != 0 {
            self.keys.fetch_add(keys as u64, Relaxed); // two's complement: adding a negative subtracts
        }
        if bytes != 0 {
            self.bytes.fetch_add(bytes as u64, Relaxed);
        }
    }
}

/// The accounts of a store.
#[derive(Debug)]
pub struct Usage {
    total: Account,
    /// The most bytes in use since somebody asked.
    peak: AtomicU64,
    keyspaces: Vec<Account>,
}

impl Default for Usage {
    /// Accounts without limits, for what belongs to no store.
    fn default() -> Self {
        Usage::new(0, &Keyspaces::default())
    }
}

impl Usage {
    pub(crate) fn new(memory_max: u64, keyspaces: &Keyspaces) -> Self {
        let account = |limit| Account { limit, ..Account::default() };
        Usage {
            total: account(memory_max),
            peak: AtomicU64::new(0),
            keyspaces: keyspaces.iter().map(|keyspace| account(keyspace.memory_max)).collect(),
        }
    }

    /// The whole node.
    pub fn total(&self) -> &Account {
        &self.total
    }

    /// By keyspace, in the order of `Keyspaces::iter`.
    pub fn keyspaces(&self) -> &[Account] {
        &self.keyspaces
    }

    /// Whether there is room for entries to grow by so much.
    ///
    /// # Errors
    /// `NoSpace` when there is not.
    pub(crate) fn check(&self, keyspace: usize, grows: Growth) -> Result<(), NoSpace> {
        if grows.own > 0 {
            self.total.check(grows.own as u64)?;
        }
        match grows.own + grows.blob {
            wanted @ 1.. => self.keyspaces[keyspace].check(wanted as u64),
            _ => Ok(()),
        }
    }

    /// Accounts for keys, and for entries that have grown by so much.
    pub(crate) fn change(&self, keyspace: usize, keys: i64, grown: Growth) {
        self.total.change(keys, 0);
        self.change_shared(grown.own);
        self.keyspaces[keyspace].change(keys, grown.own + grown.blob);
    }

    /// Accounts for memory that belongs to no keyspace: tables, chunks of values.
    pub(crate) fn change_shared(&self, bytes: i64) {
        self.total.change(0, bytes);
        if bytes > 0 {
            self.peak.fetch_max(self.total.bytes(), Relaxed);
        }
    }

    /// The most bytes that were in use since the last call.
    pub fn take_peak(&self) -> u64 {
        self.peak.swap(self.total.bytes(), Relaxed)
    }

    /// Whether a value of `bytes` would have room now: a client that announces a larger one is told at once.
    ///
    /// # Errors
    /// `NoSpace` when it would not.
    pub fn check_room(&self, bytes: u64) -> Result<(), NoSpace> {
        self.total.check(bytes)
    }

    /// Sets `bytes` aside until the reservation is dropped.
    ///
    /// # Errors
    /// `NoSpace` when the node has no room for them.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation, NoSpace> {
        self.total.check(bytes)?;
        self.change_shared(bytes as i64);
        Ok(Reservation { usage: Arc::clone(self), bytes })
    }
}

/// By how many bytes entries grow, or shrink.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Growth {
    /// Of the entries themselves.
    pub own: i64,
    /// Of the large values they refer to, whose chunks are in the node's account already.
    pub blob: i64,
}

impl std::ops::Sub for Growth {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Growth { own: self.own - other.own, blob: self.blob - other.blob }
    }
}

/// Memory set aside: it is in the node's account until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    usage: Arc<Usage>,
    bytes: u64,
}

impl Reservation {
    /// Gives back what is beyond `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.usage.change_shared(-(surplus as i64));
        self.bytes -= surplus;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.usage.change_shared(-(self.bytes as i64));
    }
}

/// What the allocator takes for `size` bytes: sixteenths to 128 bytes, then four sizes a doubling.
pub fn footprint(size: usize) -> usize {
    let step = if size <= 128 { 16 } else { size.next_power_of_two() / 8 };
    size.next_multiple_of(step)
}
