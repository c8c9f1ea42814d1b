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
        self.words.iter().enumerate().flat_map(|(index, word)| {
            (0..64u16).filter(move |bit| word & 1 << bit != 0).map(move |bit| index as u16 * 64 + bit)
        })
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
