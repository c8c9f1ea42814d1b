//! Counts of what a coordinator did. Not the figures of a peer, which the cluster has.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a replica has counted; each reactor has its own, so a count costs no shared write.
#[derive(Debug, Default)]
pub struct Counters {
    /// Reads that found a value.
    pub hits: Counter,
    /// Reads that found none.
    pub misses: Counter,
    /// Values written.
    pub writes: Counter,
    /// Keys deleted.
    pub deletes: Counter,
    /// Commands run, cold ones too.
    pub commands: Counter,
    /// Commands refused.
    pub refusals: Counter,
}

impl Counters {
    /// Counts that several threads may bump.
    pub fn for_threads() -> Self {
        let counter = || Counter { shared: true, ..Counter::default() };
        let (hits, misses, writes) = (counter(), counter(), counter());
        Counters { hits, misses, writes, deletes: counter(), commands: counter(), refusals: counter() }
    }
}

/// A count, with any number of readers.
#[derive(Debug, Default)]
pub struct Counter {
    count: AtomicU64,
    /// Several threads bump it, which costs a few nanoseconds more.
    shared: bool,
}

impl Counter {
    /// One more.
    pub fn bump(&self) {
        if self.shared {
            self.count.fetch_add(1, Relaxed);
        } else {
            self.count.store(self.get().wrapping_add(1), Relaxed);
        }
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.count.load(Relaxed)
    }
}
