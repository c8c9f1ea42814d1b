//! Who waits for which key to appear. Not the waiting itself: a reactor holds the client and its deadline.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use parking_lot::Mutex;

/// A client on a reactor, or a call from this process.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Waiter {
    /// The reactor's index; that behind the last one's for a call.
    pub reactor: usize,
    /// The reactor's name for the client; the call's number.
    pub client: u64,
}

/// Wakes the reactor with the given index, from any thread.
pub type Wake = Box<dyn Fn(usize) + Send + Sync>;

/// All waiting clients of a node.
pub struct Waits {
    /// Checked by every write, so that a node where nobody waits pays nothing.
    waiting: AtomicUsize,
    state: Mutex<State>,
    limit: usize,
    wake: Wake,
}

#[derive(Default)]
struct State {
    by_key: HashMap<Vec<u8>, Vec<Waiter>>,
    ready: Vec<Waiter>,
}

impl Waits {
    /// At most `limit` clients may wait; `wake` tells a reactor to `take_ready`.
    pub fn new(limit: usize, wake: Wake) -> Self {
        Waits { waiting: AtomicUsize::new(0), state: Mutex::default(), limit, wake }
    }

    /// Notes that a client waits for `key`. The caller then looks again whether it is there: a write in
    /// between has not seen the note. Returns false when too many wait already.
    pub fn wait(&self, key: &[u8], waiter: Waiter) -> bool {
        let mut state = self.state.lock();
        if self.waiting.load(SeqCst) >= self.limit {
            return false;
        }
        self.waiting.fetch_add(1, SeqCst);
        state.by_key.entry(key.to_vec()).or_default().push(waiter);
        true
    }

    /// Forgets a client that waited for `key`.
    pub fn cancel(&self, key: &[u8], waiter: Waiter) {
        let mut state = self.state.lock();
        if let Some(waiters) = state.by_key.get_mut(key) {
            let before = waiters.len();
            waiters.retain(|other| *other != waiter);
            self.waiting.fetch_sub(before - waiters.len(), SeqCst);
            if waiters.is_empty() {
                state.by_key.remove(key);
            }
        }
        state.ready.retain(|other| *other != waiter);
    }

    /// A value was written under `key`.
    pub fn appeared(&self, key: &[u8]) {
        if self.waiting.load(SeqCst) == 0 {
            return;
        }
        let mut state = self.state.lock();
        let Some(waiters) = state.by_key.remove(key) else { return };
        self.waiting.fetch_sub(waiters.len(), SeqCst);
        state.ready.extend(&waiters);
        drop(state);
        waiters.iter().for_each(|waiter| (self.wake)(waiter.reactor));
    }

    /// The clients of a reactor whose key has appeared.
    pub fn take_ready(&self, reactor: usize) -> Vec<u64> {
        let mut state = self.state.lock();
        let (ready, others) =
            std::mem::take(&mut state.ready).into_iter().partition(|w| w.reactor == reactor);
        state.ready = others;
        let ready: Vec<Waiter> = ready;
        ready.into_iter().map(|waiter| waiter.client).collect()
    }
}

impl std::fmt::Debug for Waits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waits")
            .field("waiting", &self.waiting)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn who_waits_is_woken_once() {
        let woken = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&woken);
        let waits = Waits::new(2, Box::new(move |reactor| seen.lock().push(reactor)));
        let waiter = |reactor, client| Waiter { reactor, client };

        assert!(waits.wait(b"a", waiter(0, 1)) && waits.wait(b"a", waiter(1, 2)));
        assert!(!waits.wait(b"b", waiter(0, 3)));
        waits.appeared(b"b");
        assert_eq!(waits.take_ready(0), []);
        waits.appeared(b"a");
        waits.appeared(b"a");
        assert_eq!(*woken.lock(), [0, 1]);
        assert_eq!(
            (waits.take_ready(0), waits.take_ready(1), waits.take_ready(0)),
            (vec![1], vec![2], vec![])
        );
        assert!(waits.wait(b"b", waiter(0, 3)));
        waits.cancel(b"b", waiter(0, 3));
        assert_eq!(waits.waiting.load(SeqCst), 0);
    }
}
