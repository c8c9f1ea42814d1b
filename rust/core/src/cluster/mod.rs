//! The peers of a node: what it owes them, what they owe it, and the commands that wait for either. Sans-IO:
//! whoever owns the connections brings messages and the time, and takes messages and answers.

mod flow;
mod guest;
mod heal;
mod hints;
mod incoming;
mod operation;
mod peer;
mod put;
mod relay;
mod watermark;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Refusal;
use crate::message::{Hello, Message, MessageError, PROTOCOL};
use crate::outbox::{Order, Outbox};
use crate::replica::Replica;
use crate::routes::{MemberIndex, Routes};
use crate::waits::Waiter;
pub use flow::part_bytes;
use guest::Guest;
pub use guest::{CALLS, is_guest};
use incoming::Incoming;
use operation::{Fetch, Forwarded, Writes};
use peer::Peer;
pub use peer::{PeerState, PeerStats};
pub use put::pieces;
use relay::{Asking, Replying};
use watermark::Watermarks;

/// What time it is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Now {
    /// Milliseconds of a clock that never goes back.
    pub ms: u64,
    /// Unix milliseconds.
    pub unix_ms: u64,
}

/// What a cluster keeps to. `turbopump/config.py` owns names, defaults and reasons.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Which members and rules the configuration has: peers with others are refused.
    pub cluster: [u8; 16],
    /// Random at each start.
    pub boot: u64,
    /// How long a command waits for other replicas.
    pub ack_timeout_ms: u64,
    /// Bytes of keys of writes owed to one absent peer; beyond it, healing finds them.
    pub hints_max: usize,
    /// Bytes of writes that one peer has not confirmed; beyond it, writes become hints.
    pub unconfirmed_max: usize,
    /// Bytes of small entries that are sent as one message, its head included.
    pub batch_max: usize,
    /// How often peers compare what they hold.
    pub sync_ms: u64,
    /// Entries younger than this are not compared: they are on their way.
    pub settle_ms: u64,
    /// Requests of other nodes that are under way here.
    pub guests_max: usize,
}

impl Default for ClusterConfig {
    /// As `turbopump/config.py` has them; `tests/test_config.py` compares.
    fn default() -> Self {
        ClusterConfig {
            cluster: [0; 16],
            boot: 0,
            ack_timeout_ms: 2000,
            hints_max: 64 << 20,
            unconfirmed_max: 8 << 20,
            batch_max: 16 << 10,
            sync_ms: 1000,
            settle_ms: 500,
            guests_max: 10_000,
        }
    }
}

/// Who goes first on the way to a peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Urgency {
    /// What peers must know of each other.
    Control,
    /// What somebody waits for.
    Request,
    /// What answers it.
    Reply,
    /// What nobody waits for, and what is long.
    Bulk,
}

/// A message on its way out.
#[derive(Debug)]
pub struct Transmit {
    /// Who goes first.
    pub urgency: Urgency,
    /// Whether it is sent once, whatever becomes of it.
    pub datagram: bool,
    /// Its bytes, in pieces.
    pub pieces: VecDeque<Bytes>,
}

/// What a command that waited is told.
#[derive(Debug)]
pub enum Outcome {
    /// What it waited for has happened.
    Done,
    /// It has not, or will not.
    Refused(Refusal),
    /// Of its request, so many bytes may come before it hears of more.
    Room(u64),
    /// A piece of the reply to a part of it, and whether it is the last.
    Piece(u32, Bytes, bool),
    /// A part of it cannot be run, or nobody knows whether it was.
    PartRefused(u32, Refusal),
}

/// Something worth a line in the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Notice {
    /// The peer answers, and belongs to this cluster.
    Up(MemberIndex),
    /// It does not answer any more.
    Down(MemberIndex),
    /// It is to be left alone: it speaks another version, has another configuration, or nonsense.
    Refused(MemberIndex, String),
}

