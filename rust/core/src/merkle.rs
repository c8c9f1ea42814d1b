//! The merkle tree: one digest a slot, 128 branches of 128 slots, one root. Not how replicas compare theirs.
//!
//! A digest is the XOR of a keyed hash of every (key, version, deleted?) below it, so an entry is put in and
//! taken out in constant time and in any order. The key is the cluster's secret: who only writes cannot make
//! two sets with the same digest.
//!
//! Source: Merkle, "A digital signature based on a conventional encryption function" (1987), for the tree;
//! Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012), for the keyed hash.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::entry::View;
use crate::slot::{SLOTS, key_slot};
use crate::version::Version;

/// Slots below a branch, and branches below the root.
pub const FANOUT: usize = 128;

/// The digest of a set of entries; 0 is the empty set.
pub type Digest = u128;

/// The secret under which entries are hashed; the same on all nodes of a cluster.
#[derive(Clone)]
pub struct DigestKey(SipHasher13);

impl DigestKey {
    /// The key made of 16 secret bytes.
    pub fn new(secret: &[u8; 16]) -> Self {
        DigestKey(SipHasher13::new_with_key(secret))
    }

    /// The digest of one entry.
    pub fn digest(&self, key: &[u8], version: Version, deleted: bool) -> Digest {
        // What follows the key has a fixed length, so no two entries hash the same bytes.
        let mut hasher = self.0;
        hasher.write(key);
        hasher.write(&version.to_bytes());
        hasher.write_u8(u8::from(deleted));
        hasher.finish128().as_u128()
    }

    /// Whether two keys are the same.
    pub fn is(&self, other: &Self) -> bool {
        let digest = |key: &Self| key.digest(b"", Version::ZERO, false);
        digest(self) == digest(other)
    }

    pub(crate) fn of(&self, key: &[u8], view: &View<'_>) -> Digest {
        self.digest(key, view.version, view.value.is_none())
    }
}

impl std::fmt::Debug for DigestKey {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DigestKey(..)")
    }
}

/// The digests of a whole store, or of what a test put in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MerkleTree {
    slots: Vec<Digest>,
    branches: [Digest; FANOUT],
}

impl MerkleTree {
    /// The tree of an empty store.
    pub fn new() -> Self {
        MerkleTree { slots: vec![0; SLOTS], branches: [0; FANOUT] }
    }

    /// Adds an entry that is not in the tree, or takes out one that is: the same operation.
    pub fn toggle(&mut self, secret: &DigestKey, key: &[u8], version: Version, deleted: bool) {
        self.add(usize::from(key_slot(key)), secret.digest(key, version, deleted));
    }

    /// Adds `digest` to slot `slot` and all above it.
    pub fn add(&mut self, slot: usize, digest: Digest) {
        self.slots[slot] ^= digest;
        self.branches[slot / FANOUT] ^= digest;
    }

    /// The digest of everything.
    pub fn root(&self) -> Digest {
        self.branches.iter().fold(0, |root, branch| root ^ branch)
    }

    /// The digest of branch `index`, 0 to 127, which is of slots `index * 128` to `index * 128 + 127`.
    pub fn branch(&self, index: usize) -> Option<Digest> {
        self.branches.get(index).copied()
    }

    /// The digest of slot `index`, 0 to 16383.
    pub fn slot(&self, index: usize) -> Option<Digest> {
        self.slots.get(index).copied()
    }

    /// The slots in which the trees differ, ascending. Looks only below branches that differ.
    pub fn diff(&self, other: &Self) -> Vec<u16> {
        let branches = (0..FANOUT).filter(|&branch| self.branches[branch] != other.branches[branch]);
        let slots = branches.flat_map(|branch| branch * FANOUT..(branch + 1) * FANOUT);
        slots.filter(|&slot| self.slots[slot] != other.slots[slot]).map(|slot| slot as u16).collect()
    }
}

impl Default for MerkleTree {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::NodeId;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    type Item = (Vec<u8>, u64, bool);

    fn items() -> impl Strategy<Value = BTreeSet<Item>> {
        proptest::collection::btree_set(
            (proptest::collection::vec(any::<u8>(), 0..12), 1u64..4, any::<bool>()),
            0..40,
        )
    }

    fn tree<'a>(items: impl IntoIterator<Item = &'a Item>) -> MerkleTree {
        let (mut tree, secret) = (MerkleTree::new(), DigestKey::new(b"sixteen secret b"));
        for (key, stamp, deleted) in items {
            tree.toggle(&secret, key, Version { stamp: *stamp, node: NodeId(1) }, *deleted);
        }
        tree
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_diff_finds_the_slots(a in items(), b in items()) {
            prop_assert_eq!(tree(&a), tree(a.iter().rev()));
            prop_assert_eq!(tree(&a).root() == tree(&b).root(), a == b);
            let slots: BTreeSet<u16> = a.symmetric_difference(&b).map(|item| key_slot(&item.0)).collect();
            prop_assert_eq!(tree(&a).diff(&tree(&b)), slots.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_secret_and_every_part_of_an_entry_count() {
        let digest = |secret: &[u8; 16], key: &[u8], stamp, node, deleted| {
            DigestKey::new(secret).digest(key, Version { stamp, node: NodeId(node) }, deleted)
        };
        let all = [
            digest(&[0; 16], b"k", 1, 1, false),
            digest(&[1; 16], b"k", 1, 1, false),
            digest(&[0; 16], b"l", 1, 1, false),
            digest(&[0; 16], b"k", 2, 1, false),
            digest(&[0; 16], b"k", 1, 2, false),
            digest(&[0; 16], b"k", 1, 1, true),
        ];
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }
}
