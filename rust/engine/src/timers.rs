//! When the reactor must look at a connection again. Not a clock: milliseconds are given.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Deadlines by connection. A deadline that no longer holds is simply found to be so when it comes.
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(u64, u64)>>,
}

impl Timers {
    /// Notes that `token` is due at `at_ms`.
    pub fn add(&mut self, at_ms: u64, token: u64) {
        self.heap.push(Reverse((at_ms, token)));
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at_ms, _))| *at_ms)
    }

    /// Takes one that is due.
    pub fn pop_due(&mut self, now_ms: u64) -> Option<(u64, u64)> {
        let due = self.next().is_some_and(|at_ms| at_ms <= now_ms);
        if due { self.heap.pop().map(|Reverse(timer)| timer) } else { None }
    }
}
