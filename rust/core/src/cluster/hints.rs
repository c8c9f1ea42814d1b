//! Writes owed to an absent peer: the keys, not the values, for what it is due is what they are by then. What
//! does not fit is left to healing.

use std::collections::HashSet;

/// What a key takes beside its bytes: its box, its bucket, what the allocator rounds up.
const KEY_OVERHEAD: usize = 48;

/// Keys owed to one peer.
#[derive(Debug)]
pub struct Hints {
    keys: HashSet<Box<[u8]>>,
    bytes: usize,
    limit: usize,
    /// Writes that were not noted since the peer was last told everything.
    lost: u64,
}

impl Hints {
    /// None, and room for `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Hints { keys: HashSet::new(), bytes: 0, limit, lost: 0 }
    }

    /// Notes that a peer is owed a key; forgets it if there is no room.
    pub fn keep(&mut self, key: &[u8]) {
        let takes = key.len() + KEY_OVERHEAD;
        if self.keys.contains(key) {
            return;
        }
        if self.bytes + takes > self.limit {
            self.lost += 1;
            return;
        }
        self.bytes += takes;
        self.keys.insert(key.into());
    }

    /// Takes up to `most` keys.
    pub fn take(&mut self, most: usize) -> Vec<Box<[u8]>> {
        let keys: Vec<Box<[u8]>> = self.keys.iter().take(most).cloned().collect();
        for key in &keys {
            self.keys.remove(key);
            self.bytes -= key.len() + KEY_OVERHEAD;
        }
        if self.keys.is_empty() {
            self.keys.shrink_to_fit();
        }
        keys
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
        for key in [b"a", b"b", b"a", b"c", b"d"] {
            hints.keep(key);
        }
        assert_eq!((hints.len(), hints.lost()), (3, 1));
        let mut keys = hints.take(2);
        keys.extend(hints.take(5));
        keys.sort();
        assert_eq!(keys, [Box::from(*b"a"), Box::from(*b"b"), Box::from(*b"c")]);
        assert_eq!((hints.len(), hints.bytes), (0, 0));
    }
}
