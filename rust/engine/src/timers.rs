//! When the reactor must look at a connection again. Not a clock: milliseconds are given.

use std::collections::BTreeSet;

/// Deadlines by connection, the earliest first.
#[derive(Debug, Default)]
pub struct Timers {
    due: BTreeSet<(u64, u64)>,
}

impl Timers {
    /// Notes that `token` is due at `at_ms`.
    pub fn add(&mut self, at_ms: u64, token: u64) {
        self.due.insert((at_ms, token));
    }

    /// Forgets that `token` is due at `at_ms`.
    pub fn remove(&mut self, at_ms: u64, token: u64) {
        self.due.remove(&(at_ms, token));
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<u64> {
        self.due.first().map(|(at_ms, _)| *at_ms)
    }

    /// Takes one that is due.
    pub fn pop_due(&mut self, now_ms: u64) -> Option<(u64, u64)> {
        self.next().filter(|at_ms| *at_ms <= now_ms)?;
        self.due.pop_first()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_what_is_removed_never() {
        let mut timers = Timers::default();
        [(30, 1), (10, 2), (20, 3), (10, 4)].into_iter().for_each(|(at_ms, token)| timers.add(at_ms, token));
        timers.remove(10, 2);

        assert_eq!(timers.next(), Some(10));
        assert_eq!(timers.pop_due(9), None);
        assert_eq!(
            (timers.pop_due(20), timers.pop_due(20), timers.pop_due(20)),
            (Some((10, 4)), Some((20, 3)), None)
        );
    }
}
