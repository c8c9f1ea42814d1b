//! Values that gave way to others whose writers did not know them: kept for a while, so that whoever wants to
//! can look at both. Not the rule of who gives way: that is `View::join`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::replica::Body;
use crate::version::Version;

/// About what a sibling takes in memory beside its key and its value.
const SIBLING_BYTES: usize = 200;

/// A value that lost.
#[derive(Clone, Debug)]
pub struct Sibling {
    /// Its version.
    pub version: Version,
    /// As `View::expires_ms`.
    pub expires_ms: u64,
    /// The value.
    pub value: Body<'static>,
}

/// How many are kept. `turbopump/config` owns names, defaults and reasons.
#[derive(Clone, Copy, Debug)]
pub struct SiblingLimits {
    /// Of one key.
    pub count_max: usize,
    /// Bytes of all of them.
    pub bytes_max: usize,
    /// For so many milliseconds.
    pub age_ms_max: u64,
}

impl Default for SiblingLimits {
    /// As `turbopump/config` has them; `tests/test_config.py` compares.
    fn default() -> Self {
        SiblingLimits { count_max: 8, bytes_max: 16 << 20, age_ms_max: 86_400_000 }
    }
}

/// The siblings of all keys of a node. What is too much goes, the oldest first.
#[derive(Debug, Default)]
pub struct Siblings {
    limits: SiblingLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    bytes: usize,
    /// In the order in which they came.
    all: BTreeMap<u64, Kept>,
    by_key: HashMap<Arc<[u8]>, Vec<u64>>,
}

#[derive(Debug)]
struct Kept {
    key: Arc<[u8]>,
    since_ms: u64,
    sibling: Sibling,
}

impl Kept {
    fn bytes(&self) -> usize {
        SIBLING_BYTES + self.key.len() + self.sibling.value.len()
    }
}

impl State {
    fn forget(&mut self, number: u64) {
        let Some(kept) = self.all.remove(&number) else { return };
        self.bytes -= kept.bytes();
        if let Some(numbers) = self.by_key.get_mut(&kept.key) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.by_key.remove(&kept.key);
            }
        }
    }

    fn forget_old(&mut self, now_ms: u64, limits: &SiblingLimits) {
        while let Some((number, kept)) = self.all.first_key_value() {
            if self.bytes <= limits.bytes_max && now_ms.saturating_sub(kept.since_ms) < limits.age_ms_max {
                break;
            }
            let number = *number;
            self.forget(number);
        }
    }

    fn of<'s>(&'s self, key: &[u8], now_ms: u64) -> impl Iterator<Item = &'s Sibling> + use<'s> {
        let numbers = self.by_key.get(key).map_or(&[][..], Vec::as_slice);
        let siblings = numbers.iter().filter_map(|number| self.all.get(number)).map(|kept| &kept.sibling);
        siblings.filter(move |sibling| sibling.expires_ms == 0 || sibling.expires_ms > now_ms)
    }
}

impl Siblings {
    /// No siblings yet.
    pub fn new(limits: SiblingLimits) -> Self {
        Siblings { limits, state: Mutex::default() }
    }

    /// Keeps a value of `key` that lost, unless it is kept already.
    pub fn keep(&self, key: &[u8], sibling: Sibling, now_ms: u64) {
        let mut state = self.state.lock();
        if state.of(key, 0).any(|other| other.version == sibling.version) {
            return;
        }
        let key = state.by_key.get_key_value(key).map_or_else(|| key.into(), |(key, _)| Arc::clone(key));
        let (number, kept) = (state.next, Kept { key: Arc::clone(&key), since_ms: now_ms, sibling });
        state.next += 1;
        state.bytes += kept.bytes();
        state.all.insert(number, kept);
        let numbers = state.by_key.entry(key).or_default();
        numbers.push(number);
        if numbers.len() > self.limits.count_max {
            let oldest = numbers[0];
            state.forget(oldest);
        }
        state.forget_old(now_ms, &self.limits);
    }

    /// The siblings of `key`, the oldest first.
    pub fn of(&self, key: &[u8], now_ms: u64) -> Vec<Sibling> {
        let mut state = self.state.lock();
        state.forget_old(now_ms, &self.limits);
        state.of(key, now_ms).cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.state.lock().all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::NodeId;

    fn sibling(stamp: u64, bytes: usize) -> Sibling {
        let version = Version { stamp, node: NodeId(1) };
        Sibling { version, expires_ms: 0, value: Body::Owned(vec![0; bytes]) }
    }

    fn stamps(siblings: &Siblings, key: &[u8], now_ms: u64) -> Vec<u64> {
        siblings.of(key, now_ms).iter().map(|sibling| sibling.version.stamp).collect()
    }

    #[test]
    fn the_last_few_of_a_key_are_kept_for_a_while() {
        let siblings = Siblings::new(SiblingLimits { count_max: 2, bytes_max: 10_000, age_ms_max: 100 });
        [(1, 0), (2, 10), (2, 11), (3, 20)].into_iter().for_each(|(stamp, now_ms)| {
            siblings.keep(b"a", sibling(stamp, 1), now_ms);
        });
        siblings.keep(b"b", Sibling { expires_ms: 50, ..sibling(9, 1) }, 20);
        assert_eq!((stamps(&siblings, b"a", 49), stamps(&siblings, b"b", 49)), (vec![2, 3], vec![9]));
        assert_eq!(stamps(&siblings, b"b", 50), []);
        assert_eq!(stamps(&siblings, b"a", 110), [3]);
        assert_eq!((stamps(&siblings, b"a", 120), siblings.len()), (vec![], 0));
    }

    #[test]
    fn all_of_them_have_room_for_so_many_bytes() {
        let siblings = Siblings::new(SiblingLimits { bytes_max: 3000, ..SiblingLimits::default() });
        (0..10u64).for_each(|number| siblings.keep(&number.to_le_bytes(), sibling(number, 1000), number));
        assert_eq!((siblings.len(), stamps(&siblings, &9u64.to_le_bytes(), 9)), (2, vec![9]));
        siblings.keep(b"huge", sibling(10, 4000), 10);
        let state = siblings.state.lock();
        assert_eq!((state.all.len(), state.by_key.len(), state.bytes), (0, 0, 0));
    }
}
