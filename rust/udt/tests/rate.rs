//! How fast a stream goes where the path is short and wide: what the model of the path allows, not what a
//! processor can.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics where it stands")]

mod world;

use std::time::Duration;

use bytes::Bytes;
use turbopump_sim::LinkConfig;
use turbopump_udt::config::Algorithm;
use turbopump_udt::{Class, Config, Event, Options};
use world::World;

const MS: u64 = 1_000_000;
/// When the rate is known.
const BEGIN: u64 = 20 * MS;
const END: u64 = 60 * MS;

/// A path within a box or a rack: 50 us there and back, 20 Gbit/s, and the buffer of a socket.
fn short(mtu: usize) -> LinkConfig {
    LinkConfig {
        rate: 2_500_000_000,
        queue: 2 << 20,
        delay: Duration::from_micros(25),
        mtu,
        ..LinkConfig::default()
    }
}

/// Gbit/s that a stream gets once it has begun.
fn stream(algorithm: Algorithm, link: &LinkConfig) -> f64 {
    let config = Config { congestion: algorithm, ..Config::default() };
    let mut world = World::pair(1, &config, link);
    world.connect(0, 1);
    let text = Bytes::from_static(&[7; 1 << 20]);
    let (mut id, mut received) = (None, 0);
    while world.step(END) {
        for (_, event) in world.take_events(0) {
            if matches!(event, Event::Connected | Event::Sendable) {
                let connection = world.connection(0, 1).unwrap();
                let id = *id.get_or_insert_with(|| connection.open(Options::new(Class::Bulk)).unwrap());
                while connection.write(id, &mut text.clone()).unwrap() > 0 {}
                world.drain(0);
            }
        }
        for (_, event) in world.take_events(1) {
            if let Event::MessageData { id, data } = event {
                received += if world.net.now() > BEGIN { data.len() as u64 } else { 0 };
                world.connection(1, 0).unwrap().consumed(id, data.len() as u64);
                world.drain(1);
            }
        }
    }
    received as f64 * 8.0 / (END - BEGIN) as f64
}

#[test]
fn a_short_path_is_filled() {
    for algorithm in [Algorithm::Bbr, Algorithm::Cubic] {
        for mtu in [0, 8952, 1472] {
            let gbit = stream(algorithm, &short(mtu));
            assert!(gbit > 17.0, "{algorithm:?}, packets of {mtu}: {gbit:.1} of 20 Gbit/s");
        }
    }
}
