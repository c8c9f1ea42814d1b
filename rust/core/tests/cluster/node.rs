//! One node as its reactor would run it: peers and clients have their turns. Not the network.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use turbopump_core::client::Client;
use turbopump_core::cluster::{Cluster, ClusterConfig, Notice, Now, Urgency, is_guest};
use turbopump_core::config::Limits;
use turbopump_core::outbox::Outbox;
use turbopump_core::output::Output;
use turbopump_core::replica::Replica;
use turbopump_core::routes::{MemberIndex, Routes};
use turbopump_core::session::{Flow, Session, World};
use turbopump_core::store::Store;
use turbopump_core::waits::{Waiter, Waits};

use crate::net::{Cargo, Packet};
use crate::world::Seen;

/// Turns of the peers before clients have theirs, as in the engine.
const TURNS: usize = 4;
/// How often what has passed is collected.
const COLLECT_MS: u64 = 500;

/// What comes to a node between its turns.
pub enum Input {
    Connected(usize),
    Closed(usize),
    Packet(Packet),
}

/// A client's connection, on the node's side.
pub struct Door {
    pub input: VecDeque<Vec<u8>>,
    session: Session,
    out: Output,
    stage: Stage,
}

#[derive(Debug, Eq, PartialEq)]
enum Stage {
    Reading,
    Yielding,
    Remote,
    /// For this key, until then.
    Waiting(Vec<u8>, u64),
    /// The reply of another node broke off in the middle.
    Closed,
}

/// What a node forgets when it crashes.
pub struct Running {
    pub cluster: Cluster,
    pub began: u64,
    pub doors: BTreeMap<u64, Door>,
    pub inbox: VecDeque<Input>,
    replica: Replica,
    /// Something was ordered of the cluster.
    ordered: Arc<AtomicBool>,
    collect_ms: u64,
    cursor: u64,
}

impl Running {
    pub fn new(
        config: ClusterConfig,
        store: Arc<Store>,
        limits: Arc<Limits>,
        routes: Arc<Routes>,
        began: u64,
    ) -> Self {
        let waits = Arc::new(Waits::new(1000, Box::new(|_| {})));
        let ordered = Arc::new(AtomicBool::new(false));
        let wakes = Arc::clone(&ordered);
        let wake = Arc::new(move || wakes.store(true, Relaxed));
        let outbox = Arc::new(Outbox::new(Arc::clone(&routes), 0, wake));
        let replica = Replica::new(store, waits, limits).with_outbox(Arc::clone(&outbox));
        let cluster = Cluster::new(config, replica.clone(), vec![outbox], routes);
        let (doors, inbox) = (BTreeMap::new(), VecDeque::new());
        Running { cluster, began, doors, inbox, replica, ordered, collect_ms: 0, cursor: 0 }
    }

    pub fn open(&mut self, token: u64) {
        let mut client = Client::new(token, None);
        client.token = token;
        let session = Session::new(client);
        let (input, out) = (VecDeque::new(), Output::default());
        self.doors.insert(token, Door { input, session, out, stage: Stage::Reading });
    }

    pub fn leave(&mut self, token: u64) {
        let Some(door) = self.doors.remove(&token) else { return };
        door.session.forsake(&self.replica);
        let waiter = Waiter { reactor: 0, client: token };
        if let Stage::Waiting(key, _) = &door.stage {
            self.replica.waits().cancel(key, waiter);
        }
    }

    /// Does what is due. `send` takes a message to a peer, whether it is ordered and whether it is sent once,
    /// and tells whether it takes another. Returns whether there is more to do now, and when there is.
    pub fn turn(
        &mut self,
        now: Now,
        seen: &mut VecDeque<(u64, Seen)>,
        mut send: impl FnMut(usize, (bool, bool), VecDeque<Bytes>) -> bool,
    ) -> (bool, Option<u64>) {
        self.take_inbox(now);
        let mut more = self.serve(now);
        for turn in 0..TURNS {
            self.cluster.handle_orders(now);
            self.cluster.handle_timeout(now);
            more |= self.cluster.work(now) | self.cluster.heal(now);
            for peer in self.cluster.others() {
                let at = usize::from(peer);
                while send(at, (false, false), VecDeque::new()) {
                    let Some(transmit) = self.cluster.poll_transmit(peer) else { break };
                    send(at, (transmit.urgency == Urgency::Control, transmit.datagram), transmit.pieces);
                }
            }
            let answered = self.answer(now);
            more |= self.serve(now);
            if !answered {
                break;
            }
            more |= turn + 1 == TURNS;
        }
        while let Some(notice) = self.cluster.poll_notice() {
            assert!(!matches!(notice, Notice::Refused(..)), "{notice:?}");
        }
        let has_passing = self.replica.store().has_passing();
        if now.ms >= self.collect_ms && has_passing {
            (self.cursor, _) = self.replica.store().collect(self.cursor, 4096, now.unix_ms);
            self.collect_ms = now.ms + COLLECT_MS;
        }
        self.take_output(seen);
        let waits = self.doors.values().filter_map(Door::due_ms).min();
        let collect = has_passing.then_some(self.collect_ms);
        let due = [self.cluster.poll_timeout(), waits, collect].into_iter().flatten().min();
        // What clients were told may have made them order something.
        (self.ordered.swap(false, Relaxed) || more, due)
    }

