//! A set of numbers as ranges: which packets came, which bytes of a message are acknowledged or lost.

use std::ops::Range;

use smallvec::SmallVec;

/// Ranges in ascending order that neither touch nor overlap. Fast where few gaps are.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct RangeSet(Vec<Range<u64>>);

impl RangeSet {
    /// Number of ranges.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Range<u64>> + ExactSizeIterator {
        self.0.iter().cloned()
    }

    pub fn first(&self) -> Option<Range<u64>> {
        self.0.first().cloned()
    }

    pub fn contains(&self, number: u64) -> bool {
        let at = self.0.partition_point(|range| range.end <= number);
        self.0.get(at).is_some_and(|range| range.start <= number)
    }

    /// The numbers of `wanted` that are not in the set.
    pub fn missing(&self, wanted: &Range<u64>) -> SmallVec<[Range<u64>; 2]> {
        let mut missing = SmallVec::new();
        let mut start = wanted.start;
        let from = self.0.partition_point(|range| range.end <= wanted.start);
        for known in self.0[from..].iter().take_while(|range| range.start < wanted.end) {
            if start < known.start {
                missing.push(start..known.start);
            }
            start = known.end;
        }
        if start < wanted.end {
            missing.push(start..wanted.end);
        }
        missing
    }

    /// Adds the numbers; returns how many of them were new.
    pub fn insert(&mut self, new: Range<u64>) -> u64 {
        if new.is_empty() {
            return 0;
        }
        if let Some(last) = self.0.last_mut().filter(|last| last.end == new.start) {
            last.end = new.end;
            return new.end - new.start;
        }
        let from = self.0.partition_point(|range| range.end < new.start);
        let to = self.0.partition_point(|range| range.start <= new.end);
        let touched = &self.0[from..to];
        let known: u64 = touched
            .iter()
            .map(|range| range.end.min(new.end).saturating_sub(range.start.max(new.start)))
            .sum();
        let start = touched.first().map_or(new.start, |range| range.start.min(new.start));
        let end = touched.last().map_or(new.end, |range| range.end.max(new.end));
        self.0.splice(from..to, std::iter::once(start..end));
        new.end - new.start - known
    }

    /// Takes the numbers out.
    pub fn remove(&mut self, gone: &Range<u64>) {
        let from = self.0.partition_point(|range| range.end <= gone.start);
        let to = self.0.partition_point(|range| range.start < gone.end);
        if from >= to || gone.is_empty() {
            return;
        }
        let head = self.0[from].start..gone.start;
        let tail = gone.end..self.0[to - 1].end;
        self.0.splice(from..to, [head, tail].into_iter().filter(|range| !range.is_empty()));
    }

    /// Takes out all numbers below `floor`.
    pub fn remove_below(&mut self, floor: u64) {
        self.remove(&(0..floor));
    }

    /// Takes out the first range, or its first `limit` numbers.
    pub fn pop_first(&mut self, limit: u64) -> Option<Range<u64>> {
        let first = self.0.first_mut()?;
        let taken = first.start..first.end.min(first.start.saturating_add(limit));
        first.start = taken.end;
        if first.is_empty() {
            self.0.remove(0);
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// The law: it is a set of numbers.
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((0_u8..3, 0_u64..80, 0_u64..12), 1..60)) {
            let (mut ranges, mut model) = (RangeSet::default(), BTreeSet::new());
            for (kind, start, len) in steps {
                let range = start..start + len;
                let missing: Vec<u64> = ranges.missing(&range).into_iter().flatten().collect();
                let absent: Vec<u64> = range.clone().filter(|n| !model.contains(n)).collect();
                prop_assert_eq!(missing, absent);
                match kind {
                    0 | 1 => {
                        let new = range.clone().filter(|n| model.insert(*n)).count() as u64;
                        prop_assert_eq!(ranges.insert(range.clone()), new);
                        prop_assert!(ranges.missing(&range).is_empty());
                    }
                    _ => {
                        ranges.remove(&range);
                        model.retain(|n| !range.contains(n));
                    }
                }
                let numbers: Vec<u64> = ranges.iter().flatten().collect();
                prop_assert_eq!(&numbers, &model.iter().copied().collect::<Vec<_>>());
                prop_assert!(ranges.0.windows(2).all(|pair| pair[0].end < pair[1].start));
                prop_assert!((0..100).all(|n| ranges.contains(n) == model.contains(&n)));
            }
        }
    }

    #[test]
    fn the_first_numbers_are_taken_first() {
        let mut ranges = RangeSet::default();
        ranges.insert(10..20);
        ranges.insert(0..3);
        assert_eq!(ranges.pop_first(2), Some(0..2));
        assert_eq!(ranges.pop_first(2), Some(2..3));
        assert_eq!(ranges.pop_first(100), Some(10..20));
        assert_eq!(ranges.pop_first(1), None);
    }
}
