//! Nodes with the real core, on one clock and over one network: what happens, and when.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock};

use turbopump_core::cluster::{Cluster, ClusterConfig, Now};
use turbopump_core::config::Limits;
use turbopump_core::keyspace::{Acks, Keyspace, Keyspaces};
use turbopump_core::layout::Member;
use turbopump_core::routes::Routes;
use turbopump_core::store::{Store, StoreConfig};
use turbopump_core::version::NodeId;
use turbopump_sim::Dice;

use crate::net::{MS, Net, Packet};
use crate::node::{Input, Running};

/// Unix milliseconds when stories begin.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// All keyspaces of all stories: routes take a while to be made, and are made once.
pub fn keyspaces() -> Keyspaces {
    let space = |prefix: &str, copies, write_acks, read_acks, datagram| {
        let prefix = prefix.as_bytes().to_vec();
        Keyspace { prefix, copies, write_acks, read_acks, datagram, ..Keyspace::default() }
    };
    Keyspaces::new(vec![
        space("one/", 3, Acks::One, Acks::One, false),
        space("quorum/", 3, Acks::Quorum, Acks::Quorum, false),
        space("everywhere/", 0, Acks::Quorum, Acks::Quorum, false),
        space("all/", 2, Acks::All, Acks::One, false),
        space("datagram/", 3, Acks::One, Acks::One, true),
    ])
}

/// The routes of a node among so many.
pub fn routes(count: usize, me: usize) -> Arc<Routes> {
    type Made = Mutex<BTreeMap<(usize, usize), Arc<Routes>>>;
    static MADE: OnceLock<Made> = OnceLock::new();
    let mut made = MADE.get_or_init(Made::default).lock().unwrap();
    let make = || {
        let member = |index: usize| Member { name: name(index), zone: String::new(), weight: 1 };
        let id = |name: &str| node_id(name[1..].parse().unwrap());
        let members = (0..count).map(member).collect();
        Arc::new(Routes::new(members, &name(me), keyspaces(), id).unwrap())
    };
    Arc::clone(made.entry((count, me)).or_insert_with(make))
}

fn name(index: usize) -> String {
    format!("n{index}")
}

fn node_id(index: usize) -> NodeId {
    NodeId(index as u64 + 1)
}

/// A node.
pub struct Node {
    pub store: Arc<Store>,
    /// What its wall clock is off by, in milliseconds.
    pub wall_off: i64,
    /// Microseconds that a turn takes.
    pub slow: u64,
    running: Option<Running>,
    turn_at: Option<u64>,
    busy_until: u64,
}

/// Something that happens.
enum Event {
    Turn(usize),
    Packet(Packet),
    Connected(usize, usize, u64),
    Closed(usize, usize, u64),
    Tend(usize, usize),
}

/// What a client sees.
pub enum Seen {
    Bytes(Vec<u8>),
    Closed,
}

/// What is to happen, by time, and in the order in which it was noted.
#[derive(Default)]
struct Agenda {
    events: BTreeMap<(u64, u64), Event>,
    counter: u64,
}

impl Agenda {
    fn push(&mut self, at: u64, event: Event) {
        self.counter += 1;
        self.events.insert((at, self.counter), event);
    }
}

/// Nodes and what is between them.
pub struct World {
    pub now: u64,
    pub net: Net,
    pub nodes: Vec<Node>,
    pub config: ClusterConfig,
    /// For clients, by token.
    pub seen: VecDeque<(u64, Seen)>,
    /// Which events happened: the same whenever a story is told.
    pub trace: u64,
    agenda: Agenda,
    dice: Dice,
    limits: Arc<Limits>,
}

fn store(index: usize) -> Arc<Store> {
    let store = Store::new(StoreConfig {
        node: node_id(index),
        hash_seed: index as u64,
        digest_secret: [7; 16],
        keyspaces: keyspaces(),
        memory_max: 0,
    });
    store.keep_tombstones(true);
    Arc::new(store)
}

