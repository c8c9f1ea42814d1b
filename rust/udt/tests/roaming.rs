//! A peer whose address changes in the middle of a stream: nothing of it is lost, and nobody connects anew.

mod world;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use turbopump_sim::LinkConfig;
use turbopump_udt::{Class, Config, Event, MessageId, Options};
use world::World;

const SIZE: usize = 16 << 20;
const SECOND: u64 = 1_000_000_000;

/// What arrived, and what else the receiver was told.
#[derive(Default)]
struct Arrived {
    bytes: usize,
    ended: bool,
    paths: Vec<SocketAddr>,
}

/// Moves on by one step, writes what has room, and consumes what arrived.
fn step(
    world: &mut World,
    (from, to): (usize, usize),
    id: MessageId,
    rest: &mut Bytes,
    arrived: &mut Arrived,
) {
    world.step(60 * SECOND);
    if let Some(connection) = world.connection(from, to).filter(|_| !rest.is_empty()) {
        assert!(connection.write(id, rest).is_ok());
        if rest.is_empty() {
            assert_eq!(connection.finish(id), Ok(()));
        }
        world.drain(from);
    }
    for at in [from, to] {
        for (_, event) in world.take_events(at) {
            match event {
                Event::MessageData { id, data } => {
                    let expected = (arrived.bytes..).map(|byte| (byte % 251) as u8);
                    assert!(data.iter().copied().eq(expected.take(data.len())), "other bytes than were sent");
                    arrived.bytes += data.len();
                    if let Some(connection) = world.connection(to, from) {
                        connection.consumed(id, data.len() as u64);
                    }
                    world.drain(to);
                }
                Event::MessageEnd { .. } => arrived.ended = true,
                Event::PathChanged(path) => arrived.paths.push(path),
                Event::Closed(reason) => panic!("{reason}"),
                _ => {}
            }
        }
    }
}

/// Streams from one node to the other while node 0's address changes: its port, its host, and back.
fn roam(from: usize) {
    let link = LinkConfig {
        rate: 12_500_000,
        queue: 250_000,
        delay: Duration::from_millis(10),
        ..LinkConfig::default()
    };
    let mut world = World::pair(1, &Config::default(), &link);
    world.connect(0, 1);
    world.run_ms(100);
    let first = world.nodes.iter().map(|node| node.endpoint.connections().next().map(|(id, _)| id));
    let first: Vec<_> = first.collect();
    let address = world.nodes[0].address;
    let changes = [
        SocketAddr::from(([10, 0, 0, 1], 5000)),
        SocketAddr::from(([172, 16, 0, 1], 5000)),
        SocketAddr::from(([172, 16, 0, 9], 6000)),
    ];
    let mut rest = Bytes::from((0..SIZE).map(|byte| (byte % 251) as u8).collect::<Vec<u8>>());
    let id = world
        .connection(from, 1 - from)
        .and_then(|connection| connection.open(Options::new(Class::Bulk)).ok());
    let (id, mut arrived) = (id.unwrap_or_else(|| panic!("no message")), Arrived::default());
    let began = world.net.now();
    for (number, change) in changes.iter().enumerate() {
        while arrived.bytes < SIZE / 4 * (number + 1) {
            step(&mut world, (from, 1 - from), id, &mut rest, &mut arrived);
        }
        world.net.rebind(address, *change);
    }
    while !arrived.ended {
        step(&mut world, (from, 1 - from), id, &mut rest, &mut arrived);
    }
    assert_eq!(arrived.bytes, SIZE);
    let seconds = (world.net.now() - began) as f64 / 1e9;
    assert!(seconds < 8.0, "16 MiB at 100 Mbit/s and three changes took {seconds} s");
    let last: Vec<_> =
        world.nodes.iter().map(|node| node.endpoint.connections().next().map(|(id, _)| id)).collect();
    assert_eq!(first, last, "the same connections");
    assert_eq!(world.connection(1, 0).map(|connection| connection.remote()), Some(changes[2]));
    assert_eq!(arrived.paths, changes, "each is told once, when it is proved");
}

#[test]
fn the_sender_may_move() {
    roam(0);
}

#[test]
fn the_receiver_may_move() {
    roam(1);
}
