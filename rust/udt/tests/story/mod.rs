//! A story from a seed: links with faults, messages of all kinds, and what must hold at every step.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics where it stands"
)]

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use turbopump_sim::{Dice, LinkConfig, Loss};
use turbopump_udt::config::Algorithm;
use turbopump_udt::error::SendError;
use turbopump_udt::{Class, Config, ConnectionId, Event, MessageId, Options};

use crate::world::World;

const SECOND: u64 = 1_000_000_000;

/// A message as its sender knows it.
#[derive(Debug)]
struct Sent {
    pattern: u8,
    len: usize,
    group: Option<u32>,
    /// May never arrive: it has a time to live, or is cancelled or refused.
    optional: bool,
    /// Bytes that are not yet written.
    rest: Rest,
    arrived: usize,
    done: bool,
    acknowledged: bool,
}

/// Bytes that are shown as their number.
struct Rest(Bytes);

impl std::fmt::Debug for Rest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.len())
    }
}

/// One side of the story.
#[derive(Default)]
struct Side {
    sent: HashMap<u64, Sent>,
    /// The last message of each group that arrived from this side.
    last: HashMap<u32, u64>,
    writing: Vec<u64>,
    datagrams_sent: HashSet<Vec<u8>>,
    open: usize,
}

/// A story under way.
pub struct Story {
    world: World,
    dice: Dice,
    config: Config,
    sides: [Side; 2],
    links: (usize, usize),
    nonces: std::rc::Rc<std::cell::RefCell<HashSet<[u8; 11]>>>,
    rebinds: u16,
}

fn fill(pattern: u8, from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|at| pattern.wrapping_add((at as u32).wrapping_mul(0x9e37_79b1) as u8)).collect()
}

fn config(dice: &mut Dice) -> Config {
    let mut config = Config {
        window: dice.pick(&[256 << 10, 1 << 20, 16 << 20]),
        message_window: dice.pick(&[32 << 10, 128 << 10, 4 << 20]),
        messages: dice.pick(&[8, 64, 1024]),
        send_buffer: dice.pick(&[256 << 10, 4 << 20]),
        datagram_max: dice.pick(&[1200, 1472, 9000]),
        congestion: dice.pick(Algorithm::ALL),
        ecn: dice.chance(0.7),
        aes: dice.chance(0.7),
        // Bursts of loss may be long where little is sent.
        silence_max: Duration::from_secs(30),
        rekey_after: Duration::from_secs(dice.pick(&[2, 120])),
        ..Config::default()
    };
    config.duplicates.classes = dice.pick(&[0, 2]);
    config.rekey_after_packets = dice.pick(&[100, 1 << 30]);
    config
}

fn link(dice: &mut Dice) -> LinkConfig {
    let delay = Duration::from_micros(dice.pick(&[50, 1_000, 10_000, 50_000]));
    let loss = match dice.below(4) {
        0 => Loss::None,
        1 => Loss::Random(dice.pick(&[0.001, 0.01, 0.05])),
        2 => Loss::Random(0.2),
        _ => Loss::Bursts { enter: 0.01, leave: 0.3, lost: 0.7 },
    };
    LinkConfig {
        rate: dice.pick(&[0, 250_000, 12_500_000, 125_000_000]),
        queue: dice.pick(&[20_000, 200_000, 0]),
        delay,
        jitter: delay * dice.below(2) as u32,
        loss,
        reorder: dice.pick(&[0.0, 0.0, 0.05]),
        held: delay,
        duplicate: dice.pick(&[0.0, 0.0, 0.05]),
        corrupt: dice.pick(&[0.0, 0.0, 0.02]),
        mtu: dice.pick(&[0, 1250, 1472, 1500]),
        mark_above: dice.pick(&[0, 30_000]),
        bleach: dice.chance(0.2),
        outages: Vec::new(),
        overhead: 28,
    }
}

