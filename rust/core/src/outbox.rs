//! What a coordinator hands to the cluster: writes to be replicated, keys to be fetched, requests for others.
//! Each thread that coordinates has one; the thread that owns the peers takes from all. Not the peers.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::keyspace::Acks;
use crate::routes::{MemberIndex, Routes};
use crate::version::Version;
use crate::waits::Waiter;

/// Orders after which commands wait for the cluster: some milliseconds of its work.
const ORDERS_MAX: usize = 16_384;

/// Something for the cluster to do.
#[derive(Debug)]
pub enum Order {
    /// A key was written or deleted here: the other replicas are due what it is now.
    Wrote {
        /// The key.
        key: Box<[u8]>,
        /// What the write replaced: who has something else has something concurrent. `None` if it was
        /// written before, and is sent again.
        base: Option<Version>,
        /// Who waits, if anybody does.
        wait: Option<(Waiter, Acks)>,
    },
    /// A write with a name was done: the other replicas are to know it by that.
    Once {
        /// The key.
        key: Box<[u8]>,
        /// The name.
        name: Box<[u8]>,
        /// What it came to.
        version: Version,
        /// Who waits, if anybody does.
        wait: Option<(Waiter, Acks)>,
    },
    /// The command has written all that it writes: answer once the writes before are known well enough.
    Sealed(Waiter),
    /// Bring what the other replicas have of a key here, and answer then.
    Fetch {
        /// The key.
        key: Box<[u8]>,
        /// How many replicas must have been asked.
        acks: Acks,
        /// Who waits.
        waiter: Waiter,
    },
    /// Have one of these members run a request, and answer what it answers.
    Forward(Forward),
    /// More of the request with this number.
    More {
        /// The number.
        id: u64,
        /// Its next bytes.
        pieces: Vec<Bytes>,
        /// Whether that is all of it.
        last: bool,
    },
    /// The client has taken so many bytes of the reply to the request with this number, from its beginning.
    Taken {
        /// The number.
        id: u64,
        /// Bytes.
        upto: u64,
    },
    /// Nobody waits for the replies to the requests with these numbers.
    Leave(Range<u64>),
}

/// A request for another node.
#[derive(Debug)]
pub struct Forward {
    /// Its number, as `Outbox::number` gave it.
    pub id: u64,
    /// Who waits.
    pub waiter: Waiter,
    /// Which of several requests of one command this is.
    pub part: u32,
    /// Who may run it, the best first.
    pub to: Vec<MemberIndex>,
    /// Whether it changes nothing, so that another one may be asked when the first does not answer.
    pub reads: bool,
    /// How the reply is to be written.
    pub wire: Wire,
    /// The request as a client would send it.
    pub request: VecDeque<Bytes>,
    /// Whether there is more of it, which comes as `Order::More`.
    pub open: bool,
}

/// The protocol of a request, and how its reply is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wire {
    /// Redis's second version.
    Resp2,
    /// Its third.
    Resp3,
    /// The pipe protocol, raw.
    Pipe,
    /// The same, with lengths.
    PipeFramed,
}

/// Tells the thread that owns the peers that there is something to do.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// The orders of one coordinator.
pub struct Outbox {
    routes: Arc<Routes>,
    orders: Mutex<Vec<Order>>,
    wake: Wake,
    reactor: usize,
    /// Who runs the command under way: commands of one coordinator run one at a time.
    token: AtomicU64,
    /// What that command asks for: 0 is what the keyspace says, else `Acks` and one.
    asked: AtomicU8,
    /// Whether that command has written what is to be waited for.
    waiting: AtomicBool,
    /// Of the next request for another node: no other coordinator of this node has the same.
    next: AtomicU64,
}

impl Outbox {
    /// The outbox of the coordinator number `reactor`.
    pub fn new(routes: Arc<Routes>, reactor: usize, wake: Wake) -> Self {
        Outbox {
            routes,
            orders: Mutex::default(),
            wake,
            reactor,
            token: AtomicU64::new(0),
            asked: AtomicU8::new(0),
            waiting: AtomicBool::new(false),
            next: AtomicU64::new((reactor as u64) << 48),
        }
    }

    /// Where keys belong.
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// A command begins, or goes on, for the client with this token; `acks` as it asks itself.
    pub fn begin(&self, token: u64, acks: Option<Acks>) {
        self.token.store(token, Relaxed);
        self.asked.store(acks.map_or(0, |acks| acks as u8 + 1), Relaxed);
        self.waiting.store(false, Relaxed);
    }

    /// The command wrote `key` over the version `base`.
    pub fn wrote(&self, key: &[u8], base: Option<Version>) {
        if self.routes.len() > 1 {
            let wait = self.wait_for(key);
            self.push(Order::Wrote { key: key.into(), base, wait });
        }
    }

    /// The command did the write of this name to `key`, or found it done `before`.
    pub fn did_once(&self, key: &[u8], name: &[u8], version: Version, before: bool) {
        if self.routes.len() < 2 {
            return;
        }
        let wait = self.wait_for(key);
        self.push(Order::Once { key: key.into(), name: name.into(), version, wait });
        if before {
            // Whoever was waiting for the others then may have been told that they do not have it.
            self.wrote(key, None);
        }
    }

    /// Who waits for replicas of `key`, and for how many of them, if the command does.
    fn wait_for(&self, key: &[u8]) -> Option<(Waiter, Acks)> {
        let acks = match self.asked.load(Relaxed) {
            0 => self.routes.rules(key).write_acks,
            1 => Acks::One,
            2 => Acks::Quorum,
            _ => Acks::All,
        };
        let wait = (acks != Acks::One).then(|| (self.waiter(), acks));
        if wait.is_some() {
            self.waiting.store(true, Relaxed);
        }
        wait
    }

    /// Whether the command has written, since it began or went on, what is to be waited for.
    pub fn waits(&self) -> bool {
        self.waiting.load(Relaxed)
    }

    /// The command has written all that it writes, and waits.
    pub fn seal(&self) {
        self.push(Order::Sealed(self.waiter()));
    }

    /// Whether so much is to be done that commands should wait.
    pub fn is_full(&self) -> bool {
        self.orders.lock().len() >= ORDERS_MAX
    }

    /// Who runs the command under way.
    pub fn waiter(&self) -> Waiter {
        self.waiter_of(self.token.load(Relaxed))
    }

    /// The waiter that the client with this token is.
    pub fn waiter_of(&self, token: u64) -> Waiter {
        Waiter { reactor: self.reactor, client: token }
    }

    /// Numbers for so many requests to other nodes, the first of them.
    pub fn number(&self, count: u64) -> u64 {
        self.next.fetch_add(count, Relaxed)
    }

    /// Gives an order.
    pub fn push(&self, order: Order) {
        let mut orders = self.orders.lock();
        orders.push(order);
        let first = orders.len() == 1;
        drop(orders);
        if first {
            (self.wake)();
        }
    }

    /// Takes all orders.
    pub fn take(&self) -> Vec<Order> {
        std::mem::take(&mut self.orders.lock())
    }
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").field("reactor", &self.reactor).finish_non_exhaustive()
    }
}
