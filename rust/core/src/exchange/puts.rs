//! Entries that the peer lacks, on their way: looked for a step at a time, and put as fast as they are taken.

use std::collections::{HashSet, VecDeque};

use super::{STEP, item};
use crate::entry::View;
use crate::slots::Scope;
use crate::store::Store;

/// Entries that are to be put: those with these items, or all of them.
#[derive(Debug)]
pub struct Puts {
    scope: Scope,
    /// Where to look for more; `None` if there are none.
    cursor: Option<u64>,
    items: Option<HashSet<u64>>,
    /// Keys for which the way was full.
    found: VecDeque<Box<[u8]>>,
    ends_round: bool,
    put: u64,
}

impl Puts {
    /// Those of `scope` with these items, or all; whether the round is over then.
    pub fn new(scope: Scope, items: Option<HashSet<u64>>, ends_round: bool) -> Self {
        let nothing = items.as_ref().is_some_and(HashSet::is_empty);
        let cursor = (!nothing).then_some(0);
        Puts { scope, cursor, items, found: VecDeque::new(), ends_round, put: 0 }
    }

    /// Puts some that are not younger than `settle_ms`; returns whether the way is full.
    pub fn put_some(
        &mut self,
        now_unix_ms: u64,
        settle_ms: u64,
        store: &Store,
        put: &mut dyn FnMut(&[u8], &View<'_>) -> bool,
    ) -> bool {
        let (items, found, done) = (&self.items, &mut self.found, &mut self.put);
        if let (true, Some(at)) = (found.is_empty(), self.cursor) {
            self.cursor = store.scan_scope(&self.scope, at, STEP, |key, view| {
                let written = view.version.unix_ms();
                let settles = written <= now_unix_ms && written + settle_ms > now_unix_ms;
                if settles || items.as_ref().is_some_and(|items| !items.contains(&item(store, key, view))) {
                    return;
                }
                if found.is_empty() && put(key, view) {
                    *done += 1;
                } else {
                    found.push_back(key.into());
                }
            });
        }
        while let Some(key) = found.front() {
            // What it is by now: the peer lacks that as well.
            if !store.read(key, |view| view.is_none_or(|view| put(key, &view))) {
                return true;
            }
            found.pop_front();
            *done += 1;
        }
        false
    }

    /// Whether all have been put.
    pub fn is_over(&self) -> bool {
        self.cursor.is_none() && self.found.is_empty()
    }

    /// Whether that ends the round.
    pub fn ends_round(&self) -> bool {
        self.ends_round
    }

    /// How many were put that nobody had counted before.
    pub fn uncounted(&self) -> u64 {
        if self.items.is_none() { self.put } else { 0 }
    }
}