impl Story {
    /// The story of a seed.
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let config = config(&mut dice);
        let mut world = World::new(dice.number());
        world.add(config.clone());
        world.add(config.clone());
        let (there, back) = (link(&mut dice), link(&mut dice));
        let links = world.connect_links(0, 1, &there, &back);
        let nonces = std::rc::Rc::new(std::cell::RefCell::new(HashSet::new()));
        let seen = std::rc::Rc::clone(&nonces);
        world.watch = Some(Box::new(move |node, datagram| {
            if let Some(header) = datagram.first_chunk::<12>().filter(|header| header[0] == 0x54) {
                let mut nonce = [node as u8; 11];
                nonce[1..].copy_from_slice(&header[2..]);
                assert!(seen.borrow_mut().insert(nonce), "node {node} used a nonce twice");
            }
        }));
        Story { world, dice, config, sides: Default::default(), links, nonces, rebinds: 0 }
    }

    /// Tells it to the end.
    pub fn run(mut self) {
        self.world.connect(0, 1);
        if self.dice.chance(0.3) {
            self.world.connect(1, 0);
        }
        for _ in 0..self.dice.between(5, 40) {
            let at = self.dice.below(2) as usize;
            self.act(at);
            self.world.drain(at);
            let pause = self.dice.pick(&[0, 1, 20, 200]) * 1_000_000;
            self.run_for(self.dice.clone().below(pause + 1));
        }
        for link in [self.links.0, self.links.1] {
            self.world.net.link(link).config.outages.clear();
        }
        let end = self.world.net.now() + 600 * SECOND;
        while self.sides.iter().any(|side| side.open > 0) {
            assert!(self.step(end), "no progress: {}", self.state());
        }
        self.check_end();
    }

    fn state(&mut self) -> String {
        let open = self.sides.iter().map(|side| side.open).collect::<Vec<_>>();
        let stats = [(0, 1), (1, 0)].map(|(a, b)| self.world.connection(a, b).map(|c| c.stats()));
        let missing = |side: &Side| {
            let mut missing: Vec<_> = side.sent.iter().filter(|(_, sent)| !sent.done).collect();
            missing.sort_by_key(|(id, _)| **id);
            missing.into_iter().map(|(id, sent)| format!("{id}: {sent:?}")).collect::<Vec<_>>()
        };
        let missing = self.sides.each_ref().map(missing);
        format!("{open:?} messages are missing at {:?}: {missing:#?}; {stats:?}", self.world.now())
    }

    fn act(&mut self, at: usize) {
        match self.dice.below(20) {
            0..=9 => self.send(at),
            10..=12 => self.begin(at),
            13 => self.cancel(at),
            14..=15 => self.send_datagram(at),
            16 => self.fail(),
            17 => self.rebind(at),
            _ => {
                for _ in 0..20 {
                    self.send(at);
                }
            }
        }
    }

    fn options(&mut self) -> Options {
        let mut options = Options::new(self.dice.pick(&Class::ALL));
        options.ordered_group = self.dice.chance(0.4).then(|| self.dice.below(2) as u32);
        options.ttl = self.dice.chance(0.1).then(|| Duration::from_millis(self.dice.below(300)));
        options
    }

    fn send(&mut self, at: usize) {
        let (options, pattern) = (self.options(), self.dice.number() as u8);
        let limit = self.dice.pick(&[1, 100, 2_000, 60_000]);
        let len = self.dice.below(limit) as usize;
        let Some(connection) = self.world.connection(at, 1 - at) else { return };
        match connection.send(options, Bytes::from(fill(pattern, 0, len))) {
            Ok(id) => self.note(at, id, options, pattern, len, Bytes::new()),
            Err(error) => assert_eq!(error, SendError::Full),
        }
    }

    fn begin(&mut self, at: usize) {
        let (options, pattern) = (self.options(), self.dice.number() as u8);
        let limit = self.dice.pick(&[10_000, 400_000, 1_000_000]);
        let len = self.dice.below(limit) as usize;
        let Some(connection) = self.world.connection(at, 1 - at) else { return };
        if let Ok(id) = connection.open(options) {
            self.note(at, id, options, pattern, len, Bytes::from(fill(pattern, 0, len)));
            self.sides[at].writing.push(id.0);
            self.write(at);
        }
    }

    fn note(&mut self, at: usize, id: MessageId, options: Options, pattern: u8, len: usize, rest: Bytes) {
        let optional = options.ttl.is_some();
        let group = options.ordered_group;
        let sent = Sent {
            pattern,
            len,
            group,
            optional,
            rest: Rest(rest),
            arrived: 0,
            done: false,
            acknowledged: false,
        };
        assert!(self.sides[at].sent.insert(id.0, sent).is_none(), "a message number was used twice");
        self.sides[at].open += usize::from(!optional);
    }

    /// Writes what has room.
    fn write(&mut self, at: usize) {
        let ids = self.sides[at].writing.clone();
        for id in ids {
            let Some(connection) = self.world.connection(at, 1 - at) else { return };
            let Some(sent) = self.sides[at].sent.get_mut(&id) else { continue };
            let written = connection.write(MessageId(id), &mut sent.rest.0);
            if written.is_err() || sent.rest.0.is_empty() {
                let finished = connection.finish(MessageId(id));
                assert!(finished.is_ok() || sent.optional, "{finished:?}");
                self.sides[at].writing.retain(|other| *other != id);
            }
        }
    }

    fn cancel(&mut self, at: usize) {
        let count = self.sides[at].sent.len() as u64;
        let id = self.dice.below(count + 1);
        let Some(connection) = self.world.connection(at, 1 - at) else { return };
        if connection.cancel(MessageId(id)).is_ok() {
            self.give_up(at, id);
        }
    }

    /// A message need not arrive any more.
    fn give_up(&mut self, at: usize, id: u64) {
        let side = &mut self.sides[at];
        if let Some(sent) = side.sent.get_mut(&id).filter(|sent| !sent.optional) {
            sent.optional = true;
            side.open -= usize::from(!sent.done);
        }
    }

    fn send_datagram(&mut self, at: usize) {
        let len = self.dice.between(8, 1100) as usize;
        let mut data = fill(0, 0, len);
        data[..8].copy_from_slice(&self.dice.number().to_le_bytes());
        let Some(connection) = self.world.connection(at, 1 - at) else { return };
        connection.send_datagram(Bytes::from(data.clone())).unwrap();
        self.sides[at].datagrams_sent.insert(data);
    }

    /// Nothing passes for a while, or large packets do not.
    fn fail(&mut self) {
        let link = self.dice.pick(&[self.links.0, self.links.1]);
        let (now, length) = (self.world.net.now(), self.dice.below(2 * SECOND));
        let black_hole = self.dice.chance(0.3);
        let config = &mut self.world.net.link(link).config;
        if black_hole {
            config.mtu = 1250;
        } else {
            config.outages.push(now..now + length);
        }
    }

    fn rebind(&mut self, at: usize) {
        // Only once both have an address for each other, and with one of them in place.
        let connected = |node: &crate::world::Node| node.events.iter().any(|e| e.1 == Event::Connected);
        if !self.world.nodes.iter().all(connected) || at == 1 {
            return;
        }
        self.rebinds += 1;
        let address = self.world.nodes[at].address;
        let outside = SocketAddr::from(([172, 16, 0, self.rebinds as u8], 9000 + self.rebinds));
        self.world.net.rebind(address, outside);
    }

    fn run_for(&mut self, nanos: u64) {
        let until = self.world.net.now() + nanos;
        while self.step(until) {}
    }

    fn step(&mut self, until: u64) -> bool {
        let moved = self.world.step(until);
        for at in 0..2 {
            for (id, event) in self.take_events(at) {
                self.handle(at, id, event);
            }
            if let Some(connection) = self.world.connection(at, 1 - at) {
                let stats = connection.stats();
                assert!(stats.receive_buffered <= self.config.window, "{stats:?}");
                assert!(stats.send_buffered <= self.config.send_buffer, "{stats:?}");
            }
        }
        moved
    }

    /// All new events but the news that there is a connection, which `rebind` looks for.
    fn take_events(&mut self, at: usize) -> Vec<(ConnectionId, Event)> {
        let events = &mut self.world.nodes[at].events;
        if events.iter().all(|(_, event)| *event == Event::Connected) {
            return Vec::new();
        }
        let (kept, new) = events.drain(..).partition(|(_, event)| *event == Event::Connected);
        *events = kept;
        new
    }

    fn handle(&mut self, at: usize, _: ConnectionId, event: Event) {
        match event {
            Event::Message { id, data, .. } => {
                self.receive(at, id, &data);
                self.complete(at, id);
                self.consume(at, id, data.len());
            }
            Event::MessageData { id, data } => {
                self.receive(at, id, &data);
                self.consume(at, id, data.len());
                if self.dice.chance(0.002) {
                    self.give_up(1 - at, id.0);
                    let connection = self.world.connection(at, 1 - at).unwrap();
                    connection.refuse(id);
                    self.world.drain(at);
                }
            }
            Event::MessageEnd { id } => self.complete(at, id),
            Event::GivenUp { id } => self.give_up(at, id.0),
            Event::Acknowledged { id } => {
                let sent = self.sides[at].sent.get_mut(&id.0).unwrap();
                assert!(!std::mem::replace(&mut sent.acknowledged, true), "acknowledged twice");
            }
            Event::Sendable => {
                self.write(at);
                self.world.drain(at);
            }
            Event::Datagram(data) => {
                // A link that duplicates does not make two of one: the replay window is there for that.
                assert!(self.sides[1 - at].datagrams_sent.remove(&data[..]), "a datagram from nowhere");
            }
            Event::Closed(reason) => panic!("node {at} closed: {reason}; {}", self.state()),
            Event::Connected
            | Event::MessageStart { .. }
            | Event::MessageDropped { .. }
            | Event::PathChanged(_) => {}
        }
    }

    fn receive(&mut self, at: usize, id: MessageId, data: &[u8]) {
        let sent = self.sides[1 - at].sent.get_mut(&id.0).expect("a message from nowhere");
        assert!(fill(sent.pattern, sent.arrived, data.len()) == data, "other bytes than were sent");
        sent.arrived += data.len();
    }

    fn complete(&mut self, at: usize, id: MessageId) {
        let side = &mut self.sides[1 - at];
        let sent = side.sent.get_mut(&id.0).expect("a message from nowhere");
        assert!(!sent.done, "{id:?} arrived twice");
        assert_eq!(sent.arrived, sent.len, "{id:?} ended early");
        sent.done = true;
        side.open -= usize::from(!sent.optional);
        if let Some(before) = sent.group.and_then(|group| side.last.insert(group, id.0)) {
            assert!(before < id.0, "{id:?} came after {before}");
        }
    }

    fn consume(&mut self, at: usize, id: MessageId, len: usize) {
        let connection = self.world.connection(at, 1 - at).unwrap();
        connection.consumed(id, len as u64);
        self.world.drain(at);
    }

    fn check_end(&mut self) {
        self.run_for(20 * SECOND);
        for at in 0..2 {
            let stats = self.world.connection(at, 1 - at).unwrap().stats();
            assert_eq!((stats.send_buffered, stats.receive_buffered), (0, 0), "{stats:?}");
        }
        assert!(!self.nonces.borrow().is_empty());
    }
}
