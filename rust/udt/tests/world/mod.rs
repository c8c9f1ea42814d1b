//! Endpoints on a simulated network: the driver of tests, which drains them as a real one must.

use std::net::SocketAddr;

use turbopump_sim::{Datagram, Link, LinkConfig, Mark, Net};
use turbopump_udt::{
    Config, Connection, ConnectionId, Ecn, Endpoint, Event, Identity, PresharedKey, PrivateKey, PublicKey,
    Time,
};

/// One endpoint and what it told.
pub struct Node {
    pub endpoint: Endpoint,
    pub address: SocketAddr,
    pub key: PublicKey,
    pub events: Vec<(ConnectionId, Event)>,
}

/// Is told the node and the datagram.
pub type Watch = Box<dyn FnMut(usize, &[u8])>;

/// Nodes, the network between them, and the time.
pub struct World {
    pub net: Net,
    pub nodes: Vec<Node>,
    pub dice: turbopump_sim::Dice,
    buffer: Vec<u8>,
    /// Sees each datagram that a node sends.
    pub watch: Option<Watch>,
}

#[allow(dead_code, reason = "not every test needs every part")]
impl World {
    /// An empty world.
    pub fn new(seed: u64) -> Self {
        let dice = turbopump_sim::Dice::new(seed);
        World { net: Net::default(), nodes: Vec::new(), dice, buffer: Vec::new(), watch: None }
    }

    /// Two nodes that know each other, with a link each way.
    pub fn pair(seed: u64, config: &Config, link: &LinkConfig) -> Self {
        let mut world = World::new(seed);
        world.add(config.clone());
        world.add(config.clone());
        world.connect_links(0, 1, link, link);
        world
    }

    /// Adds a node that knows and admits all others.
    pub fn add(&mut self, config: Config) -> usize {
        let number = self.nodes.len();
        let secret = PrivateKey::new(self.dice.bytes());
        let key = secret.public();
        let identity = Identity { keys: vec![secret], psks: vec![(1, PresharedKey::new([9; 32]))] };
        let seed = self.dice.bytes();
        let mut endpoint =
            Endpoint::new(self.now(), config, identity, seed, 1_700_000_000_000_000_000 + self.net.now());
        for node in &mut self.nodes {
            endpoint.admit(node.key);
            node.endpoint.admit(key);
        }
        let address = SocketAddr::from(([10, 0, 0, number as u8 + 1], 4000));
        self.nodes.push(Node { endpoint, address, key, events: Vec::new() });
        number
    }

    /// Links two nodes, each way as given. Returns the links.
    pub fn connect_links(
        &mut self,
        a: usize,
        b: usize,
        there: &LinkConfig,
        back: &LinkConfig,
    ) -> (usize, usize) {
        let (there, back) =
            (Link::new(there.clone(), self.dice.fork()), Link::new(back.clone(), self.dice.fork()));
        let links = (self.net.add(there), self.net.add(back));
        self.net.route(self.nodes[a].address, self.nodes[b].address, links.0);
        self.net.route(self.nodes[b].address, self.nodes[a].address, links.1);
        links
    }

    /// The time, as endpoints want it.
    pub fn now(&self) -> Time {
        Time::from_nanos(self.net.now())
    }

    /// Has one node connect to another.
    pub fn connect(&mut self, from: usize, to: usize) -> ConnectionId {
        let (now, key, address) = (self.now(), self.nodes[to].key, self.nodes[to].address);
        let id = self.nodes[from].endpoint.connect(now, key, address);
        self.drain(from);
        id.unwrap_or_else(|error| panic!("{error}"))
    }

    /// A node's connection to another.
    pub fn connection(&mut self, from: usize, to: usize) -> Option<&mut Connection> {
        let (now, key) = (self.now(), self.nodes[to].key);
        let id = self.nodes[from].endpoint.find(&key)?;
        self.nodes[from].endpoint.connection_mut(now, id)
    }

    /// Sends what a node wants sent, and collects its events.
    pub fn drain(&mut self, at: usize) {
        let now = self.now();
        for _ in 0..3 {
            self.drain_once(at, now);
            if self.nodes[at].endpoint.poll_timeout().is_none_or(|next| next > now) {
                return;
            }
        }
        let connections: Vec<_> = self.nodes[at].endpoint.connections().collect();
        panic!("node {at} has a timer in the past at {now:?}: {connections:?}");
    }

    fn drain_once(&mut self, at: usize, now: Time) {
        let node = &mut self.nodes[at];
        node.endpoint.handle_timeout(now);
        while let Some(transmit) = node.endpoint.poll_transmit(now, &mut self.buffer) {
            assert_eq!(transmit.len, self.buffer.len());
            assert!(transmit.segment_size > 0 && transmit.len <= 65_507);
            let mark = if transmit.ecn == Ecn::Ect0 { Mark::Capable } else { Mark::None };
            for datagram in self.buffer.chunks(transmit.segment_size) {
                if let Some(watch) = &mut self.watch {
                    watch(at, datagram);
                }
                self.net.send(node.address, transmit.to, mark, datagram);
            }
        }
        while let Some(event) = node.endpoint.poll_event() {
            node.events.push(event);
        }
    }

    /// Gives a node a datagram, as its socket would.
    pub fn deliver(&mut self, datagram: Datagram) -> Option<usize> {
        let now = self.now();
        let at = self.nodes.iter().position(|node| node.address == datagram.to)?;
        let ecn = match datagram.mark {
            Mark::None => Ecn::NotEct,
            Mark::Capable => Ecn::Ect0,
            Mark::Congested => Ecn::Ce,
        };
        let mut bytes = datagram.bytes;
        self.nodes[at].endpoint.handle_datagram(now, datagram.from, ecn, &mut bytes);
        Some(at)
    }

    /// Moves to the next thing that happens, no later than `until`. Returns the node that it happened to, or
    /// false when `until` is reached.
    pub fn step(&mut self, until: u64) -> bool {
        let timers = self.nodes.iter().filter_map(|node| node.endpoint.poll_timeout());
        let timer = timers.min().map(Time::as_nanos);
        let next = [timer, self.net.next_arrival()].into_iter().flatten().min();
        let Some(next) = next.filter(|next| *next <= until) else {
            assert!(self.net.arrive(until).is_none());
            return false;
        };
        if let Some(datagram) = self.net.arrive(next) {
            if let Some(at) = self.deliver(datagram) {
                self.drain(at);
            }
            return true;
        }
        let now = self.now();
        for at in 0..self.nodes.len() {
            if self.nodes[at].endpoint.poll_timeout().is_some_and(|time| time <= now) {
                self.drain(at);
            }
        }
        true
    }

    /// Runs until something holds, or a moment in nanoseconds. Returns whether it holds.
    pub fn run_until(&mut self, until: u64, mut holds: impl FnMut(&mut World) -> bool) -> bool {
        loop {
            if holds(self) {
                return true;
            }
            if !self.step(until) {
                return false;
            }
        }
    }

    /// Runs for so many milliseconds.
    pub fn run_ms(&mut self, ms: u64) {
        let until = self.net.now() + ms * 1_000_000;
        self.run_until(until, |_| false);
    }

    /// What a node was told, taken away.
    pub fn take_events(&mut self, at: usize) -> Vec<(ConnectionId, Event)> {
        std::mem::take(&mut self.nodes[at].events)
    }
}
