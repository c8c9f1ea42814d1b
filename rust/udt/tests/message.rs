//! Messages between two endpoints over a simulated link.

mod world;

use std::time::Duration;

use bytes::Bytes;
use turbopump_sim::LinkConfig;
use turbopump_udt::{Class, Config, Event, Options};
use world::World;

fn lan() -> LinkConfig {
    LinkConfig { delay: Duration::from_millis(5), ..LinkConfig::default() }
}

const SECOND: u64 = 1_000_000_000;

fn connected(config: &Config, link: &LinkConfig) -> World {
    let mut world = World::pair(1, config, link);
    world.connect(0, 1);
    assert!(world.run_until(10 * SECOND, |world| {
        world.nodes.iter().all(|node| node.events.iter().any(|(_, event)| *event == Event::Connected))
    }));
    world.take_events(0);
    world.take_events(1);
    world
}

#[test]
fn a_message_arrives_whole_after_one_round_trip_of_handshake() {
    let mut world = World::pair(1, &Config::default(), &lan());
    world.connect(0, 1);
    let text = Bytes::from_static(b"turbopump");
    world.connection(0, 1).unwrap().send(Options::new(Class::Request), text.clone()).unwrap();
    world.drain(0);
    let arrived = |world: &mut World| {
        world.nodes[1].events.iter().any(|(_, e)| matches!(e, Event::Message { data, .. } if *data == text))
    };
    assert!(world.run_until(SECOND, arrived));
    assert_eq!(world.net.now(), 15_000_000, "INIT, RESP, message");
}

#[test]
fn a_large_message_is_streamed() {
    let mut world = connected(&Config::default(), &lan());
    let id = world.connection(0, 1).unwrap().open(Options::new(Class::Bulk)).unwrap();
    let all: Vec<u8> = (0..40_000_000_u32).map(|n| (n / 7) as u8).collect();
    let mut rest = Bytes::from(all.clone());
    let (mut got, mut ended) = (Vec::new(), false);
    while !ended {
        if let Some(connection) = world.connection(0, 1).filter(|_| !rest.is_empty()) {
            connection.write(id, &mut rest).unwrap();
            if rest.is_empty() {
                connection.finish(id).unwrap();
            }
            world.drain(0);
        }
        assert!(world.step(60 * SECOND));
        for (_, event) in world.take_events(1) {
            match event {
                Event::MessageData { id, data } => {
                    got.extend_from_slice(&data);
                    world.connection(1, 0).unwrap().consumed(id, data.len() as u64);
                    world.drain(1);
                }
                Event::MessageEnd { .. } => ended = true,
                _ => {}
            }
        }
    }
    assert!(got == all);
}
