//! What changed lately on this node, in order, for those who watch: each holds a `Watch`, its place there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard};

use crate::error::Refusal;
use crate::version::Version;
use crate::waits::Wake;

/// Bits of a revision that count, below the Unix milliseconds of the start. So the revisions of one start are
/// not those of another, unless more than four million changes a second were made; and all of them are exact
/// in a double, as JSON has numbers, until 2039.
const COUNT_BITS: u32 = 12;
/// About what a change takes in memory beside its key.
const CHANGE_BYTES: usize = 80;

/// What happened to a key.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Kind {
    /// A value was written here.
    Written,
    /// A value came from the node that it was written on.
    Arrived,
    /// A value came later, because this node did not have it.
    Healed,
    /// It was deleted, here or elsewhere.
    Deleted,
    /// Its time was over.
    Expired,
    /// A value gave way to one whose writer did not know it.
    Lost,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 6] =
        [Kind::Written, Kind::Arrived, Kind::Healed, Kind::Deleted, Kind::Expired, Kind::Lost];

    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Written => "written",
            Kind::Arrived => "arrived",
            Kind::Healed => "healed",
            Kind::Deleted => "deleted",
            Kind::Expired => "expired",
            Kind::Lost => "lost",
        }
    }

    /// The kind with this word.
    pub fn named(word: &[u8]) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name().as_bytes() == word)
    }
}

/// Some kinds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Kinds(u8);

impl Kinds {
    /// All of them.
    pub const ALL: Kinds = Kinds(u8::MAX);

    /// Those whose words stand here, with commas between; `None` if one is no kind, or there is none.
    pub fn named(words: &[u8]) -> Option<Kinds> {
        words.split(|byte| *byte == b',').try_fold(Kinds(0), |kinds, word| {
            Kind::named(word.trim_ascii()).map(|kind| Kinds(kinds.0 | 1 << kind as u8))
        })
    }

    /// Whether a kind is one of them.
    pub fn contains(self, kind: Kind) -> bool {
        self.0 & 1 << kind as u8 != 0
    }
}

/// Which changes are wanted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Filter {
    /// What their keys begin with.
    pub prefix: Vec<u8>,
    /// Of which kinds they are.
    pub kinds: Kinds,
}

impl Filter {
    fn takes(&self, kind: Kind, key: &[u8]) -> bool {
        self.kinds.contains(kind) && key.starts_with(&self.prefix)
    }
}

/// A change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// Its place among all changes of this node: higher than those before.
    pub revision: u64,
    /// What happened.
    pub kind: Kind,
    /// To which key.
    pub key: Arc<[u8]>,
    /// The version that was written, came, is over or lost.
    pub version: Version,
    /// Bytes of its value; 0 of a delete.
    pub size: u64,
}

/// What a feed keeps to. `turbopump/config` owns names, defaults and reasons.
#[derive(Clone, Copy, Debug)]
pub struct FeedLimits {
    /// Changes that one who watches may be behind.
    pub changes_max: usize,
    /// Bytes of these changes.
    pub bytes_max: usize,
    /// Those who watch.
    pub watches_max: usize,
    /// Changes that wait for the program's own rules.
    pub queue_max: usize,
}

impl Default for FeedLimits {
    /// As `turbopump/config` has them; `tests/test_config.py` compares.
    fn default() -> Self {
        FeedLimits { changes_max: 65_536, bytes_max: 16 << 20, watches_max: 1000, queue_max: 10_000 }
    }
}

/// The changes of a node.
pub struct Feed {
    /// Checked by every write, so that a node where nobody watches pays next to nothing. Relaxed: who is told
    /// that it watches is told by way of a socket, and what is written after that has seen it.
    active: AtomicBool,
    /// Changes for the program's own rules that found its queue full.
    dropped: AtomicU64,
    state: Mutex<State>,
    limits: FeedLimits,
    wake: Wake,
}

#[derive(Default)]
struct State {
    /// The revision of the next change.
    next: u64,
    /// The last changes, without a gap, if somebody watches or has watched lately.
    changes: VecDeque<Change>,
    bytes: usize,
    watches: usize,
    /// Where the last who left could go on. Until that falls out, changes are kept for it.
    left_at: Option<u64>,
    /// By reactor: whether somebody there watches, and whether it has been woken.
    listeners: Vec<(bool, bool)>,
    rules: Vec<Filter>,
    /// Whose rules they are, by its place behind the reactors.
    program: usize,
    queue: VecDeque<Change>,
}

