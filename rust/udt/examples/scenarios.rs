//! The figures that matter, over simulated links: `cargo run --release --example scenarios`.
//!
//! Times are the simulation's: they tell what the protocol does, not what the processor can.

#[path = "../tests/world/mod.rs"]
mod world;

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use turbopump_sim::{Dice, LinkConfig, Loss};
use turbopump_udt::config::Algorithm;
use turbopump_udt::{Class, Config, Event, MessageId, Options};
use world::World;

const SECOND: u64 = 1_000_000_000;
const SEEDS: u64 = 3;

/// A link of so many Mbit/s and ms there and back, with a queue of one bandwidth-delay product.
fn wire(mbit: u64, rtt_ms: u64, loss: f64) -> LinkConfig {
    let rate = mbit * 1_000_000 / 8;
    LinkConfig {
        rate,
        queue: rate * rtt_ms / 1000,
        delay: Duration::from_micros(rtt_ms * 500),
        loss: if loss > 0.0 { Loss::Random(loss) } else { Loss::None },
        mtu: 1472,
        overhead: 28,
        ..LinkConfig::default()
    }
}

fn config(congestion: Algorithm) -> Config {
    Config { congestion, datagram_max: 1472, ecn: false, ..Config::default() }
}

/// A sender of bulk: keeps a message's buffer full.
struct Bulk {
    from: usize,
    to: usize,
    id: Option<MessageId>,
    received: u64,
}

impl Bulk {
    fn new(from: usize, to: usize) -> Self {
        Bulk { from, to, id: None, received: 0 }
    }

    fn pump(&mut self, world: &mut World) {
        if let Some(connection) = world.connection(self.from, self.to) {
            if self.id.is_none() {
                self.id = connection.open(Options::new(Class::Bulk)).ok();
            }
            let mut data = Bytes::from_static(&[7; 1 << 20]);
            while let Some(id) = self.id {
                if connection.write(id, &mut data).unwrap_or(0) == 0 {
                    break;
                }
                data = Bytes::from_static(&[7; 1 << 20]);
            }
        }
        world.drain(self.from);
    }