/// A node's peers.
#[derive(Debug)]
pub struct Cluster {
    config: ClusterConfig,
    replica: Replica,
    routes: Arc<Routes>,
    outboxes: Vec<Arc<Outbox>>,
    /// By their index as members; this node's own place is never used.
    peers: Vec<Peer>,
    // In order, wherever what is done to several shows outside: so that tests can repeat it.
    writes: BTreeMap<Waiter, Writes>,
    fetches: BTreeMap<u64, Fetch>,
    forwards: BTreeMap<u64, Forwarded>,
    /// Requests of other nodes that come in parts.
    requests: BTreeMap<(MemberIndex, u64), Asking>,
    /// Replies to requests of other nodes that are sent in parts.
    replies: BTreeMap<(MemberIndex, u64), Replying>,
    next_id: u64,
    /// When which writes (by waiter) or fetches (by number) have waited long enough.
    deadlines: BTreeSet<(u64, operation::Due)>,
    watermarks: Watermarks,
    guests: BTreeMap<u64, Guest>,
    next_guest: u64,
    /// Guests that go on at the next turn.
    ready: Vec<u64>,
    done: VecDeque<(Waiter, Outcome)>,
    notices: VecDeque<Notice>,
    /// When it began, on `Now::ms`.
    began_ms: Option<u64>,
    /// When a peer last sent a write that somebody had just made.
    fresh_ms: u64,
    now: Now,
}

impl Cluster {
    /// The peers of the node that `replica` coordinates for; `outboxes` are of all its coordinators, that of
    /// `replica` first.
    pub fn new(
        config: ClusterConfig,
        replica: Replica,
        outboxes: Vec<Arc<Outbox>>,
        routes: Arc<Routes>,
    ) -> Self {
        let (len, me) = (routes.len() as MemberIndex, routes.me());
        let settle_ms = config.settle_ms;
        let peer = |index| Peer::new(&config, heal::exchanges(&routes, index, settle_ms));
        let peers: Vec<Peer> = (0..len).map(peer).collect();
        let near: Vec<_> =
            (0..len).filter(|index| !peers[usize::from(*index)].exchanges.is_empty()).collect();
        debug_assert!(peers[usize::from(me)].exchanges.is_empty());
        let store = replica.store();
        let blank = store.usage().total().keys() == 0 && store.tombstones() == 0;
        store.set_behind(blank && !near.is_empty());
        Cluster {
            config,
            replica,
            routes,
            outboxes,
            peers,
            writes: BTreeMap::new(),
            fetches: BTreeMap::new(),
            forwards: BTreeMap::new(),
            requests: BTreeMap::new(),
            replies: BTreeMap::new(),
            next_id: 1,
            deadlines: BTreeSet::from([(0, operation::Due::Sync)]),
            watermarks: Watermarks::new(usize::from(len), near),
            guests: BTreeMap::new(),
            next_guest: 0,
            ready: Vec::new(),
            done: VecDeque::new(),
            notices: VecDeque::new(),
            began_ms: None,
            fresh_ms: 0,
            now: Now::default(),
        }
    }

    /// The other members.
    pub fn others(&self) -> impl Iterator<Item = MemberIndex> + use<> {
        let (me, len) = (self.routes.me(), self.routes.len() as MemberIndex);
        (0..len).filter(move |member| *member != me)
    }

    /// Where keys belong.
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// A peer's figures.
    pub fn peer_stats(&self, peer: MemberIndex) -> PeerStats {
        let requests = self.guests.values().filter(|guest| guest.is_of(peer)).count();
        let replies = self.replies.range((peer, 0)..=(peer, u64::MAX)).count();
        PeerStats { requests: (requests + replies) as u64, ..self.peers[usize::from(peer)].stats() }
    }

    /// The connection to a peer is there: it is greeted.
    pub fn handle_connected(&mut self, now: Now, peer: MemberIndex) {
        self.now = now;
        let hello = Hello {
            protocol: PROTOCOL,
            cluster: self.config.cluster,
            boot: self.config.boot,
            clock: self.replica.store().clock().last(),
        };
        let peer = &mut self.peers[usize::from(peer)];
        peer.greet();
        peer.send(Urgency::Control, &Message::Hello(hello));
    }

    /// The connection to a peer is over.
    pub fn handle_closed(&mut self, now: Now, peer: MemberIndex) {
        self.now = now;
        let of = &mut self.peers[usize::from(peer)];
        if of.state() == PeerState::Up {
            self.notices.push_back(Notice::Down(peer));
        }
        self.routes.set_up(peer, false);
        let lost = of.disconnect();
        for waits in lost {
            waits.into_iter().for_each(|wait| self.not_confirmed(wait, None));
        }
        self.drop_guests_of(peer);
        self.fetches_lost(peer);
        self.forwards_lost(peer);
    }