impl State {
    fn is_recording(&self) -> bool {
        self.watches > 0 || self.left_at.is_some()
    }

    fn oldest(&self) -> u64 {
        self.next - self.changes.len() as u64
    }

    fn gone(&self) -> Refusal {
        Refusal::Gone { oldest: self.oldest() }
    }

    /// Whether all changes after `revision` are there.
    fn reaches(&self, revision: u64) -> bool {
        (self.oldest() - 1..self.next).contains(&revision)
    }

    fn keep(&mut self, change: Change, limits: &FeedLimits) {
        self.bytes += CHANGE_BYTES + change.key.len();
        self.changes.push_back(change);
        while self.changes.len() > limits.changes_max || self.bytes > limits.bytes_max {
            let Some(old) = self.changes.pop_front() else { break };
            self.bytes -= CHANGE_BYTES + old.key.len();
        }
        if self.watches == 0 && self.left_at.is_some_and(|revision| !self.reaches(revision)) {
            // Nobody could go on any more. What is not kept from here on leaves a gap, which none may pass.
            (self.left_at, self.changes, self.bytes) = (None, VecDeque::new(), 0);
            self.next += 1;
        }
    }
}

impl Feed {
    /// A feed of a node that starts at this Unix millisecond. `wake` tells a reactor to `take_woken`; the one
    /// behind the last, to `take_queue` too.
    pub fn new(limits: FeedLimits, start_ms: u64, wake: Wake) -> Self {
        let state = State { next: (start_ms << COUNT_BITS) + 1, ..State::default() };
        Feed {
            active: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            state: Mutex::new(state),
            limits,
            wake,
        }
    }

    /// Something happened to `key`: to be called while it is locked, so that its changes stay in order.
    pub fn note(&self, kind: Kind, key: &[u8], version: Version, size: usize) {
        if self.active.load(Relaxed) {
            self.record(kind, key, version, size as u64);
        }
    }

    #[cold]
    fn record(&self, kind: Kind, key: &[u8], version: Version, size: u64) {
        let mut state = self.state.lock();
        let wanted = state.rules.iter().any(|rule| rule.takes(kind, key));
        let recording = state.is_recording();
        if !wanted && !recording {
            return;
        }
        let change = Change { revision: state.next, kind, key: key.into(), version, size };
        state.next += 1;
        let mut wakes = Vec::new();
        if wanted && state.queue.len() >= self.limits.queue_max {
            self.dropped.fetch_add(1, Relaxed);
        } else if wanted {
            state.queue.push_back(change.clone());
            wakes.extend((state.queue.len() == 1).then_some(state.program));
        }
        if recording {
            state.keep(change, &self.limits);
            for (reactor, (listens, woken)) in state.listeners.iter_mut().enumerate() {
                if *listens && !std::mem::replace(woken, true) {
                    wakes.push(reactor);
                }
            }
        }
        self.settle(state);
        wakes.into_iter().for_each(|reactor| (self.wake)(reactor));
    }

    /// Begins to watch: what follows `since`, or what follows now.
    ///
    /// # Errors
    /// `Gone` if some of what follows `since` is not kept, or `Busy` if as many watch as may.
    pub fn watch(self: &Arc<Self>, filter: Filter, since: Option<u64>) -> Result<Watch, Refusal> {
        let mut state = self.state.lock();
        if state.watches >= self.limits.watches_max {
            let text = "as many watch as limits.max_watches allows: try again";
            return Err(Refusal::Busy(text.into()));
        }
        let revision = since.unwrap_or(state.next - 1);
        if !state.reaches(revision) {
            return Err(state.gone());
        }
        state.watches += 1;
        self.settle(state);
        Ok(Watch { feed: Arc::clone(self), filter, revision })
    }

    /// Has a reactor woken when there are changes, or not any more.
    pub fn listen(&self, reactor: usize, listens: bool) {
        let mut state = self.state.lock();
        let places = state.listeners.len().max(reactor + 1);
        state.listeners.resize(places, (false, false));
        state.listeners[reactor] = (listens, false);
    }

    /// Whether a reactor has been woken since it last asked.
    pub fn take_woken(&self, reactor: usize) -> bool {
        if !self.active.load(Relaxed) {
            return false;
        }
        let mut state = self.state.lock();
        state.listeners.get_mut(reactor).is_some_and(|(_, woken)| std::mem::take(woken))
    }