    /// Deals with an event of either side.
    fn handle(&mut self, world: &mut World, at: usize, event: &Event) {
        match event {
            Event::MessageData { id, data } if at == self.to => {
                self.received += data.len() as u64;
                if let Some(connection) = world.connection(self.to, self.from) {
                    connection.consumed(*id, data.len() as u64);
                }
                world.drain(self.to);
            }
            Event::Sendable | Event::Connected if at == self.from => self.pump(world),
            _ => {}
        }
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn goodput(algorithm: Algorithm, link: &LinkConfig, seconds: u64, seed: u64) -> f64 {
    let mut world = World::pair(seed, &config(algorithm), link);
    world.connect(0, 1);
    let mut bulk = Bulk::new(0, 1);
    while world.step(seconds * SECOND) {
        for at in 0..2 {
            for (_, event) in world.take_events(at) {
                bulk.handle(&mut world, at, &event);
            }
        }
    }
    bulk.received as f64 * 8.0 / 1e6 / seconds as f64
}

/// Mbit/s of two flows over one link, after 3 s. The queue is a multiple of the bandwidth-delay product.
fn share(first: Algorithm, second: Algorithm, queue: f64, seed: u64) -> (f64, f64) {
    let (mut link, mut world) = (wire(100, 20, 0.0), World::new(seed));
    link.queue = (link.queue as f64 * queue) as u64;
    for algorithm in [first, first, second, second] {
        world.add(config(algorithm));
    }
    let (there, back) = world.connect_links(0, 1, &link, &link);
    let addresses = [world.nodes[2].address, world.nodes[3].address];
    world.net.route(addresses[0], addresses[1], there);
    world.net.route(addresses[1], addresses[0], back);
    world.connect(0, 1);
    world.connect(2, 3);
    let mut flows = [Bulk::new(0, 1), Bulk::new(2, 3)];
    let mut before = None;
    while world.step(20 * SECOND) {
        for at in 0..4 {
            for (_, event) in world.take_events(at) {
                flows[at / 2].handle(&mut world, at, &event);
            }
        }
        if before.is_none() && world.net.now() > 3 * SECOND {
            before = Some([flows[0].received, flows[1].received]);
        }
    }
    let mbit = |flow: usize| (flows[flow].received - before.map_or(0, |b| b[flow])) as f64 * 8.0 / 17e6;
    (mbit(0), mbit(1))
}

/// Sorted latencies, in ms, of 512-byte messages beside a stream on the same connection.
fn beside_bulk(algorithm: Algorithm, seed: u64) -> Vec<f64> {
    let mut world = World::pair(seed, &config(algorithm), &wire(100, 20, 0.0));
    world.connect(0, 1);
    let (mut bulk, mut sent, mut latencies) = (Bulk::new(0, 1), HashMap::new(), Vec::new());
    let mut next = 3 * SECOND;
    while world.net.now() < 12 * SECOND {
        world.step(next);
        if world.net.now() >= next {
            next += 10_000_000;
            let now = world.net.now();
            let id = world.connection(0, 1).and_then(|connection| {
                connection.send(Options::new(Class::Reply), Bytes::from_static(&[1; 512])).ok()
            });
            sent.extend(id.map(|id| (id, now)));
            world.drain(0);
        }
        for at in 0..2 {
            for (_, event) in world.take_events(at) {
                bulk.handle(&mut world, at, &event);
                if let Event::Message { id, data, .. } = event {
                    latencies.extend(sent.remove(&id).map(|then| (world.net.now() - then) as f64 / 1e6));
                    if let Some(connection) = world.connection(1, 0) {
                        connection.consumed(id, data.len() as u64);
                    }
                }
            }
        }
    }
    latencies.sort_by(f64::total_cmp);
    latencies
}

/// Sorted times, in ms, of 512-byte requests and replies of clients that each wait for their reply.
fn requests(algorithm: Algorithm, clients: u8, duplicates: u8, seed: u64) -> Vec<f64> {
    let mut config = config(algorithm);
    config.duplicates.classes = duplicates;
    let mut world = World::pair(seed, &config, &wire(200, 50, 0.01));
    world.connect(0, 1);
    let (mut began, mut times): (HashMap<u8, u64>, Vec<f64>) = (HashMap::new(), Vec::new());
    let mut dice = Dice::new(seed);
    let mut think: Vec<(u64, u8)> =
        (0..clients).map(|client| (dice.below(50_000_000) + SECOND, client)).collect();
    while world.net.now() < 60 * SECOND {
        let next = think.iter().map(|(time, _)| *time).min().unwrap_or(60 * SECOND);
        world.step(next.min(60 * SECOND));
        let now = world.net.now();
        let (due, later): (Vec<_>, Vec<_>) = think.drain(..).partition(|(time, _)| *time <= now);
        think = later;
        for (_, client) in due {
            began.insert(client, now);
            if let Some(connection) = world.connection(0, 1) {
                let request = Bytes::from(vec![client; 512]);
                let _ = connection.send(Options::new(Class::Request), request);
            }
            world.drain(0);
        }
        for at in 0..2 {
            for (_, event) in world.take_events(at) {
                let Event::Message { id, data, .. } = event else { continue };
                if let Some(connection) = world.connection(at, 1 - at) {
                    connection.consumed(id, 512);
                    if at == 1 {
                        let _ = connection.send(Options::new(Class::Reply), data.clone());
                    }
                }
                world.drain(at);
                if at == 0 {
                    let then = began.remove(&data[0]).unwrap_or(now);
                    times.push((now - then) as f64 / 1e6);
                    think.push((now + 1, data[0]));
                }
            }
        }
    }
    times.sort_by(f64::total_cmp);
    times
}

/// Seconds until a peer that vanished is noticed.
fn dead_peer() -> f64 {
    let mut world = World::pair(1, &config(Algorithm::Cubic), &wire(100, 20, 0.0));
    world.connect(0, 1);
    world.run_ms(1000);
    let link = world.connect_links(0, 1, &LinkConfig::default(), &LinkConfig::default());
    world.net.link(link.0).config.mtu = 1;
    world.net.link(link.1).config.mtu = 1;
    let began = world.net.now();
    let closed = |world: &mut World| world.nodes[0].events.iter().any(|e| matches!(e.1, Event::Closed(_)));
    world.run_until(began + 60 * SECOND, closed);
    (world.net.now() - began) as f64 / 1e9
}

fn at(sorted: &[f64], share: f64) -> f64 {
    sorted
        .get(((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0.0)
}

#[expect(clippy::print_stdout, reason = "it is a table for people")]
fn main() {
    println!("goodput of 10 s, Mbit/s, median of {SEEDS}");
    println!("{:<28}{:>9}{:>9}{:>9}", "", "cubic", "bbr", "udt");
    let links = [
        ("20 ms, 0.1%, 100 Mbit", wire(100, 20, 0.001)),
        ("50 ms, 1%, 200 Mbit", wire(200, 50, 0.01)),
        ("100 ms, 2%, 100 Mbit", wire(100, 100, 0.02)),
        ("20 ms, no loss, 100 Mbit", wire(100, 20, 0.0)),
    ];
    for (name, link) in &links {
        print!("{name:<28}");
        for algorithm in Algorithm::ALL {
            print!("{:>9.1}", median((0..SEEDS).map(|seed| goodput(*algorithm, link, 10, seed)).collect()));
        }
        println!();
    }
    println!("\ntwo flows, 100 Mbit, 20 ms: Mbit/s of each, and the share of the first");
    println!("{:<28}{:>17}{:>17}{:>17}", "queue in BDP", 0.5, 1.0, 2.0);
    for (first, second) in [
        (Algorithm::Cubic, Algorithm::Cubic),
        (Algorithm::Bbr, Algorithm::Cubic),
        (Algorithm::Bbr, Algorithm::Bbr),
        (Algorithm::Udt, Algorithm::Cubic),
        (Algorithm::Udt, Algorithm::Udt),
    ] {
        print!("{:<28}", format!("{first:?} : {second:?}"));
        for queue in [0.5, 1.0, 2.0] {
            let runs: Vec<_> = (0..SEEDS).map(|seed| share(first, second, queue, seed)).collect();
            let ours = median(runs.iter().map(|run| run.0).collect());
            let other = median(runs.iter().map(|run| run.1).collect());
            print!("{ours:>7.1}{other:>6.1}{:>3.0}%", ours / (ours + other) * 100.0);
        }
        println!();
    }
    println!("\n512 B beside a stream on the same connection, one way, ms (the way itself is 10): p50, p99");
    for algorithm in Algorithm::ALL {
        let sorted = beside_bulk(*algorithm, 1);
        println!("{:<28}{:>9.1}{:>9.1}", format!("{algorithm:?}"), at(&sorted, 0.5), at(&sorted, 0.99));
    }
    println!("\n512 B request and reply, 50 ms, 1% each way, ms: p50, p99, p99.9");
    for algorithm in Algorithm::ALL {
        for (clients, classes) in [(20, 0), (20, 2), (20, 3), (1, 0), (1, 3)] {
            let sorted = requests(*algorithm, clients, classes, 1);
            let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| at(&sorted, share));
            let name = format!("{algorithm:?}, {clients} clients, duplicates {classes}");
            println!("{name:<34}{p50:>9.1}{p99:>9.1}{p999:>9.1}");
        }
    }
    println!("\ndead peer noticed after {:.1} s", dead_peer());
}
