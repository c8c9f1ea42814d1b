//! Messages between two endpoints over a simulated link.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics where it stands")]

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

/// Messages of one connection that arrive in the order of `events`, as their first bytes.
fn arrivals(world: &mut World) -> Vec<u8> {
    let messages = world.take_events(1).into_iter().filter_map(|(_, event)| match event {
        Event::Message { id, data, .. } => Some((id, data)),
        _ => None,
    });
    let messages: Vec<_> = messages.collect();
    for (id, data) in &messages {
        world.connection(1, 0).unwrap().consumed(*id, data.len() as u64);
    }
    messages.iter().map(|(_, data)| data[0]).collect()
}

#[test]
fn control_overtakes_what_waits() {
    let slow = LinkConfig { rate: 125_000, queue: 100_000, ..lan() };
    let mut world = connected(&Config::default(), &slow);
    for (name, class) in [(3, Class::Bulk), (2, Class::Reply), (1, Class::Request), (0, Class::Control)] {
        let data = Bytes::from(vec![name; 12_000]);
        world.connection(0, 1).unwrap().send(Options::new(class), data).unwrap();
    }
    world.drain(0);
    world.run_ms(2000);
    let arrived = arrivals(&mut world);
    assert_eq!((arrived[0], arrived[3]), (0, 3), "{arrived:?}");
}

/// The promise: a small reply does not wait for a large value on the same connection. The way is 10 ms.
#[test]
fn a_small_reply_does_not_wait_for_a_large_value() {
    let rate = 12_500_000;
    let wire = LinkConfig {
        rate,
        queue: rate / 50,
        delay: Duration::from_millis(10),
        mtu: 1472,
        overhead: 28,
        ..LinkConfig::default()
    };
    let config = Config { datagram_max: 1472, ..Config::default() };
    let mut world = connected(&config, &wire);
    let bulk = world.connection(0, 1).unwrap().open(Options::new(Class::Bulk)).unwrap();
    let (mut slowest, mut next, mut sent_at) = (0, 0, 0);
    while world.net.now() < 5 * SECOND {
        if world.net.now() >= next {
            let connection = world.connection(0, 1).unwrap();
            let mut more = Bytes::from_static(&[9; 1 << 20]);
            connection.write(bulk, &mut more).unwrap();
            connection.send(Options::new(Class::Reply), Bytes::from_static(&[1; 512])).unwrap();
            sent_at = world.net.now();
            next = sent_at + SECOND / 20;
            world.drain(0);
        }
        world.step(next);
        for (_, event) in world.take_events(1) {
            let (Event::Message { id, data, .. } | Event::MessageData { id, data }) = event else { continue };
            if data.len() == 512 && data[0] == 1 && sent_at > SECOND {
                slowest = slowest.max(world.net.now() - sent_at);
            }
            world.connection(1, 0).unwrap().consumed(id, data.len() as u64);
            world.drain(1);
        }
    }
    let received = world.connection(1, 0).unwrap().stats().bytes_received;
    assert!(received > 5 * rate * 8 / 10, "the link is full: {received}");
    assert!((10_000_000..=15_000_000).contains(&slowest), "{slowest} ns");
}

#[test]
fn a_group_keeps_its_order_and_others_do_not_wait() {
    let lossy = LinkConfig { loss: turbopump_sim::Loss::Random(0.1), ..lan() };
    let mut world = connected(&Config::default(), &lossy);
    let grouped = Options { ordered_group: Some(7), ..Options::new(Class::Request) };
    for name in 0..200 {
        let options = if name % 2 == 0 { grouped } else { Options::new(Class::Request) };
        world.connection(0, 1).unwrap().send(options, Bytes::from(vec![name; 1000])).unwrap();
    }
    world.drain(0);
    world.run_ms(5000);
    let arrived = arrivals(&mut world);
    assert_eq!(arrived.len(), 200);
    assert!(arrived.iter().filter(|name| **name % 2 == 0).is_sorted());
    assert!(!arrived.is_sorted(), "losses reorder what need not be in order");
}

#[test]
fn what_is_over_its_time_is_given_up_on_both_sides() {
    let mut world = connected(&Config::default(), &lan());
    let links = world.connect_links(0, 1, &lan(), &lan());
    world.net.link(links.0).config.mtu = 1;
    let options = Options { ttl: Some(Duration::from_millis(50)), ..Options::new(Class::Request) };
    let id = world.connection(0, 1).unwrap().send(options, Bytes::from_static(b"late")).unwrap();
    world.drain(0);
    world.run_ms(100);
    world.net.link(links.0).config.mtu = 0;
    world.run_ms(2000);
    assert_eq!(world.take_events(0).pop().map(|(_, event)| event), Some(Event::GivenUp { id }));
    assert!(arrivals(&mut world).is_empty());
    assert_eq!(world.connection(0, 1).unwrap().stats().send_buffered, 0);
}

#[test]
fn a_full_buffer_says_when_it_has_room() {
    let config = Config { send_buffer: 10_000, ..Config::default() };
    let mut world = connected(&config, &lan());
    let send = |world: &mut World| {
        let data = Bytes::from(vec![1; 6000]);
        world.connection(0, 1).unwrap().send(Options::new(Class::Bulk), data)
    };
    assert!(send(&mut world).is_ok());
    assert_eq!(send(&mut world), Err(turbopump_udt::error::SendError::Full));
    world.drain(0);
    world.run_ms(100);
    assert!(world.take_events(0).iter().any(|(_, event)| *event == Event::Sendable));
    assert!(send(&mut world).is_ok());
}
