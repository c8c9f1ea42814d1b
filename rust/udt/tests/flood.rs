//! 100,000 made-up handshakes a second from one address: nothing of them is kept, and peers notice nothing.

mod world;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use turbopump_sim::LinkConfig;
use turbopump_udt::{Class, Config, Ecn, Endpoint, Event, Identity, Options, PresharedKey, PrivateKey, Time};
use world::World;

const PER_MS: usize = 100;
/// Different ones that the flood repeats: each is another key pair's.
const DIFFERENT: u8 = 50;

/// What the sender of the flood has.
#[derive(Clone, Copy, Debug)]
enum Stranger {
    /// Not even the node's public key: the first tag is wrong.
    Blind,
    /// That key, which makes the first tag right.
    Knowing,
    /// The same, and a second tag, which only the node's cookie makes right.
    Pretending,
}

fn handshakes(world: &World, stranger: Stranger) -> Vec<Vec<u8>> {
    let (target, address) = (world.nodes[1].key, world.nodes[1].address);
    let mut handshakes = Vec::new();
    for seed in 1..=DIFFERENT {
        let identity =
            Identity { keys: vec![PrivateKey::new([seed; 32])], psks: vec![(1, PresharedKey::new([9; 32]))] };
        let mut liar = Endpoint::new(Time::ZERO, Config::default(), identity, [seed; 32], 1 << 60);
        assert!(liar.connect(Time::ZERO, target, address).is_ok());
        let mut init = Vec::new();
        assert!(liar.poll_transmit(Time::ZERO, &mut init).is_some());
        match stranger {
            Stranger::Blind => init[100] ^= 1,
            Stranger::Knowing => {}
            Stranger::Pretending => init[180] ^= 1,
        }
        handshakes.push(init);
    }
    handshakes
}

/// A millisecond of the flood at node 1, spread over it. Returns its bytes.
fn flood_ms(world: &mut World, handshakes: &[Vec<u8>]) -> usize {
    let from = SocketAddr::from(([192, 0, 2, 7], 999));
    let mut came = 0;
    for number in 0..PER_MS {
        let mut init = handshakes[number % handshakes.len()].clone();
        came += init.len();
        let now = world.now();
        world.nodes[1].endpoint.handle_datagram(now, from, Ecn::NotEct, &mut init);
        world.drain(1);
        if number % 10 == 0 {
            let until = world.net.now() + 100_000;
            world.run_until(until, |_| false);
        }
    }
    came
}

fn flooded(stranger: Stranger) {
    let link = LinkConfig { delay: Duration::from_millis(5), ..LinkConfig::default() };
    let mut world = World::new(1);
    for _ in 0..3 {
        world.add(Config::default());
    }
    world.connect_links(0, 1, &link, &link);
    world.connect_links(2, 1, &link, &link);
    world.connect(0, 1);
    world.run_ms(100);
    assert!(world.connection(1, 0).is_some_and(|connection| connection.is_connected()));
    let handshakes = handshakes(&world, stranger);
    let answered = Rc::new(Cell::new(0));
    let counted = Rc::clone(&answered);
    world.watch = Some(Box::new(move |node, datagram| {
        // RESP and COOKIE.
        if node == 1 && matches!(datagram[0], 0x52 | 0x53) {
            counted.set(counted.get() + datagram.len());
        }
    }));
    let mut came = 0;
    let (mut latest, mut connected_ms) = (0, None);
    for ms in 0..2000_u64 {
        if ms == 500 {
            world.connect(2, 1);
        }
        if ms % 50 == 0 {
            let request = Bytes::copy_from_slice(&ms.to_le_bytes());
            assert!(
                world.connection(0, 1).is_some_and(|c| c.send(Options::new(Class::Request), request).is_ok())
            );
            world.drain(0);
        }
        came += flood_ms(&mut world, &handshakes);
        for (_, event) in world.take_events(1) {
            if let Event::Message { data, .. } = event {
                latest = data.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            }
        }
        if connected_ms.is_none() && world.connection(2, 1).is_some_and(|c| c.is_connected()) {
            connected_ms = Some(ms - 500);
        }
    }
    // One round trip more than without the flood: the new peer proves its address.
    assert!(connected_ms.is_some_and(|ms| ms <= 35), "{stranger:?}: {connected_ms:?}");
    assert_eq!(latest, 1950, "{stranger:?}: requests arrive in the meantime");
    assert!(answered.get() <= came / 100, "{stranger:?}: {} bytes for {came}", answered.get());
    check_nothing_is_kept(&world, stranger);
}

fn check_nothing_is_kept(world: &World, stranger: Stranger) {
    let (endpoint, config) = (&world.nodes[1].endpoint, Config::default());
    let stats = endpoint.stats();
    assert_eq!(endpoint.connections().count(), 2, "{stranger:?}: those of the two peers");
    assert_eq!(stats.answered_handshakes, 2, "{stats:?}");
    // What is worth a computation is so many a second, and the flood lasts for parts of three.
    let heard = stats.refused_handshakes + stats.unknown_peers;
    assert!(heard <= 3 * u64::from(config.handshakes_per_address), "{stats:?}");
    match stranger {
        Stranger::Blind => assert_eq!((stats.forged_handshakes, stats.dropped_handshakes), (200_000, 0)),
        _ => assert!(stats.dropped_handshakes > 198_000 && stats.cookies < 1000, "{stats:?}"),
    }
}

#[test]
fn nothing_of_a_flood_is_kept_and_peers_connect_meanwhile() {
    for stranger in [Stranger::Blind, Stranger::Knowing, Stranger::Pretending] {
        flooded(stranger);
    }
}
