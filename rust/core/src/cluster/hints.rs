//! Writes owed to an absent peer: the keys, not the values, for what it is due is what they are by then. What
//! does not fit is left to healing.

use std::collections::BTreeMap;

use crate::version::Version;

/// What a key takes beside its bytes: its box, its place in the map, what the allocator rounds up.
const KEY_OVERHEAD: usize = 72;

/// A write that is owed: its key, and what the first one that the peer missed replaced, if that is known.
pub type Hint = (Box<[u8]>, Option<Version>);

/// Keys owed to one peer, in an order that tests can repeat.
#[derive(Debug)]
pub struct Hints {
    keys: BTreeMap<Box<[u8]>, Option<Version>>,
    bytes: usize,
    limit: usize,
    /// Writes that were not noted since the peer was last told everything.
    lost: u64,
}

impl Hints {
    /// None, and room for `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Hints { keys: BTreeMap::new(), bytes: 0, limit, lost: 0 }
    }

    /// Notes that a peer is owed a key; forgets it if there is no room.
    pub fn keep(&mut self, key: &[u8], base: Option<Version>) {
        let takes = key.len() + KEY_OVERHEAD;
        if self.keys.contains_key(key) {
            return;
        }
        if self.bytes + takes > self.limit {
            self.lost += 1;
            return;
        }
        self.bytes += takes;
        self.keys.insert(key.into(), base);
    }

    /// Takes up to `most` keys.
    pub fn take(&mut self, most: usize) -> Vec<Hint> {
        let hints: Vec<Hint> = std::iter::from_fn(|| self.keys.pop_first()).take(most).collect();
        self.bytes -= hints.iter().map(|(key, _)| key.len() + KEY_OVERHEAD).sum::<usize>();
        hints
    }

    /// What the first write of a key that is owed replaced, if that is known.
    pub fn base(&self, key: &[u8]) -> Option<Version> {
        self.keys.get(key).copied().flatten()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// How many writes found no room.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_kept_once_and_within_the_limit() {
        let mut hints = Hints::new(3 * (KEY_OVERHEAD + 1));
        let base = |stamp| Some(Version { stamp, ..Version::ZERO });
        for (stamp, key) in [b"a", b"b", b"a", b"c", b"d"].into_iter().enumerate() {
            hints.keep(key, base(stamp as u64));
        }
        assert_eq!((hints.len(), hints.lost()), (3, 1));
        let mut all = hints.take(2);
        all.extend(hints.take(5));
        // What the first write replaced counts.
        assert_eq!(all, [(b"a", 0), (b"b", 1), (b"c", 3)].map(|(key, at)| (Box::from(&key[..]), base(at))));
        assert_eq!((hints.len(), hints.bytes), (0, 0));
    }
}
