//! Finding keys, a bounded piece of work at a time. Keys are copied out of the store and compared with the
//! pattern afterwards, so that no lock is held while a client's pattern is at work.

use crate::context::STEP_NS;
use crate::glob::Pattern;
use crate::replica::Replica;
use crate::share::Share;
use crate::slot::SLOTS;
use crate::table::TAG_BITS;

/// About how many nanoseconds it takes to look at a key ...
const KEY_NS: u64 = 60;
/// ... and at a slot, which may be empty.
const SLOT_NS: u64 = 3;
/// The most keys copied under one lock.
const BATCH: usize = 256;

/// Which keys are looked for, and where.
#[derive(Debug)]
pub struct Search {
    /// What they match; `None` for all keys.
    pattern: Option<Pattern>,
    /// What they begin with.
    prefix: Vec<u8>,
    /// Of which of them this node tells; `None` for all that it keeps.
    share: Option<Share>,
    /// Where to go on; 0 at the end, too.
    pub cursor: u64,
}

impl Search {
    /// A search from `cursor` on.
    pub fn new(pattern: Option<&[u8]>, cursor: u64) -> Self {
        let pattern = pattern.filter(|pattern| *pattern != b"*").map(Pattern::new);
        Search { pattern, prefix: Vec::new(), share: None, cursor }
    }

    /// The same, of keys that begin with `prefix`.
    pub fn with_prefix(self, prefix: &[u8]) -> Self {
        Search { prefix: prefix.to_vec(), ..self }
    }

    /// The same, of the keys that this node answers for.
    pub fn within(self, share: Option<Share>) -> Self {
        Search { share, ..self }
    }

    /// About how many nanoseconds it took to make the search.
    pub fn made_ns(&self) -> u64 {
        self.pattern.as_ref().map_or(0, Pattern::made_ns)
    }

    /// Looks at about `count` keys, or as many as a step allows, and hands over those that are found; returns
    /// about how many nanoseconds it took. The search is over when the cursor is 0.
    pub fn step(
        &mut self,
        replica: &Replica,
        now_ms: u64,
        mut count: usize,
        mut found: impl FnMut(&[u8]),
    ) -> u64 {
        let worst_ns = self.pattern.as_ref().map_or(1, |pattern| pattern.match_ns(replica.limits().key_max));
        let batch = (STEP_NS / worst_ns.max(1)).clamp(1, BATCH as u64) as usize;
        let (mut keys, mut ends, mut work_ns) = (Vec::new(), Vec::new(), 0);
        let routes = replica.outbox().map(|outbox| outbox.routes());
        let mine = |key: &[u8]| match (&self.share, routes) {
            (Some(share), Some(routes)) => share.keeper(routes.replicas(key)) == Some(routes.me()),
            _ => true,
        };
        loop {
            let mut seen = 0;
            let next = replica.store().scan(self.cursor, batch.min(count), |key, view| {
                seen += 1;
                if view.live(now_ms).is_some() && key.starts_with(&self.prefix) && mine(key) {
                    keys.extend_from_slice(key);
                    ends.push(keys.len());
                }
            });
            work_ns += walk_ns(self.cursor, next, seen);
            let mut start = 0;
            for end in ends.drain(..) {
                let key = &keys[start..end];
                work_ns += self.pattern.as_ref().map_or(0, |pattern| pattern.match_ns(key.len()));
                if self.pattern.as_ref().is_none_or(|pattern| pattern.matches(key)) {
                    found(key);
                }
                start = end;
            }
            keys.clear();
            self.cursor = next;
            count = count.saturating_sub(seen);
            if next == 0 || count == 0 || work_ns >= STEP_NS {
                return work_ns;
            }
        }
    }
}

/// About how many nanoseconds a scan of the store took that began at one cursor, ended at the other, 0 being
/// the end, and saw so many keys.
pub fn walk_ns(from: u64, to: u64, seen: usize) -> u64 {
    let slot = |cursor: u64| cursor >> TAG_BITS;
    let last = if to == 0 { SLOTS as u64 } else { slot(to) };
    last.saturating_sub(slot(from)) * SLOT_NS + seen as u64 * KEY_NS
}
