//! A set of slots.

use crate::slot::SLOTS;

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

    /// How many there are.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }
}

impl Default for SlotSet {
    fn default() -> Self {
        SlotSet::new()
    }
}