    /// Puts changes that one of these rules takes in a queue for the program, which is the reactor behind the
    /// last; they are instead of those before.
    pub fn set_rules(&self, rules: Vec<Filter>, program: usize) {
        let mut state = self.state.lock();
        (state.rules, state.program) = (rules, program);
        self.settle(state);
    }

    /// Takes what the queue for the program has.
    pub fn take_queue(&self) -> VecDeque<Change> {
        if !self.active.load(Relaxed) {
            return VecDeque::new();
        }
        std::mem::take(&mut self.state.lock().queue)
    }

    /// How many changes found that queue full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// How many watch.
    pub fn watches(&self) -> usize {
        self.state.lock().watches
    }

    fn settle(&self, state: MutexGuard<'_, State>) {
        self.active.store(state.is_recording() || !state.rules.is_empty(), Relaxed);
    }
}

impl Default for Feed {
    /// A feed that wakes nobody.
    fn default() -> Self {
        Feed::new(FeedLimits::default(), 0, Box::new(|_| {}))
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed")
            .field("active", &self.active)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// One who watches: its place in the feed.
#[derive(Debug)]
pub struct Watch {
    feed: Arc<Feed>,
    filter: Filter,
    revision: u64,
}

impl Watch {
    /// All changes up to this one have been seen.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Looks at the next `limit` changes, takes those that are wanted, and tells whether there may be more.
    ///
    /// # Errors
    /// `Gone`: it is too far behind, and some changes are not kept any more.
    pub fn read(&mut self, limit: usize) -> Result<(Vec<Change>, bool), Refusal> {
        let state = self.feed.state.lock();
        if !state.reaches(self.revision) {
            return Err(state.gone());
        }
        let start = (self.revision + 1 - state.oldest()) as usize;
        let end = state.changes.len().min(start + limit);
        let wanted =
            state.changes.range(start..end).filter(|change| self.filter.takes(change.kind, &change.key));
        let found = wanted.cloned().collect();
        self.revision += (end - start) as u64;
        Ok((found, end < state.changes.len()))
    }

    /// Whether it is too far behind to go on, and why.
    pub fn gone(&self) -> Option<Refusal> {
        let state = self.feed.state.lock();
        (!state.reaches(self.revision)).then(|| state.gone())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = self.feed.state.lock();
        state.watches -= 1;
        let left_at = state.left_at.max(Some(self.revision)).filter(|revision| state.reaches(*revision));
        let idle = state.watches == 0 && left_at.is_none();
        state.left_at = left_at;
        if idle {
            state.changes = VecDeque::new();
            (state.bytes, state.next) = (0, state.next + 1);
        }
        self.feed.settle(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANY: Filter = Filter { prefix: Vec::new(), kinds: Kinds::ALL };

    fn feed(changes_max: usize, bytes_max: usize) -> (Arc<Feed>, Arc<Mutex<Vec<usize>>>) {
        let woken = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&woken);
        let limits = FeedLimits { changes_max, bytes_max, watches_max: 2, queue_max: 2 };
        (Arc::new(Feed::new(limits, 1000, Box::new(move |reactor| seen.lock().push(reactor)))), woken)
    }

    fn write(feed: &Feed, key: &str) {
        feed.note(Kind::Written, key.as_bytes(), Version::ZERO, 1);
    }

    fn keys(watch: &mut Watch) -> Vec<String> {
        let (found, _) = watch.read(usize::MAX - 1_000_000).expect("not gone");
        found.iter().map(|change| String::from_utf8_lossy(&change.key).into_owned()).collect()
    }

    #[test]
    fn who_watches_sees_what_follows() -> Result<(), Refusal> {
        let (feed, _) = feed(10, 10_000);
        write(&feed, "before");
        let mut all = feed.watch(ANY, None)?;
        let deleted = Kinds::named(b"deleted, lost").expect("they are kinds");
        let mut some = feed.watch(Filter { prefix: b"a/".to_vec(), kinds: deleted }, None)?;
        assert_eq!(
            feed.watch(ANY, None).map(|_| ()).map_err(|refusal| refusal.code().to_owned()),
            Err("busy".into())
        );
        write(&feed, "a/1");
        feed.note(Kind::Deleted, b"a/2", Version::ZERO, 0);
        feed.note(Kind::Deleted, b"b", Version::ZERO, 0);

        assert_eq!(keys(&mut all), ["a/1", "a/2", "b"]);
        assert_eq!(keys(&mut some), ["a/2"]);
        assert_eq!(some.revision(), all.revision());
        assert_eq!(Kinds::named(b"deleted,eaten"), None);
        Ok(())
    }

    #[test]
    fn who_left_goes_on_where_it_was_or_is_told() -> Result<(), Refusal> {
        let (feed, _) = feed(2, 10_000);
        let mut watch = feed.watch(ANY, None)?;
        write(&feed, "1");
        assert_eq!(keys(&mut watch), ["1"]);
        let at = watch.revision();
        drop(watch);
        write(&feed, "2");
        write(&feed, "3");
        let mut watch = feed.watch(ANY, Some(at))?;
        assert_eq!(keys(&mut watch), ["2", "3"]);
        drop(watch);

        for key in ["4", "5", "6", "7", "8"] {
            write(&feed, key);
        }
        assert!(!feed.active.load(Relaxed), "nobody could go on");
        let refused = feed.watch(ANY, Some(at + 2)).map(|_| ());
        assert_eq!(refused, Err(Refusal::Gone { oldest: at + 7 }));
        assert!(feed.watch(ANY, Some(at + 100)).is_err(), "that is yet to come");
        // Not even the last revision there was: what followed it was not kept.
        assert!(feed.watch(ANY, Some(at + 5)).is_err());
        Ok(())
    }

    #[test]
    fn who_is_too_slow_is_told() -> Result<(), Refusal> {
        let (feed, _) = feed(100, 2 * (CHANGE_BYTES + 1));
        let mut watch = feed.watch(ANY, None)?;
        ["1", "2"].into_iter().for_each(|key| write(&feed, key));
        assert_eq!(watch.gone(), None);
        write(&feed, "3");
        let oldest = watch.revision() + 2;
        assert_eq!(watch.gone(), Some(Refusal::Gone { oldest }));
        assert_eq!(watch.read(10), Err(Refusal::Gone { oldest }));
        drop(watch);
        assert!(!feed.active.load(Relaxed), "it could not go on");
        Ok(())
    }

    #[test]
    fn reactors_are_woken_once() -> Result<(), Refusal> {
        let (feed, woken) = feed(10, 10_000);
        let _watch = feed.watch(ANY, None)?;
        feed.listen(1, true);
        write(&feed, "1");
        write(&feed, "2");
        assert_eq!((woken.lock().clone(), feed.take_woken(1), feed.take_woken(1)), (vec![1], true, false));
        feed.listen(1, false);
        write(&feed, "3");
        assert_eq!(*woken.lock(), [1]);
        Ok(())
    }

    #[test]
    fn the_program_has_what_its_rules_take() {
        let (feed, woken) = feed(10, 10_000);
        feed.set_rules(vec![Filter { prefix: b"a".to_vec(), kinds: Kinds::ALL }], 3);
        for key in ["a1", "b", "a2", "a3"] {
            write(&feed, key);
        }
        let found: Vec<_> = feed.take_queue().into_iter().map(|change| change.key.to_vec()).collect();
        assert_eq!(found, [b"a1", b"a2"]);
        assert_eq!((feed.dropped(), woken.lock().clone()), (1, vec![3]));
        feed.set_rules(Vec::new(), 3);
        write(&feed, "a4");
        assert!(feed.take_queue().is_empty());
    }

    proptest! {
        /// Whoever comes and goes sees each change once and in order, or is told that it missed some.
        #[test]
        fn nothing_is_skipped_silently(steps in proptest::collection::vec(0u8..8, 1..200)) {
            let (feed, _) = feed(4, 10_000);
            let (mut watch, mut at, mut wrote) = (None::<Watch>, None, 0);
            let mut expected: Vec<String> = Vec::new();
            for step in steps {
                match step {
                    0 => {
                        at = watch.take().map_or(at, |watch| Some(watch.revision()));
                    }
                    1 if watch.is_none() => match feed.watch(ANY, at) {
                        Ok(begun) => {
                            if at.is_none() { expected.clear(); }
                            watch = Some(begun);
                        }
                        Err(_) => { (at, expected) = (None, Vec::new()); }
                    },
                    2 => if let Some(open) = &mut watch {
                        match open.read(3) {
                            Ok((found, _)) => for change in found {
                                let next = expected.remove(0);
                                prop_assert_eq!(&*change.key, next.as_bytes());
                            },
                            Err(_) => { (watch, at, expected) = (None, None, Vec::new()); }
                        }
                    },
                    _ => {
                        wrote += 1;
                        write(&feed, &wrote.to_string());
                        expected.push(wrote.to_string());
                    }
                }
            }
        }
    }
}