    /// A whole message of a peer.
    ///
    /// # Errors
    /// It is none; the connection is to be ended.
    pub fn handle_message(&mut self, now: Now, peer: MemberIndex, bytes: Bytes) -> Result<(), MessageError> {
        self.now = now;
        let mut incoming = Incoming::default();
        let result = match self.take_piece(peer, &mut incoming, bytes, true) {
            Ok(()) => self.take_end(peer, incoming),
            Err(error) => Err(error),
        };
        self.judge(peer, result)
    }

    /// The next piece of a message that comes in pieces, known by its number.
    ///
    /// # Errors
    /// As `handle_message`.
    pub fn handle_piece(
        &mut self,
        now: Now,
        peer: MemberIndex,
        stream: u64,
        bytes: Bytes,
    ) -> Result<(), MessageError> {
        self.now = now;
        let mut incoming = self.peers[usize::from(peer)].streams.remove(&stream).unwrap_or_default();
        let result = self.take_piece(peer, &mut incoming, bytes, false);
        self.peers[usize::from(peer)].streams.insert(stream, incoming);
        self.judge(peer, result)
    }

    /// A message that comes in pieces is complete.
    ///
    /// # Errors
    /// As `handle_message`.
    pub fn handle_end(&mut self, now: Now, peer: MemberIndex, stream: u64) -> Result<(), MessageError> {
        self.now = now;
        let incoming = self.peers[usize::from(peer)].streams.remove(&stream).unwrap_or_default();
        let result = self.take_end(peer, incoming);
        self.judge(peer, result)
    }

    /// The rest of a message that comes in pieces will not come.
    pub fn handle_dropped(&mut self, now: Now, peer: MemberIndex, stream: u64) {
        self.now = now;
        if let Some(incoming) = self.peers[usize::from(peer)].streams.remove(&stream) {
            self.take_drop(incoming);
        }
    }

    fn judge(&mut self, peer: MemberIndex, result: Result<(), MessageError>) -> Result<(), MessageError> {
        let of = &mut self.peers[usize::from(peer)];
        // What else was on its way is as bad, and says nothing new.
        if let Err(error) = &result
            && !std::mem::replace(&mut of.refused, true)
        {
            self.notices.push_back(Notice::Refused(peer, error.to_string()));
        }
        result
    }

    /// Does what the coordinators have ordered.
    pub fn handle_orders(&mut self, now: Now) {
        self.now = now;
        for index in 0..self.outboxes.len() {
            for order in self.outboxes[index].take() {
                match order {
                    Order::Wrote { key, base, wait } => self.replicate(&key, base, wait),
                    Order::Once { key, name, version, wait } => {
                        self.replicate_name(&key, &name, version, wait);
                    }
                    Order::Sealed(waiter) => self.sealed(waiter),
                    Order::Fetch { key, acks, waiter } => self.fetch(key, acks, waiter),
                    Order::Forward(forward) => self.forward(forward),
                    Order::More { id, pieces, last } => self.request_goes_on(id, pieces, last),
                    Order::Taken { id, upto } => self.reply_taken(id, upto),
                    Order::Leave(ids) => self.leave(ids),
                }
            }
        }
        self.peers.iter_mut().for_each(|peer| peer.send_batch(now.ms));
    }

    /// Ends what has waited long enough.
    pub fn handle_timeout(&mut self, now: Now) {
        self.now = now;
        while let Some((at_ms, due)) = self.deadlines.first().copied() {
            if at_ms > now.ms {
                break;
            }
            self.deadlines.pop_first();
            self.overdue(due);
        }
    }

    /// When to call `handle_timeout` at the latest.
    pub fn poll_timeout(&self) -> Option<u64> {
        let deadline = self.deadlines.first().map(|(at_ms, _)| *at_ms);
        self.peers.iter().filter_map(Peer::poll_timeout).chain(deadline).min()
    }

    /// Does a bounded piece of what takes long and somebody waits for: requests of other nodes. Returns
    /// whether there is more to be done now.
    pub fn work(&mut self, now: Now) -> bool {
        self.now = now;
        self.advance_guests();
        self.resume_guests();
        self.peers.iter_mut().for_each(|peer| peer.send_batch(now.ms));
        !self.ready.is_empty()
    }

    /// Does a bounded piece, some tens of microseconds, of what nobody waits for: hints and healing. Returns
    /// whether there is more to be done now.
    pub fn heal(&mut self, now: Now) -> bool {
        self.now = now;
        let hints = self.deliver_hints();
        let healing = self.heal_some();
        self.peers.iter_mut().for_each(|peer| peer.send_batch(now.ms));
        hints || healing
    }

