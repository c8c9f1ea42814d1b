//! A story from a seed: nodes, clients that write and read, faults; then all heals, and what must hold does.

use std::collections::BTreeMap;

use turbopump_core::cluster::ClusterConfig;
use turbopump_core::config::Limits;
use turbopump_core::keyspace::Acks;
use turbopump_core::routes::Routes;
use turbopump_sim::Dice;

use crate::client::{Answer, Ear, Request, Wire};
use crate::end;
use crate::model::{Model, token, value};
use crate::net::{MS, SECOND};
use crate::world::{Seen, World, routes};

/// An answer comes within this time, whatever happens to other nodes: as long as a connection may be silent,
/// for each replica that may be asked, and the time that a command waits for confirmations.
const ANSWERED_WITHIN: u64 = 120 * SECOND;

/// A node that came back blank has found its peers to hold the same within this time.
const CAUGHT_UP_WITHIN: u64 = 120 * SECOND;

/// What may happen in a story.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plot {
    /// Wall clocks are off, and jump.
    pub odd_clocks: bool,
    /// Nodes crash, and come back with what they had.
    pub crashes: bool,
    /// One of them comes back with nothing.
    pub wipes: bool,
    /// Memory for what peers are owed is scarce.
    pub tight: bool,
    /// Some writes are sent once.
    pub datagrams: bool,
    /// Nodes are slow at times.
    pub slow: bool,
}

/// A client.
struct Caller {
    node: usize,
    token: u64,
    wire: Wire,
    ear: Ear,
}

/// A request that is not answered.
struct Call {
    request: Request,
    acks: Option<&'static str>,
    invoked: u64,
}

/// A story under way.
pub struct Story {
    pub world: World,
    pub plot: Plot,
    pub model: Model,
    dice: Dice,
    callers: Vec<Caller>,
    calls: BTreeMap<u64, Call>,
    next_id: u64,
    keys: u64,
    wiped: bool,
}

fn plot(dice: &mut Dice) -> Plot {
    let mut plot = Plot { odd_clocks: dice.chance(0.4), slow: dice.chance(0.3), ..Plot::default() };
    // Hints cannot make up for what these lose: healing does.
    if dice.chance(0.7) {
        plot.crashes = dice.chance(0.6);
        plot.wipes = plot.crashes && dice.chance(0.5);
        (plot.tight, plot.datagrams) = (dice.chance(0.3), dice.chance(0.5));
    }
    plot
}

