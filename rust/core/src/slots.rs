//! Sets of slots.

use crate::slot::SLOTS;

/// What two nodes both keep: the keys of one placement in some of the slots.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scope {
    /// As `Keyspace::group`.
    pub group: u8,
    /// The slots.
    pub slots: SlotSet,
}

/// A set of slots: one bit each.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SlotSet {
    words: Vec<u64>,
}

impl SlotSet {
    /// The empty set.
    pub fn new() -> Self {
        SlotSet { words: vec![0; SLOTS / 64] }
    }

    /// Adds a slot.
    pub fn insert(&mut self, slot: u16) {
        self.words[usize::from(slot) % SLOTS / 64] |= 1 << (slot % 64);
    }

    /// Whether a slot is in it.
    pub fn contains(&self, slot: u16) -> bool {
        self.words[usize::from(slot) % SLOTS / 64] & 1 << (slot % 64) != 0
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u16> + use<'_> {
        let all = self.words.iter().enumerate();
        all.flat_map(|(index, word)| bits(*word).map(move |bit| (index * 64 + bit) as u16))
    }

    /// A bit for each slot of a branch.
    pub fn of_branch(&self, branch: usize) -> [u64; 2] {
        let at = branch % (SLOTS / 128) * 2;
        [self.words[at], self.words[at + 1]]
    }

    /// The first one from `slot` on.
    pub fn next(&self, slot: usize) -> Option<u16> {
        let mut index = slot / 64;
        let mut word = *self.words.get(index)? & u64::MAX << (slot % 64);
        while word == 0 {
            index += 1;
            word = *self.words.get(index)?;
        }
        Some((index * 64) as u16 + word.trailing_zeros() as u16)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }
}

/// The places of the bits that are set, ascending.
pub fn bits(word: u64) -> impl Iterator<Item = usize> {
    let clear_lowest = |word: &u64| Some(word & (word - 1)).filter(|word| *word != 0);
    let words = std::iter::successors(Some(word).filter(|word| *word != 0), clear_lowest);
    words.map(|word| word.trailing_zeros() as usize)
}

impl FromIterator<u16> for SlotSet {
    fn from_iter<I: IntoIterator<Item = u16>>(slots: I) -> Self {
        let mut set = SlotSet::new();
        slots.into_iter().for_each(|slot| set.insert(slot));
        set
    }
}

impl Default for SlotSet {
    fn default() -> Self {
        SlotSet::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_the_set_it_was_made_of(slots in proptest::collection::btree_set(0..SLOTS as u16, 0..200)) {
            let set: SlotSet = slots.iter().copied().collect();
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), slots.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.len(), slots.len());
            for from in [0, 63, 64, 5000, SLOTS - 1, SLOTS] {
                let next = slots.range(from.min(SLOTS - 1) as u16..).next().copied();
                prop_assert_eq!(set.next(from), next.filter(|_| from < SLOTS));
            }
        }
    }
}