    /// When a peer last sent a write that somebody had just made, on `Now::ms`: clients are at work then.
    pub fn fresh_ms(&self) -> u64 {
        self.fresh_ms
    }

    /// The next message to a peer.
    pub fn poll_transmit(&mut self, peer: MemberIndex) -> Option<Transmit> {
        self.peers[usize::from(peer)].out.pop_front()
    }

    /// The next answer to a command that waits.
    pub fn poll_done(&mut self) -> Option<(Waiter, Outcome)> {
        while let Some((waiter, outcome)) = self.done.pop_front() {
            if !self.is_mine(waiter) {
                return Some((waiter, outcome));
            }
            self.advance_guest(waiter.client, outcome);
        }
        None
    }

    /// The next line for the log.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    fn handle_hello(&mut self, peer: MemberIndex, hello: Hello) -> Result<(), MessageError> {
        if hello.protocol != PROTOCOL {
            return Err(MessageError::Bad("it speaks another version: update the older of the two"));
        }
        if hello.cluster != self.config.cluster {
            return Err(MessageError::Bad(
                "its cluster.json differs from this node's: give both the same file and restart them",
            ));
        }
        self.replica.store().clock().observe(hello.clock, self.now.unix_ms);
        let of = &mut self.peers[usize::from(peer)];
        if of.boot != Some(hello.boot) {
            self.watermarks.forget(peer);
        }
        (of.greeted, of.boot) = (true, Some(hello.boot));
        of.send(Urgency::Control, &Message::Welcome);
        Ok(())
    }

    fn handle_welcome(&mut self, peer: MemberIndex) {
        self.peers[usize::from(peer)].welcomed();
        self.routes.set_up(peer, true);
        self.notices.push_back(Notice::Up(peer));
        self.fetch_from(peer);
        self.compare_with(peer, self.routes.me() < peer);
    }

    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::feed::Feed;
    use crate::keyspace::Keyspaces;
    use crate::layout::{LayoutError, Member};
    use crate::store::{Store, StoreConfig};
    use crate::version::NodeId;
    use crate::waits::Waits;

    /// What node a knows of itself and the others of `names`, which are away.
    pub fn cluster(names: &[&str], feed: &Arc<Feed>) -> Result<Cluster, LayoutError> {
        let member = |name: &&str| Member { name: (*name).into(), weight: 1, zone: String::new() };
        let members = names.iter().map(member).collect();
        let routes = Arc::new(Routes::new(members, "a", Keyspaces::default(), |_| NodeId(1))?);
        let store = Arc::new(Store::new(StoreConfig {
            node: NodeId(1),
            hash_seed: 1,
            digest_secret: [0; 16],
            keyspaces: Keyspaces::default(),
            memory_max: 0,
        }));
        store.keep_tombstones(true);
        let outbox = Arc::new(Outbox::new(Arc::clone(&routes), 0, Arc::new(|| {})));
        let waits = Arc::new(Waits::new(1, Box::new(|_| {})));
        let replica = Replica::new(store, waits, Arc::new(Limits::default()))
            .with_outbox(Arc::clone(&outbox))
            .with_feed(Arc::clone(feed));
        Ok(Cluster::new(ClusterConfig::default(), replica, vec![outbox], routes))
    }

    #[test]
    fn a_peer_is_refused_once_in_each_connection() -> Result<(), LayoutError> {
        let mut cluster = cluster(&["a", "b"], &Arc::default())?;
        let hello = Hello { protocol: PROTOCOL, cluster: [1; 16], boot: 1, clock: 1 };
        for _ in 0..2 {
            cluster.handle_connected(Now::default(), 1);
            for message in [Message::Hello(hello), Message::Welcome, Message::Promise { stamp: 1 }] {
                assert!(cluster.handle_message(Now::default(), 1, message.to_bytes()).is_err());
            }
            assert!(cluster.handle_end(Now::default(), 1, 7).is_err());
            let Some(Notice::Refused(1, why)) = cluster.poll_notice() else { panic!("it was not refused") };
            assert!(why.contains("cluster.json differs"), "{why}");
            assert_eq!(cluster.poll_notice(), None);
            cluster.handle_closed(Now::default(), 1);
        }
        Ok(())
    }
}