impl Story {
    /// The story of a seed.
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let count = dice.between(3, 7) as usize;
        let plot = plot(&mut dice);
        let mut config = ClusterConfig { cluster: [1; 16], ..ClusterConfig::default() };
        config.unconfirmed_max = dice.pick(&[64 << 10, 8 << 20]);
        // Comparing all that there is takes most of a story's time.
        config.sync_ms = dice.pick(&[1000, 10_000]);
        if plot.tight {
            (config.hints_max, config.guests_max) = (dice.pick(&[0, 300, 2000]), dice.pick(&[1, 10_000]));
        }
        // Other dice: the seeds that ever failed are to tell what they told.
        let relayed_max = Dice::new(!seed).pick(&[64 << 10, 300_000, 4 << 20]);
        let limits = Limits { relayed_max, ..Limits::default() };
        let mut world = World::new(count, config, limits, dice.fork());
        for node in 0..count {
            world.nodes[node].wall_off = if plot.odd_clocks { wall_off(&mut dice) } else { 0 };
        }
        let keys = dice.pick(&[2, 6, 20]);
        let callers = Vec::new();
        let (model, calls) = (Model::default(), BTreeMap::new());
        Story { world, plot, model, dice, callers, calls, next_id: 1, keys, wiped: false }
    }

    /// Tells it to the end; returns how long it took in it, and which events there were.
    pub fn run(mut self) -> (u64, u64) {
        self.run_for(2 * SECOND);
        for _ in 0..self.dice.between(1, 8) {
            self.enter();
        }
        for _ in 0..self.dice.between(20, 200) {
            match self.dice.below(30) {
                0..=22 => self.ask(),
                23..=24 => self.leave(),
                _ => self.fail(),
            }
            let pause = self.dice.pick(&[0, 2, 20, 300, 3000]);
            let pause = self.dice.below(pause * MS + 1);
            self.run_for(pause);
        }
        self.heal();
        end::check(&mut self);
        (self.world.now, self.world.trace)
    }

    /// Another story of that seed: nodes come back blank, one after the other, and each is healed before the
    /// next. What enough replicas have confirmed is read all the time, whoever is asked.
    pub fn run_restarts(mut self) {
        self.plot = Plot::default();
        for node in &mut self.world.nodes {
            node.wall_off = 0;
        }
        self.run_for(2 * SECOND);
        for _ in 0..self.dice.between(2, 4) {
            self.ask_on(20);
            let node = self.dice.below(self.world.nodes.len() as u64) as usize;
            self.model.lose_one();
            self.world.crash(node, true);
            self.ask_on(10);
            self.world.start(node);
            self.ask_on(60);
            self.heal();
            let end = self.world.now + CAUGHT_UP_WITHIN;
            while self.world.nodes[node].store.is_behind() {
                assert!(self.world.now < end, "node {node} never catches up");
                self.run_for(SECOND);
            }
        }
        end::check(&mut self);
    }

    fn ask_on(&mut self, times: usize) {
        for _ in 0..times {
            if self.dice.chance(0.2) {
                self.leave();
            }
            self.ask();
            let pause = self.dice.pick(&[0, 1, 2, 20, 100]);
            self.run_for(self.dice.clone().below(pause * MS + 1));
        }
    }

    fn up(&self) -> Vec<usize> {
        (0..self.world.nodes.len()).filter(|node| self.world.is_up(*node)).collect()
    }

    /// A client comes.
    fn enter(&mut self) {
        let up = self.up();
        if up.is_empty() {
            return;
        }
        let (node, wire) = (self.dice.pick(&up), self.dice.pick(&[Wire::Resp, Wire::Pipe]));
        let mut caller = Caller { node, token: self.id(), wire, ear: Ear::new(wire) };
        self.world.open(node, caller.token);
        let greeting = caller.ear.greeting();
        if !greeting.is_empty() {
            caller.ear.pending.push_back(0);
            self.world.feed(node, caller.token, greeting);
        }
        self.callers.push(caller);
    }

    /// A client leaves, and another one comes.
    fn leave(&mut self) {
        if !self.callers.is_empty() {
            let index = self.dice.below(self.callers.len() as u64) as usize;
            let caller = self.callers.swap_remove(index);
            self.world.leave(caller.node, caller.token);
            self.give_up(caller);
        }
        self.enter();
    }

    fn give_up(&mut self, caller: Caller) {
        caller.ear.pending.iter().for_each(|id| drop(self.calls.remove(id)));
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn key(&mut self, kinds: &[&str]) -> String {
        let spaces: &[&str] = match self.plot.datagrams {
            true => &["one", "quorum", "everywhere", "all", "datagram"],
            false => &["one", "quorum", "everywhere", "all"],
        };
        let (space, kind) = (self.dice.pick(spaces), self.dice.pick(kinds));
        format!("{space}/{kind}{}", self.dice.below(self.keys))
    }

    fn size(&mut self) -> usize {
        let most = match self.dice.below(100) {
            0..=79 => 200,
            80..=91 => 9000,
            92..=98 => 100_000,
            _ => 3_000_000,
        };
        self.dice.below(most) as usize
    }

    /// A client asks for something, and perhaps for more at once.
    fn ask(&mut self) {
        if self.callers.is_empty() {
            return self.enter();
        }
        let index = self.dice.below(self.callers.len() as u64) as usize;
        if self.callers[index].ear.pending.len() > 4 {
            return;
        }
        let wire = self.callers[index].wire;
        let mut bytes = Vec::new();
        for _ in 0..self.dice.pick(&[1, 1, 1, 3]) {
            let (id, acks) = (self.id(), None);
            let acks = if wire == Wire::Pipe && self.dice.chance(0.3) { self.level() } else { acks };
            let request = self.request(wire, id);
            let acks = acks.filter(|_| !matches!(request, Request::Wait(..)));
            self.note(id, &request);
            bytes.extend(request.encode(wire, acks));
            self.calls.insert(id, Call { request, acks, invoked: self.world.now });
            self.callers[index].ear.pending.push_back(id);
        }
        let (node, token) = (self.callers[index].node, self.callers[index].token);
        if self.dice.chance(0.2) {
            let at = self.dice.below(bytes.len() as u64) as usize;
            self.world.feed(node, token, bytes.drain(..at).collect());
        }
        self.world.feed(node, token, bytes);
    }

    fn level(&mut self) -> Option<&'static str> {
        Some(self.dice.pick(&["one", "quorum", "all"]))
    }

    fn request(&mut self, wire: Wire, id: u64) -> Request {
        let many = if wire == Wire::Resp && self.dice.chance(0.3) { self.dice.between(2, 6) } else { 1 };
        let many = if many > 1 && self.dice.chance(0.05) { 600 } else { many };
        let any = ["r", "r", "r", "c", "a"];
        let kinds: &[&str] = if wire == Wire::Resp { &any } else { &["r"] };
        match self.dice.below(12) {
            0..=4 => {
                let mut pairs: Vec<(String, Vec<u8>)> = Vec::new();
                for _ in 0..many {
                    let key =
                        if many > 99 { format!("quorum/{{t}}r{}", pairs.len()) } else { self.key(&["r"]) };
                    let len = if many > 99 { 10 } else { self.size() };
                    if pairs.iter().all(|(other, _)| *other != key) {
                        pairs.push((key, value(id, len)));
                    }
                }
                Request::Set(pairs)
            }
            5 | 6 => {
                let mut keys: Vec<String> = (0..many.min(6)).map(|_| self.key(kinds)).collect();
                if many > 99 {
                    keys = (0..many).map(|index| format!("quorum/{{t}}r{index}")).collect();
                }
                keys.sort();
                keys.dedup();
                Request::Delete(keys)
            }
            7 if wire == Wire::Resp => Request::Increment(self.key(&["c"])),
            8 if wire == Wire::Resp => Request::Append(self.key(&["a"]), token(id)),
            7 => Request::Wait(self.key(&["r"]), self.dice.clone().between(1, 5000)),
            _ => Request::Get((0..many.min(6)).map(|_| self.key(kinds)).collect()),
        }
    }

    fn note(&mut self, id: u64, request: &Request) {
        let now = self.world.now;
        match request {
            Request::Set(pairs) => {
                for (key, value) in pairs {
                    self.model.invoke_write(key, id, now, Some(value.len()));
                }
            }
            Request::Delete(keys) => {
                keys.iter().for_each(|key| self.model.invoke_write(key, id, now, None));
            }
            Request::Increment(key) => self.model.invoke_increment(key),
            Request::Append(key, _) => self.model.invoke_append(key, id),
            Request::Get(_) | Request::Wait(..) => {}
        }
    }

    /// How many replicas a level means for a key, and how many there are.
    fn replicas(&self, key: &str, asked: Option<&str>, read: bool) -> (usize, usize) {
        let routes = routes(self.world.nodes.len(), 0);
        let rules = routes.rules(key.as_bytes());
        let kept = if read { rules.read_acks } else { rules.write_acks };
        let level = asked.and_then(|asked| Acks::named(asked.as_bytes())).unwrap_or(kept);
        let all = routes.replicas(key.as_bytes()).len();
        (1 + Routes::others_needed(level, all), all)
    }

    /// A request is answered.
    fn answered(&mut self, id: u64, answer: &Answer) {
        let Some(Call { request, acks, invoked }) = self.calls.remove(&id) else { return };
        let now = self.world.now;
        if let Answer::Error(_) = answer {
            return;
        }
        match &request {
            Request::Set(pairs) => {
                assert_eq!(*answer, Answer::Ok, "{request:?}");
                for (key, _) in pairs {
                    let (replicas, _) = self.replicas(key, acks, false);
                    self.model.complete(key, id, now, replicas);
                }
            }
            Request::Delete(keys) => {
                let Answer::Number(count) = *answer else { panic!("DEL was answered {answer:?}") };
                for key in keys {
                    let (replicas, _) = self.replicas(key, acks, false);
                    match (count as usize, keys.len()) {
                        (0, _) => self.model.forget(key, id),
                        (count, len) if count == len => self.model.complete(key, id, now, replicas),
                        _ => {}
                    }
                }
            }
            Request::Get(keys) => {
                let found = Model::found(answer);
                assert_eq!(found.len(), keys.len());
                for (key, found) in keys.iter().zip(found) {
                    let (read, all) = self.replicas(key, acks, true);
                    let strict = !self.plot.odd_clocks && !self.wiped;
                    self.model.check(key, found, invoked, strict.then_some(all + 1 - read));
                }
            }
            Request::Increment(_) | Request::Append(..) => {
                assert!(matches!(answer, Answer::Number(1..)), "{answer:?}");
            }
            Request::Wait(..) => assert_eq!(*answer, Answer::Ok),
        }
    }

    /// Something goes wrong, or well again.
    fn fail(&mut self) {
        let count = self.world.nodes.len() as u64;
        let (a, b) = (self.dice.below(count) as usize, self.dice.below(count) as usize);
        match self.dice.below(12) {
            0..=2 if a != b => self.world.cut(a, b),
            3 if a != b => self.world.block(a, b, true),
            4 | 5 => self.split(),
            6 | 7 => self.mend(),
            8 if self.plot.slow => self.world.nodes[a].slow = self.dice.pick(&[0, 5 * MS, 200 * MS]),
            9 if self.plot.odd_clocks => self.world.nodes[a].wall_off = wall_off(&mut self.dice),
            10 if self.plot.crashes && self.world.is_up(a) => {
                let wiped = self.plot.wipes && !self.wiped && self.dice.chance(0.3);
                self.wiped |= wiped;
                self.world.crash(a, wiped);
            }
            10 | 11 if !self.world.is_up(a) => self.world.start(a),
            _ => {}
        }
    }

    /// Nodes see only some of the others: halves, or halves with one node that sees all.
    fn split(&mut self) {
        let (side, bridge) = (self.dice.number(), self.dice.below(20) as usize);
        let one_way = self.dice.chance(0.2);
        for (a, b) in self.world.pairs() {
            if side >> a & 1 != side >> b & 1 && a != bridge && b != bridge {
                self.world.block(a, b, true);
                self.world.block(b, a, !one_way);
            }
        }
    }

    fn mend(&mut self) {
        for (a, b) in self.world.pairs() {
            self.world.block(a, b, false);
            self.world.block(b, a, false);
        }
    }

    /// Every fault ends, and all requests are answered.
    fn heal(&mut self) {
        self.mend();
        for node in 0..self.world.nodes.len() {
            self.world.nodes[node].slow = 0;
            if !self.world.is_up(node) {
                self.world.start(node);
            }
        }
        let end = self.world.now + ANSWERED_WITHIN;
        while !self.calls.is_empty() {
            self.run_for(SECOND);
            assert!(self.world.now < end, "nobody answers");
        }
    }

    pub fn run_for(&mut self, time: u64) {
        let until = self.world.now + time;
        loop {
            let moved = self.world.step(until);
            while let Some((token, seen)) = self.world.seen.pop_front() {
                self.see(token, seen);
            }
            if !moved {
                break;
            }
        }
        self.check_waits();
        end::check_bounds(self);
    }

    fn check_waits(&self) {
        for caller in &self.callers {
            // Those behind wait for the first.
            let Some(call) = caller.ear.pending.front().and_then(|id| self.calls.get(id)) else { continue };
            let since = self.world.now - call.invoked;
            let (request, node) = (format!("{:?}", call.request), caller.node);
            assert!(since < ANSWERED_WITHIN, "node {node} never answered {:.200}", request);
        }
    }

    fn see(&mut self, token: u64, seen: Seen) {
        let Some(index) = self.callers.iter().position(|caller| caller.token == token) else { return };
        match seen {
            Seen::Closed => {
                let caller = self.callers.swap_remove(index);
                self.give_up(caller);
                self.enter();
            }
            Seen::Bytes(bytes) => {
                self.callers[index].ear.hear(&bytes);
                while let Some(answer) = self.callers[index].ear.answer() {
                    let id = self.callers[index].ear.pending.pop_front();
                    self.answered(id.expect("an answer that nobody asked for"), &answer);
                }
            }
        }
    }

    pub fn wiped(&self) -> bool {
        self.wiped
    }
}

/// By how much a clock is off that is not to be trusted.
fn wall_off(dice: &mut Dice) -> i64 {
    const YEAR: i64 = 365 * 24 * 3600 * 1000;
    dice.pick(&[0, 0, 3, -40, 700, -5000, YEAR, -YEAR, 20 * YEAR])
}
