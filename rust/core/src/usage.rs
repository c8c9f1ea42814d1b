//! What the store holds and may hold: keys and bytes, in all and by keyspace. Bytes are what the allocator
//! gives, tables included, so `max_memory` means resident memory.

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
    /// Entries, tombstones included.
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

    pub(crate) fn check(&self, keyspace: usize, wanted: u64) -> Result<(), NoSpace> {
        self.total.check(wanted)?;
        self.keyspaces[keyspace].check(wanted)
    }

    pub(crate) fn change(&self, keyspace: usize, keys: i64, bytes: i64) {
        self.total.change(keys, 0);
        self.change_shared(bytes);
        self.keyspaces[keyspace].change(keys, bytes);
    }

    /// Accounts for memory that belongs to no keyspace: tables, values on their way in.
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

    /// Sets `bytes` aside for a value on its way in, until the reservation is dropped.
    ///
    /// # Errors
    /// `NoSpace` when the node has no room for it.
    pub fn reserve(self: &std::sync::Arc<Self>, bytes: u64) -> Result<Reservation, NoSpace> {
        self.total.check(bytes)?;
        self.change_shared(bytes as i64);
        Ok(Reservation { usage: std::sync::Arc::clone(self), bytes })
    }
}

/// Memory set aside for a value that is still arriving, so that many large ones together stay within
/// `max_memory`.
#[derive(Debug)]
pub struct Reservation {
    usage: std::sync::Arc<Usage>,
    bytes: u64,
}

impl Reservation {
    /// Sets aside `bytes` more.
    ///
    /// # Errors
    /// `NoSpace` when the node has no room for them; what was reserved stays.
    pub fn extend(&mut self, bytes: u64) -> Result<(), NoSpace> {
        self.usage.total.check(bytes)?;
        self.usage.change_shared(bytes as i64);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.usage.change_shared(-(self.bytes as i64));
    }
}
