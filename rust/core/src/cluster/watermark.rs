//! When a delete may be forgotten: the rule by which deleted keys stay deleted, without a grace period and
//! without trusting clocks. Not the forgetting, which is the store's.
//!
//! A tombstone may go once every replica has it and nothing older can appear any more. So this node, for the
//! slots of which it is the primary:
//!
//! 1. takes the least stamp that all replicas have promised never to use again, `V`;
//! 2. waits until it has been found equal to each of them: it then holds all there is at or below `V`;
//! 3. waits until it has been found equal to each of them once more: now everybody holds it;
//! 4. raises its watermark to `V`, and tells them.
//!
//! Whoever comes with something at or below a slot's watermark, for a key that has no entry, comes too late,
//! and is told so. A member that is away holds all this up, which `held_by` shows.

use std::collections::BTreeSet;

use crate::routes::MemberIndex;

/// What is known about the other replicas.
#[derive(Debug)]
pub struct Watermarks {
    /// The stamp at or below which each stamps nothing any more.
    promises: Vec<Option<u64>>,
    others: Vec<MemberIndex>,
    pass: Option<Pass>,
    /// Up to where deletes are forgotten.
    reached: u64,
}

/// One of the two times that all replicas are to be found equal.
#[derive(Debug)]
struct Pass {
    stamp: u64,
    since_ms: u64,
    second: bool,
    equal: BTreeSet<MemberIndex>,
}

impl Watermarks {
    /// Nothing is known about these, of so many members.
    pub fn new(members: usize, others: Vec<MemberIndex>) -> Self {
        Watermarks { promises: vec![None; members], others, pass: None, reached: 0 }
    }

    /// A replica stamps nothing at or below `stamp` any more.
    pub fn promised(&mut self, peer: MemberIndex, stamp: u64) {
        let promise = &mut self.promises[usize::from(peer)];
        *promise = (*promise).max(Some(stamp));
    }

    /// A replica may have lost what it knew, and with it what it promised.
    pub fn forget(&mut self, peer: MemberIndex) {
        self.promises[usize::from(peer)] = None;
        self.pass = None;
    }

    /// Begins, unless it is under way or there is nothing to be gained. `own` is this node's last stamp.
    pub fn begin(&mut self, now_ms: u64, own: u64) {
        if self.pass.is_some() || self.others.is_empty() {
            return;
        }
        let promises = self.others.iter().map(|peer| self.promises[usize::from(*peer)]);
        let least = promises.min().flatten().map_or(0, |least| least.min(own));
        if least > self.reached {
            self.pass = Some(Pass { stamp: least, since_ms: now_ms, second: false, equal: BTreeSet::new() });
        }
    }

    /// This node was found equal to a replica by a comparison that began at `began_ms`. Returns the stamp of
    /// the new watermark, if there is one.
    pub fn equal(&mut self, peer: MemberIndex, began_ms: u64, now_ms: u64) -> Option<u64> {
        let pass = self.pass.as_mut().filter(|pass| began_ms > pass.since_ms)?;
        pass.equal.insert(peer);
        if !self.others.iter().all(|other| pass.equal.contains(other)) {
            return None;
        }
        if !pass.second {
            (pass.second, pass.since_ms) = (true, now_ms);
            pass.equal.clear();
            return None;
        }
        self.reached = pass.stamp;
        self.pass = None;
        Some(self.reached)
    }

    /// Who is waited for.
    pub fn held_by(&self) -> Vec<MemberIndex> {
        let waits = |peer: &MemberIndex| match &self.pass {
            Some(pass) => !pass.equal.contains(peer),
            None => self.promises[usize::from(*peer)].is_none(),
        };
        self.others.iter().copied().filter(waits).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_must_be_equal_twice_after_all_have_promised() {
        let mut marks = Watermarks::new(3, vec![1, 2]);
        marks.promised(1, 50);
        marks.begin(10, 100);
        assert_eq!((marks.equal(1, 11, 11), marks.held_by()), (None, vec![2]));
        marks.promised(2, 70);
        marks.begin(20, 100);
        // A comparison that began before says nothing.
        assert_eq!((marks.equal(1, 20, 21), marks.equal(2, 15, 21)), (None, None));
        assert_eq!(marks.held_by(), [1, 2]);
        assert_eq!((marks.equal(1, 21, 22), marks.equal(2, 22, 30)), (None, None));
        // The second time counts from the end of the first.
        assert_eq!((marks.equal(2, 30, 31), marks.equal(2, 31, 32), marks.held_by()), (None, None, vec![1]));
        assert_eq!((marks.equal(1, 31, 33), marks.reached), (Some(50), 50));
        // Nothing is gained by promises that are no higher.
        marks.begin(40, 100);
        assert!(marks.pass.is_none());
    }

    #[test]
    fn who_starts_anew_is_asked_anew() {
        let mut marks = Watermarks::new(2, vec![1]);
        marks.promised(1, 50);
        marks.begin(0, 60);
        marks.forget(1);
        assert_eq!((marks.equal(1, 1, 1), marks.equal(1, 2, 2)), (None, None));
        marks.begin(3, 60);
        assert_eq!(marks.held_by(), [1]);
        marks.promised(1, 55);
        marks.begin(3, 60);
        assert_eq!((marks.equal(1, 4, 4), marks.equal(1, 5, 5)), (None, Some(55)));
    }
}
