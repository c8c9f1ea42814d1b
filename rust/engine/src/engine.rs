//! The engine: the reactors' threads, and what other threads may ask of them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mio::{Poll, Waker};
use parking_lot::Mutex;
use turbopump_core::counters::Counters;
use turbopump_core::error::Refusal;
use turbopump_core::feed::{Feed, Filter, Watch};
use turbopump_core::keyspace::{Acks, Keyspaces};
use turbopump_core::merkle::DigestKey;
use turbopump_core::once::Once;
use turbopump_core::replica::Replica;
use turbopump_core::reply::Reply;
use turbopump_core::siblings::Siblings;
use turbopump_core::store::{Store, StoreConfig};
use turbopump_core::version::{NodeId, Version};
use turbopump_core::waits::{Waiter, Waits};

use crate::config::EngineConfig;
use crate::events::{Event, Events};
use crate::janitor::Janitor;
use crate::join::Join;
use crate::peers::PeerInfo;
use crate::reactor::{Reactor, WAKER};
use crate::sched::ask_for_short_slice;
use crate::shared::{ClientInfo, Inbox, Order, Shared};

/// How long to wait for a reactor's description of its clients; it is busy with something terrible otherwise.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// An engine cannot be made or used so. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The system refused something the engine needs.
    #[error("the system refused it: {0}")]
    System(#[from] std::io::Error),
    /// The system refused something the engine needs.
    #[error("the system refused it: {0}")]
    Errno(#[from] rustix::io::Errno),
    /// No layout can be made of the members.
    #[error(transparent)]
    Layout(#[from] turbopump_core::layout::LayoutError),
    /// The socket for the peers cannot be bound.
    #[error("cannot bind UDP {0}: {1}")]
    Bind(std::net::SocketAddr, std::io::Error),
    /// It has been started before.
    #[error("the engine was started before: make another one")]
    Started,
    /// A thread of it has panicked.
    #[error("a thread of the engine has panicked, and what it held may be half changed: make another one")]
    Failed,
}

/// The engine of one node.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    waiting: Mutex<Vec<Reactor>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    janitor: Mutex<Option<Janitor>>,
}

impl Engine {
    /// An engine that is not serving yet.
    ///
    /// # Errors
    /// The system has no descriptor or no randomness left.
    pub fn new(config: EngineConfig) -> Result<Self, EngineError> {
        let count = config.reactors.max(1);
        let polls = (0..count).map(|_| Poll::new()).collect::<Result<Vec<_>, _>>()?;
        let wakers =
            polls.iter().map(|poll| Waker::new(poll.registry(), WAKER)).collect::<Result<Vec<_>, _>>()?;
        let inbox = |waker| Inbox { orders: Mutex::default(), waker };
        let inboxes = Arc::new(wakers.into_iter().map(inbox).collect::<Vec<_>>());
        let events = Arc::new(Events::new(config.events_max)?);
        let mut replica = replica(&config, Arc::clone(&inboxes), Arc::clone(&events))?;
        let coordinator = |_| {
            let limits = Arc::new(config.limits.clone());
            Replica::new(Arc::clone(replica.store()), replica.shared_waits(), limits)
                .with_feed(Arc::clone(replica.feed()))
                .with_siblings(Arc::clone(replica.siblings()))
                .with_once(Arc::clone(replica.known_once()))
        };
        let mut replicas: Vec<Replica> = (0..count).map(coordinator).collect();
        let mut peers = None;
        if let Some(options) = &config.cluster {
            let join = Join { config: &config, options, inboxes: &inboxes };
            peers = Some(join.join(&mut replicas, &mut replica)?);
        }
        let shared = Arc::new(Shared {
            events,
            counters: replicas
                .iter()
                .chain([&replica])
                .map(|replica| Arc::clone(replica.counters()))
                .collect(),
            config,
            replica,
            inboxes,
            connections: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            next_client: AtomicU64::new(1),
            next_ask: AtomicU64::new(1),
            next_wait: AtomicU64::new(1),
            undrained: AtomicUsize::new(count),
            answered: AtomicU64::new(0),
            aborted: AtomicU64::new(0),
            peer_changes: AtomicU64::new(0),
            failed: AtomicBool::new(false),
        });
        let mut reactors = Vec::with_capacity(count);
        for (index, (poll, replica)) in polls.into_iter().zip(replicas).enumerate() {
            let mut reactor = Reactor::new(index, Arc::clone(&shared), poll, replica, random()?);
            if let Some(peers) = peers.take() {
                reactor.own_peers(peers)?;
            }
            reactors.push(reactor);
        }
        Ok(Engine {
            shared,
            waiting: Mutex::new(reactors),
            threads: Mutex::default(),
            janitor: Mutex::default(),
        })
    }

    /// Starts the reactors.
    ///
    /// # Errors
    /// It was started before, or the system refuses a thread.
    pub fn start(&self) -> Result<(), EngineError> {
        let reactors = std::mem::take(&mut *self.waiting.lock());
        if reactors.is_empty() {
            return Err(EngineError::Started);
        }
        let usage = Arc::clone(self.shared.replica.store().usage());
        *self.janitor.lock() = Some(Janitor::start(usage, self.shared.config.release_memory)?);
        let mut threads = self.threads.lock();
        for (index, mut reactor) in reactors.into_iter().enumerate() {
            let shared = Arc::clone(&self.shared);
            let serve = move || {
                ask_for_short_slice();
                watch(&shared, || reactor.run());
            };
            threads.push(std::thread::Builder::new().name(format!("reactor-{index}")).spawn(serve)?);
        }
        Ok(())
    }

    /// Has the reactors accept clients from a listening socket.
    ///
    /// # Errors
    /// The descriptor cannot be duplicated or made non-blocking.
    pub fn listen(&self, socket: BorrowedFd<'_>, tcp: bool) -> Result<(), EngineError> {
        rustix::io::ioctl_fionbio(socket, true)?;
        let copies = self.shared.inboxes.iter().map(|_| rustix::io::fcntl_dupfd_cloexec(socket, 0));
        let copies: Vec<OwnedFd> = copies.collect::<Result<_, _>>()?;
        for (inbox, socket) in self.shared.inboxes.iter().zip(copies) {
            inbox.send(Order::Listen { socket, tcp });
        }
        Ok(())
    }

    /// A descriptor that is readable while there is news.
    pub fn signal(&self) -> BorrowedFd<'_> {
        self.shared.events.as_fd()
    }

    /// All there is of news.
    pub fn poll_events(&self) -> Vec<Event> {
        let mut events = self.shared.events.drain();
        let appeared = self.shared.replica.waits().take_ready(self.shared.inboxes.len());
        events.extend(appeared.into_iter().map(Event::Appeared));
        let feed = self.shared.replica.feed();
        events.extend(feed.take_woken(self.shared.inboxes.len()).then_some(Event::Stirred));
        events.extend(feed.take_queue().into_iter().map(Event::Changed));
        events
    }

    /// The version of the value under `key`; if there is none, the number of a wait for it, which an
    /// `Appeared` event tells to be over.
    ///
    /// # Errors
    /// As many wait as may.
    pub fn wait(&self, key: &[u8]) -> Result<Result<Version, u64>, Refusal> {
        let replica = &self.shared.replica;
        let find = || replica.get(key, unix_ms(), |view| view.map(|view| view.version));
        if let Some(version) = find() {
            return Ok(Ok(version));
        }
        let wait = self.shared.next_wait.fetch_add(1, Relaxed);
        if !replica.waits().wait(key, self.waiter(wait)) {
            return Err(Refusal::Busy("as many wait as limits.max_waits allows: try again".into()));
        }
        // A write between the look and the note has not seen the note.
        match find() {
            None => Ok(Err(wait)),
            Some(version) => {
                self.forget(key, wait);
                Ok(Ok(version))
            }
        }
    }

    /// Ends a wait that is not over.
    pub fn forget(&self, key: &[u8], wait: u64) {
        self.shared.replica.waits().cancel(key, self.waiter(wait));
    }

    /// Begins to watch, from this process: a `Stirred` event tells to read on.
    ///
    /// # Errors
    /// As `Feed::watch`.
    pub fn watch(&self, filter: Filter, since: Option<u64>) -> Result<Watch, Refusal> {
        let feed = self.shared.replica.feed();
        let watch = feed.watch(filter, since)?;
        feed.listen(self.shared.inboxes.len(), true);
        Ok(watch)
    }

    /// Has a `Changed` event tell of each change that one of these rules takes, as far as there is room.
    pub fn set_rules(&self, rules: Vec<Filter>) {
        self.shared.replica.feed().set_rules(rules, self.shared.inboxes.len());
    }

    fn waiter(&self, wait: u64) -> Waiter {
        Waiter { reactor: self.shared.inboxes.len(), client: wait }
    }

    /// Answers a cold command.
    pub fn answer(&self, ask: u64, reply: Reply) {
        let reactor = (ask % self.shared.inboxes.len() as u64) as usize;
        self.shared.inboxes[reactor].send(Order::Answer(ask, reply));
    }

    /// Accepts no more clients, and ends with a `Drained` event once all are answered or the deadline has
    /// passed.
    pub fn drain(&self, deadline_ms: u64) {
        self.shared.inboxes.iter().for_each(|inbox| inbox.send(Order::Drain(deadline_ms)));
    }

    /// Ends the reactors and waits for their threads.
    pub fn stop(&self) {
        self.waiting.lock().clear();
        drop(self.janitor.lock().take());
        self.shared.inboxes.iter().for_each(|inbox| inbox.send(Order::Stop));
        for thread in self.threads.lock().drain(..) {
            // A thread that panicked has said so by an event.
            let _ = thread.join();
        }
    }

    /// The coordinator for calls from this process, on any thread.
    ///
    /// # Errors
    /// `EngineError::Failed`: nobody is to read what may be half changed.
    pub fn replica(&self) -> Result<&Replica, EngineError> {
        if self.shared.failed.load(SeqCst) { Err(EngineError::Failed) } else { Ok(&self.shared.replica) }
    }

    /// All members of the cluster, this node too; none on a single node.
    pub fn peers(&self) -> Vec<PeerInfo> {
        let Some(inbox) = self.running().next() else { return Vec::new() };
        let (sender, receiver) = sync_channel(1);
        inbox.send(Order::DescribePeers(sender));
        receiver.recv_timeout(ANSWER_TIMEOUT).unwrap_or_default()
    }

    /// Runs a request in the pipe protocol as if a client had sent it; a `Replied` event tells the reply to
    /// the call with the number that this returns. `None` where only the store is asked: on a single node.
    pub fn execute(&self, request: Vec<u8>) -> Option<u64> {
        self.shared.config.cluster.as_ref()?;
        let call = self.shared.next_wait.fetch_add(1, Relaxed);
        self.shared.inboxes[0].send(Order::Execute(call, request));
        Some(call)
    }

    /// Whether what is asked of `key` can be done by the store of this node alone.
    pub fn is_here(&self, key: &[u8], write: bool) -> bool {
        self.shared.replica.outbox().is_none_or(|outbox| {
            let (routes, rules) = (outbox.routes(), outbox.routes().rules(key));
            let acks = if write { rules.write_acks } else { rules.read_acks };
            let is_known = acks == Acks::One && !self.shared.replica.lacks(key);
            routes.len() < 2 || routes.is_mine(key) && is_known
        })
    }

    /// Whether this node has every key, so that nobody else need be asked which there are.
    pub fn has_all(&self) -> bool {
        let behind = self.shared.replica.store().is_behind();
        self.shared.replica.outbox().is_none_or(|outbox| outbox.routes().keeps_all() && !behind)
    }

    /// Has the node compare what it holds with its peers now.
    pub fn sync(&self) {
        self.running().take(1).for_each(|inbox| inbox.send(Order::Sync));
    }

    /// All clients.
    pub fn clients(&self) -> Vec<ClientInfo> {
        let ask = |inbox: &Inbox| {
            let (sender, receiver) = sync_channel(1);
            inbox.send(Order::Describe(sender));
            receiver.recv_timeout(ANSWER_TIMEOUT).unwrap_or_default()
        };
        self.running().flat_map(ask).collect()
    }

    /// Ends the client with this number; tells whether there was one.
    pub fn kill(&self, id: u64) -> bool {
        self.running().any(|inbox| {
            let (sender, receiver) = sync_channel(1);
            inbox.send(Order::Kill(id, sender));
            receiver.recv_timeout(ANSWER_TIMEOUT).unwrap_or(false)
        })
    }

    /// The reactors, if there is anybody to answer for them.
    fn running(&self) -> impl Iterator<Item = &Inbox> {
        let running = !self.threads.lock().is_empty();
        self.shared.inboxes.iter().filter(move |_| running)
    }

    /// What the engine counted, by name.
    pub fn stats(&self) -> Vec<(&'static str, u64)> {
        let shared = &self.shared;
        let sum = |count: fn(&Counters) -> u64| shared.counters.iter().map(|counters| count(counters)).sum();
        let store = shared.replica.store();
        vec![
            ("keys", store.usage().total().keys()),
            ("memory", store.usage().total().bytes()),
            ("max_memory", store.usage().total().limit()),
            ("expiring", store.expiring()),
            ("tombstones", store.tombstones()),
            ("expired", store.expired()),
            ("hits", sum(|counters| counters.hits.get())),
            ("misses", sum(|counters| counters.misses.get())),
            ("writes", sum(|counters| counters.writes.get())),
            ("deletes", sum(|counters| counters.deletes.get())),
            ("commands", sum(|counters| counters.commands.get())),
            ("refusals", sum(|counters| counters.refusals.get())),
            ("connections", shared.connections.load(Relaxed) as u64),
            ("accepted", shared.accepted.load(Relaxed)),
            ("siblings", shared.replica.siblings().len() as u64),
            ("watches", shared.replica.feed().watches() as u64),
            ("changes_dropped", shared.replica.feed().dropped()),
            ("turned_away", shared.turned_away.load(Relaxed)),
            ("behind", u64::from(store.is_behind())),
        ]
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs a reactor, and tells everybody when it fails.
fn watch(shared: &Shared, run: impl FnOnce() -> std::io::Result<()>) {
    let failure = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => format!("polling failed: {error}"),
        Err(panic) => panic_text(panic.as_ref()),
    };
    shared.failed.store(true, SeqCst);
    // Cannot be refused: the queue keeps room for it.
    let _ = shared.events.push(Event::Failed(failure));
}

/// Unix milliseconds, for calls from outside the reactors.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

fn replica(
    config: &EngineConfig,
    inboxes: Arc<Vec<Inbox>>,
    events: Arc<Events>,
) -> Result<Replica, EngineError> {
    let secret = |_| random().map(u64::to_ne_bytes);
    let digest_secret: Vec<u8> = (0..2).map(secret).collect::<Result<Vec<_>, _>>()?.concat();
    let digest_secret: [u8; 16] = match &config.cluster {
        Some(cluster) => cluster.digest_secret,
        None => digest_secret.try_into().unwrap_or_default(),
    };
    let store = Store::new(StoreConfig {
        node: node_id(&config.name),
        hash_seed: hash_seed(&digest_secret),
        digest_secret,
        keyspaces: Keyspaces::new(config.keyspaces.clone()),
        memory_max: config.memory_max,
    });
    store.keep_tombstones(config.cluster.is_some());
    let wake = move |reactor: usize| match inboxes.get(reactor) {
        Some(inbox) => inbox.wake(),
        None => events.signal(),
    };
    let feed = Feed::new(config.limits.feed, unix_ms(), Box::new(wake.clone()));
    let waits = Waits::new(config.limits.waits_max, Box::new(wake));
    let replica = Replica::for_threads(Arc::new(store), Arc::new(waits), Arc::new(config.limits.clone()));
    let siblings = Siblings::new(config.limits.siblings);
    let once = Once::new(config.limits.once);
    Ok(replica.with_feed(Arc::new(feed)).with_siblings(Arc::new(siblings)).with_once(Arc::new(once)))
}

/// The order of keys follows from the cluster's secret: its nodes have the same, and clients cannot know it.
fn hash_seed(secret: &[u8; 16]) -> u64 {
    DigestKey::new(secret).digest(b"turbopump/order-1", Default::default(), false) as u64
}

/// A node's id follows from its name, so that it is the same after a restart.
pub fn node_id(name: &str) -> NodeId {
    let digest = DigestKey::new(b"turbopump/node-1").digest(name.as_bytes(), Default::default(), false);
    NodeId((digest >> 64) as u64 | 1)
}

/// A random number, of the system.
pub fn random() -> Result<u64, rustix::io::Errno> {
    let mut bytes = [0u8; 8];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(bytes))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("a reactor panicked: {}", text.unwrap_or_else(|| "without a message".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_panic_nobody_reads_what_may_be_half_changed() -> Result<(), EngineError> {
        let engine = Engine::new(EngineConfig::default())?;
        watch(&engine.shared, || Ok(()));
        assert!(engine.replica().is_ok());
        watch(&engine.shared, || panic!("a defect"));
        assert!(matches!(engine.replica(), Err(EngineError::Failed)));
        assert_eq!(engine.poll_events(), [Event::Failed("a reactor panicked: a defect".into())]);
        Ok(())
    }
}
