//! What writes that are to be done once came to: a client that does not know whether its write was done sends
//! it again, and is answered as the first time. Not a promise for ever: the oldest go.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::version::Version;

/// Bytes of the longest name that a client gives a write.
pub const NAME_BYTES_MAX: usize = 64;
/// About what one takes in memory beside its key and its name.
const ONE_BYTES: usize = 160;

/// How many are known. `turbopump/config` owns names, defaults and reasons.
#[derive(Clone, Copy, Debug)]
pub struct OnceLimits {
    /// Bytes of all of them.
    pub bytes_max: usize,
    /// For so many milliseconds.
    pub age_ms_max: u64,
}

impl Default for OnceLimits {
    /// As `turbopump/config` has them; `tests/test_config.py` compares.
    fn default() -> Self {
        OnceLimits { bytes_max: 16 << 20, age_ms_max: 600_000 }
    }
}

/// The writes that a node knows by their names.
#[derive(Debug, Default)]
pub struct Once {
    limits: OnceLimits,
    state: Mutex<State>,
}

/// Which write: its key, and the name that the client gave it.
type Which = Arc<(Box<[u8]>, Box<[u8]>)>;

/// The writes known, while nobody else comes to know one.
#[derive(Debug, Default)]
pub struct State {
    known: HashMap<Which, Version>,
    /// In the order in which they came, and when.
    all: VecDeque<(Which, u64)>,
    bytes: usize,
}

impl State {
    /// The version that a write came to; zero of a delete that found nothing.
    pub fn find(&self, key: &[u8], name: &[u8]) -> Option<Version> {
        self.known.get(&(Box::from(key), Box::from(name))).copied()
    }
}

impl Once {
    /// None are known.
    pub fn new(limits: OnceLimits) -> Self {
        Once { limits, state: Mutex::default() }
    }

    /// Looks, and lets nobody else look until the guard is dropped: so a write is not begun twice.
    pub fn lock(&self, now_ms: u64) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        self.forget_old(&mut state, now_ms);
        state
    }

    /// Notes what a write came to. The first one counts.
    pub fn keep(&self, key: &[u8], name: &[u8], version: Version, now_ms: u64) {
        self.keep_in(&mut self.state.lock(), key, name, version, now_ms);
    }

    /// As `keep`, for who has looked.
    pub fn keep_in(&self, state: &mut State, key: &[u8], name: &[u8], version: Version, now_ms: u64) {
        let which: Which = Arc::new((key.into(), name.into()));
        if state.known.contains_key(&which) {
            return;
        }
        state.bytes += bytes(&which);
        state.known.insert(Arc::clone(&which), version);
        state.all.push_back((which, now_ms));
        self.forget_old(state, now_ms);
    }

    fn forget_old(&self, state: &mut State, now_ms: u64) {
        let is_old =
            |(_, since_ms): &(Which, u64)| now_ms.saturating_sub(*since_ms) >= self.limits.age_ms_max;
        while state.bytes > self.limits.bytes_max || state.all.front().is_some_and(is_old) {
            let Some((which, _)) = state.all.pop_front() else { break };
            state.bytes -= bytes(&which);
            state.known.remove(&which);
        }
    }
}

fn bytes(which: &Which) -> usize {
    ONE_BYTES + which.0.len() + which.1.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::NodeId;

    fn version(stamp: u64) -> Version {
        Version { stamp, node: NodeId(1) }
    }

    #[test]
    fn the_first_is_known_for_a_while() {
        let once = Once::new(OnceLimits { bytes_max: 10_000, age_ms_max: 100 });
        once.keep(b"k", b"a", version(1), 0);
        once.keep(b"k", b"a", version(2), 10);
        once.keep(b"k", b"b", version(3), 50);
        assert_eq!(once.lock(99).find(b"k", b"a"), Some(version(1)));
        assert_eq!(once.lock(99).find(b"other", b"a"), None);
        assert_eq!(once.lock(100).find(b"k", b"a"), None);
        assert_eq!(once.lock(149).find(b"k", b"b"), Some(version(3)));
    }

    #[test]
    fn there_is_room_for_so_many() {
        let once = Once::new(OnceLimits { bytes_max: 1000, age_ms_max: 100 });
        (0..100u64).for_each(|name| once.keep(b"k", &name.to_le_bytes(), version(name), 0));
        let state = once.lock(0);
        assert!(state.bytes <= 1000 && state.known.len() == state.all.len(), "{state:?}");
        assert_eq!(state.find(b"k", &99u64.to_le_bytes()), Some(version(99)));
        assert_eq!(state.find(b"k", &0u64.to_le_bytes()), None);
    }
}