    fn take_inbox(&mut self, now: Now) {
        let cluster = &mut self.cluster;
        for input in std::mem::take(&mut self.inbox) {
            match input {
                Input::Connected(peer) => cluster.handle_connected(now, peer as MemberIndex),
                Input::Closed(peer) => cluster.handle_closed(now, peer as MemberIndex),
                Input::Packet(Packet { from, cargo, .. }) => {
                    let peer = from as MemberIndex;
                    let taken = match cargo {
                        Cargo::Whole(bytes) | Cargo::Datagram(bytes) => {
                            cluster.handle_message(now, peer, bytes)
                        }
                        Cargo::Piece(stream, bytes) => cluster.handle_piece(now, peer, stream, bytes),
                        Cargo::End(stream) => cluster.handle_end(now, peer, stream),
                    };
                    taken.unwrap();
                }
            }
        }
    }

    /// Gives clients what they waited for; returns whether there was any.
    fn answer(&mut self, now: Now) -> bool {
        let mut any = false;
        while let Some((waiter, outcome)) = self.cluster.poll_done() {
            any = true;
            let Some(door) = self.doors.get_mut(&waiter.client) else { continue };
            if door.session.is_sending() {
                door.session.hear(outcome);
            } else if door.stage == Stage::Remote {
                let step =
                    |session: &mut Session, world: &mut World<'_>| session.handle_outcome(outcome, world);
                door.run(waiter.client, &self.replica, now, step);
            }
        }
        for token in self.replica.waits().take_ready(0) {
            any = true;
            if is_guest(token) {
                self.cluster.handle_appeared(now, token, false);
            } else if let Some(door) = self.doors.get_mut(&token).filter(|door| door.due_ms().is_some()) {
                door.wake(token, &self.replica, now, false);
            }
        }
        any
    }

    /// Lets clients go on that can; returns whether some can once more.
    fn serve(&mut self, now: Now) -> bool {
        let mut more = false;
        for (&token, door) in &mut self.doors {
            if door.due_ms().is_some_and(|due_ms| due_ms <= now.ms) {
                door.wake(token, &self.replica, now, true);
            }
            if door.stage == Stage::Yielding {
                door.run(token, &self.replica, now, Session::resume);
            }
            while door.stage == Stage::Reading
                && door.session.has_room(&self.replica)
                && let Some(bytes) = door.input.pop_front()
            {
                let step =
                    |session: &mut Session, world: &mut World<'_>| session.handle_input(&bytes, false, world);
                door.run(token, &self.replica, now, step);
            }
            more |= door.stage == Stage::Yielding;
        }
        more
    }

    fn take_output(&mut self, seen: &mut VecDeque<(u64, Seen)>) {
        for (&token, door) in &mut self.doors {
            let mut bytes = Vec::new();
            while !door.out.is_empty() {
                let count = door.out.front().len();
                bytes.extend_from_slice(door.out.front());
                door.out.advance(count);
            }
            if !bytes.is_empty() {
                seen.push_back((token, Seen::Bytes(bytes)));
            }
            // It takes all that it is sent.
            door.session.handle_sent(0, &self.replica);
            if door.stage == Stage::Closed {
                seen.push_back((token, Seen::Closed));
            }
        }
        self.doors.retain(|_, door| door.stage != Stage::Closed);
    }
}

impl Door {
    /// Until when it waits for a key.
    fn due_ms(&self) -> Option<u64> {
        match &self.stage {
            Stage::Waiting(_, due_ms) => Some(*due_ms),
            _ => None,
        }
    }

    fn wake(&mut self, token: u64, replica: &Replica, now: Now, over: bool) {
        if let Stage::Waiting(key, _) = &self.stage {
            replica.waits().cancel(key, Waiter { reactor: 0, client: token });
        }
        self.run(token, replica, now, |session, world| session.handle_wait(over, world));
    }

    fn run(
        &mut self,
        token: u64,
        replica: &Replica,
        now: Now,
        step: impl FnOnce(&mut Session, &mut World<'_>) -> Flow,
    ) {
        let mut world = World { replica, now_ms: now.unix_ms, random: 1, out: &mut self.out };
        let mut flow = step(&mut self.session, &mut world);
        loop {
            flow = match flow {
                Flow::Read => return self.stage = Stage::Reading,
                Flow::Yield => return self.stage = Stage::Yielding,
                Flow::Remote => return self.stage = Stage::Remote,
                Flow::Wait(key, timeout_ms) => {
                    let due_ms = match (&self.stage, timeout_ms) {
                        (Stage::Waiting(_, due_ms), None) => *due_ms,
                        _ => now.ms + timeout_ms.unwrap_or_default(),
                    };
                    let waiter = Waiter { reactor: 0, client: token };
                    assert!(replica.waits().wait(&key, waiter), "too many wait");
                    match self.session.handle_wait(false, &mut world) {
                        Flow::Wait(..) => return self.stage = Stage::Waiting(key, due_ms),
                        flow => {
                            replica.waits().cancel(&key, waiter);
                            flow
                        }
                    }
                }
                Flow::Close if self.stage == Stage::Remote => return self.stage = Stage::Closed,
                flow @ (Flow::Close | Flow::Linger | Flow::Ask(_) | Flow::Watch(_)) => {
                    panic!("client {token}: {flow:?} after {:?}", self.session)
                }
            };
        }
    }
}
