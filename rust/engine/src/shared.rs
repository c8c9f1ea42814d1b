//! What all reactors of an engine, and the threads that call it, have in common.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::mpsc::SyncSender;

use mio::Waker;
use parking_lot::Mutex;
use turbopump_core::cluster::Outcome;
use turbopump_core::counters::Counters;
use turbopump_core::replica::Replica;
use turbopump_core::reply::Reply;

use crate::config::EngineConfig;
use crate::events::Events;
use crate::peers::PeerInfo;

/// What a thread asks of a reactor.
#[derive(Debug)]
pub enum Order {
    /// Accept clients from this socket; `tcp` ones must give the password.
    Listen {
        /// The listening socket.
        socket: OwnedFd,
        /// Whether it is a TCP socket.
        tcp: bool,
    },
    /// Answer the cold command with this number.
    Answer(u64, Reply),
    /// The cluster says something about the command of the client with this token.
    Outcome(u64, Outcome),
    /// Describe all members of the cluster.
    DescribePeers(SyncSender<Vec<PeerInfo>>),
    /// Compare with the peers now.
    Sync,
    /// Run a request of this process, in the pipe protocol, and tell its reply under this number.
    Execute(u64, Vec<u8>),
    /// Describe all clients.
    Describe(SyncSender<Vec<ClientInfo>>),
    /// End the client with this number, and tell whether there was one.
    Kill(u64, SyncSender<bool>),
    /// Accept no more, end what is idle, and the rest once it is answered or so many milliseconds are over.
    Drain(u64),
    /// End now.
    Stop,
}

/// A client, as CLIENT LIST shows it.
#[derive(Clone, Debug)]
pub struct ClientInfo {
    /// The connection's number.
    pub id: u64,
    /// Its descriptor.
    pub fd: i32,
    /// Its name.
    pub name: String,
    /// Its library and the library's version.
    pub library: (String, String),
    /// `resp`, `pipe` or `new`.
    pub protocol: &'static str,
    /// Where it came from: `host:port`, or `unix:` and its number.
    pub address: String,
    /// Whether it came over TCP.
    pub tcp: bool,
    /// Milliseconds since it connected.
    pub age_ms: u64,
    /// Milliseconds since it last sent something.
    pub idle_ms: u64,
    /// Bytes of replies it has not taken.
    pub unsent: usize,
}

/// The way to a reactor.
#[derive(Debug)]
pub struct Inbox {
    /// Orders it has not seen.
    pub orders: Mutex<Vec<Order>>,
    /// Makes it look.
    pub waker: Waker,
}

impl Inbox {
    /// Gives the reactor an order.
    pub fn send(&self, order: Order) {
        self.orders.lock().push(order);
        self.wake();
    }

    /// Makes the reactor look around.
    pub fn wake(&self) {
        // Fails only when the wake-up counter is full, and then it is awake already.
        let _ = self.waker.wake();
    }
}

/// Common to all threads.
#[derive(Debug)]
pub struct Shared {
    /// The configuration.
    pub config: EngineConfig,
    /// The coordinator of those who call from outside; reactors clone it with counters of their own.
    pub replica: Replica,
    /// News for the side that decides.
    pub events: Arc<Events>,
    /// The ways to the reactors.
    pub inboxes: Arc<Vec<Inbox>>,
    /// What each reactor counted.
    pub counters: Vec<Arc<Counters>>,
    /// Client connections now.
    pub connections: AtomicUsize,
    /// Client connections ever.
    pub accepted: AtomicU64,
    /// Clients turned away.
    pub turned_away: AtomicU64,
    /// The number of the next client.
    pub next_client: AtomicU64,
    /// The number of the next cold command, before the reactor's index is put in.
    pub next_ask: AtomicU64,
    /// The number of the next call that waits for a key.
    pub next_wait: AtomicU64,
    /// Reactors that have not drained.
    pub undrained: AtomicUsize,
    /// Connections that ended between two requests while draining.
    pub answered: AtomicU64,
    /// Connections that the deadline cut off.
    pub aborted: AtomicU64,
    /// How often a peer came or went.
    pub peer_changes: AtomicU64,
    /// A reactor panicked.
    pub failed: AtomicBool,
}