impl World {
    pub fn new(count: usize, config: ClusterConfig, limits: Limits, mut dice: Dice) -> Self {
        let net = Net::new(count, dice.fork());
        let node = |index| {
            let (running, turn_at) = (None, None);
            Node { store: store(index), wall_off: 0, slow: 0, running, turn_at, busy_until: 0 }
        };
        let nodes = (0..count).map(node).collect();
        let (limits, seen, agenda) = (Arc::new(limits), VecDeque::new(), Agenda::default());
        let mut world = World { now: 0, net, nodes, config, seen, trace: 0, agenda, dice, limits };
        (0..count).for_each(|index| world.start(index));
        for (a, b) in world.pairs() {
            world.agenda.push(0, Event::Tend(a, b));
        }
        world
    }

    pub fn pairs(&self) -> Vec<(usize, usize)> {
        let count = self.nodes.len();
        (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b))).collect()
    }

    pub fn is_up(&self, node: usize) -> bool {
        self.nodes[node].running.is_some()
    }

    /// What a node knows of its peers; `None` while it is down.
    pub fn cluster(&self, node: usize) -> Option<&Cluster> {
        self.nodes[node].running.as_ref().map(|running| &running.cluster)
    }

    /// What time a node thinks it is.
    pub fn unix_ms(&self, node: usize) -> u64 {
        (EPOCH_MS + self.now / MS).saturating_add_signed(self.nodes[node].wall_off)
    }

    pub fn start(&mut self, index: usize) {
        let routes = routes(self.nodes.len(), index);
        let config = ClusterConfig { boot: self.dice.number(), ..self.config.clone() };
        let node = &mut self.nodes[index];
        let limits = Arc::clone(&self.limits);
        node.running = Some(Running::new(config, Arc::clone(&node.store), limits, routes, self.now));
        self.wake(index, self.now);
    }

    /// The node is gone, at once, and with its data if `wiped`.
    pub fn crash(&mut self, index: usize, wiped: bool) {
        let Some(running) = self.nodes[index].running.take() else { return };
        self.nodes[index].turn_at = None;
        self.seen.extend(running.doors.into_keys().map(|token| (token, Seen::Closed)));
        if wiped {
            self.nodes[index].store = store(index);
        }
        for peer in (0..self.nodes.len()).filter(|peer| *peer != index) {
            self.cut(index, peer);
            self.net.way(index, peer).believes = None;
        }
    }

    /// The connection of two nodes breaks; each finds out in its own time.
    pub fn cut(&mut self, a: usize, b: usize) {
        let Some(epoch) = self.net.pair(a, b).live.take() else { return };
        for (at, peer) in [(a, b), (b, a)] {
            let most = self.dice.pick(&[0, 100 * MS, self.net.silence]);
            let ready_at = self.net.pair(a, b).ready_at;
            let when = ready_at.max(self.now + self.dice.below(most + 1));
            self.agenda.push(when, Event::Closed(at, peer, epoch));
        }
    }

    /// Blocks one direction, or unblocks it.
    pub fn block(&mut self, from: usize, to: usize, blocked: bool) {
        for packet in self.net.block(self.now, from, to, blocked) {
            self.agenda.push(self.now, Event::Packet(packet));
        }
    }

    /// A client connects to a node that is up.
    pub fn open(&mut self, node: usize, token: u64) {
        self.nodes[node].running.as_mut().unwrap().open(token);
    }

    /// A client leaves without a word.
    pub fn leave(&mut self, node: usize, token: u64) {
        if let Some(running) = &mut self.nodes[node].running {
            running.leave(token);
            self.wake(node, self.now);
        }
    }

    /// A client sends some bytes.
    pub fn feed(&mut self, node: usize, token: u64, bytes: Vec<u8>) {
        let Some(running) = &mut self.nodes[node].running else { return };
        if let Some(door) = running.doors.get_mut(&token) {
            door.input.push_back(bytes);
            self.wake(node, self.now);
        }
    }

    fn wake(&mut self, index: usize, at: u64) {
        let node = &mut self.nodes[index];
        let at = at.max(node.busy_until).max(self.now);
        if node.turn_at.is_none_or(|before| at < before) {
            node.turn_at = Some(at);
            self.agenda.push(at, Event::Turn(index));
        }
    }

    /// Lets the next thing happen; false if there is none until then.
    pub fn step(&mut self, until: u64) -> bool {
        let next = self.agenda.events.first_entry().filter(|entry| entry.key().0 <= until);
        let Some(entry) = next else {
            self.now = self.now.max(until);
            return false;
        };
        let ((at, _), event) = entry.remove_entry();
        self.now = self.now.max(at);
        let kind = match &event {
            Event::Turn(node) => *node as u64,
            Event::Packet(packet) => 100 + (packet.to * 16 + packet.from + packet.cargo.len() * 256) as u64,
            Event::Connected(at, ..) => 50 + *at as u64,
            Event::Closed(at, ..) => 60 + *at as u64,
            Event::Tend(..) => 99,
        };
        self.trace = (self.trace ^ at ^ kind << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
        self.happen(event);
        true
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Turn(index) if self.nodes[index].turn_at == Some(self.now) => self.turn(index),
            Event::Turn(_) => {}
            Event::Packet(packet) => {
                // Its sender may have room for the next one.
                if self.is_up(packet.from) {
                    self.wake(packet.from, self.now);
                }
                if let Some(packet) = self.net.arrive(packet) {
                    self.arrive(packet.to, Input::Packet(packet));
                }
            }
            Event::Connected(at, peer, epoch) => {
                // It broke in this very moment, or the node has.
                if self.net.pair(at, peer).live != Some(epoch) || !self.is_up(at) {
                    return;
                }
                let way = self.net.way(at, peer);
                way.under_way = 0;
                if way.believes.replace(epoch).is_some() {
                    self.arrive(at, Input::Closed(peer));
                }
                self.arrive(at, Input::Connected(peer));
            }
            Event::Closed(at, peer, epoch) => {
                if self.net.way(at, peer).believes == Some(epoch) {
                    self.net.way(at, peer).believes = None;
                    self.arrive(at, Input::Closed(peer));
                }
            }
            Event::Tend(a, b) => self.tend(a, b),
        }
    }

    fn arrive(&mut self, index: usize, input: Input) {
        if let Some(running) = &mut self.nodes[index].running {
            running.inbox.push_back(input);
            self.wake(index, self.now);
        }
    }

    /// Connects two nodes, or gives up their connection when it has been silent for too long.
    fn tend(&mut self, a: usize, b: usize) {
        let pause = self.dice.between(20, 300) * MS;
        self.agenda.push(self.now + pause, Event::Tend(a, b));
        let (silence, blocked) = (self.net.silence, self.net.is_blocked(a, b));
        let live = self.net.pair(a, b).live;
        let wanted = self.net.way(a, b).believes.is_none() || self.net.way(b, a).believes.is_none();
        if live.is_none() && wanted && !blocked && self.is_up(a) && self.is_up(b) {
            let (epoch, at_a, at_b) = self.net.connect(self.now, a, b);
            self.agenda.push(at_a, Event::Connected(a, b, epoch));
            self.agenda.push(at_b, Event::Connected(b, a, epoch));
        }
        if self.net.pair(a, b).blocked_at.is_some_and(|since| since + silence < self.now) {
            self.cut(a, b);
        }
    }

    fn turn(&mut self, index: usize) {
        let unix_ms = self.unix_ms(index);
        let node = &mut self.nodes[index];
        node.turn_at = None;
        let Some(running) = &mut node.running else { return };
        let now = Now { ms: (self.now - running.began) / MS, unix_ms };
        let (world, net, agenda) = (self.now, &mut self.net, &mut self.agenda);
        let (more, next_ms) = running.turn(now, &mut self.seen, |peer, how, pieces| {
            let packets =
                if pieces.is_empty() { Vec::new() } else { net.send(world, (index, peer), how, pieces) };
            packets.into_iter().for_each(|(at, packet)| agenda.push(at, Event::Packet(packet)));
            net.takes(index, peer)
        });
        let began = running.began;
        node.busy_until = self.now + node.slow.max(20);
        if more {
            self.wake(index, self.now);
        }
        if let Some(next_ms) = next_ms {
            // At the earliest when the clock, which knows milliseconds, has moved.
            self.wake(index, (began + next_ms * MS).max(self.now + MS));
        }
    }
}
