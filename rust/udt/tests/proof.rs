//! Who has a member's private key and not the cluster's, or repeats what a member said: it is answered, and
//! nothing of the member's changes. Who has both is the member, whatever its clock says.

mod world;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use turbopump_sim::{Datagram, LinkConfig, Mark};
use turbopump_udt::error::CloseReason;
use turbopump_udt::{
    Class, Config, Endpoint, Event, Identity, Options, PresharedKey, PrivateKey, PublicKey, Time,
};
use world::World;

/// In the first, the node that is deceived has the lower public key; in the second, the higher one.
const SEEDS: [u64; 2] = [1, 3];
const OURS: [u8; 32] = [9; 32];
const OTHER: [u8; 32] = [8; 32];
/// 2001: a clock that was never set.
const LONG_AGO: u64 = 1_000_000_000_000_000_000;
/// 2116.
const FAR_AHEAD: u64 = 1 << 62;

fn pair(seed: u64) -> World {
    let link = LinkConfig { delay: Duration::from_millis(5), ..LinkConfig::default() };
    let world = World::pair(seed, &Config::default(), &link);
    assert_eq!(world.nodes[1].key < world.nodes[0].key, seed == SEEDS[0]);
    world
}

fn connected(seed: u64) -> World {
    let mut world = pair(seed);
    world.connect(0, 1);
    world.run_ms(200);
    assert_eq!([events(&mut world, 0), events(&mut world, 1)], [[Event::Connected], [Event::Connected]]);
    world
}

fn events(world: &mut World, at: usize) -> Vec<Event> {
    world.take_events(at).into_iter().map(|(_, event)| event).collect()
}

/// The private key of node 0, and a cluster's key.
fn identity(world: &World, psk: [u8; 32]) -> Identity {
    // The dice fall as in `World::add`.
    let mut keys = SEEDS.map(|seed| PrivateKey::new(turbopump_sim::Dice::new(seed).bytes())).to_vec();
    keys.retain(|key| key.public() == world.nodes[0].key);
    Identity { keys, psks: vec![(1, PresharedKey::new(psk))] }
}

/// Another endpoint with these, and a time of day.
fn second(world: &World, psk: [u8; 32], unix_nanos: u64, seed: u8) -> Endpoint {
    Endpoint::new(world.now(), Config::default(), identity(world, psk), [seed; 32], unix_nanos)
}

/// The first datagram with which it connects.
fn init(mut endpoint: Endpoint, now: Time, to: (PublicKey, SocketAddr)) -> Vec<u8> {
    let mut init = Vec::new();
    assert!(endpoint.connect(now, to.0, to.1).is_ok() && endpoint.poll_transmit(now, &mut init).is_some());
    init
}

/// Node 1 hears from a false node 0, which lacks the cluster's key. Returns whether it answers.
fn intrude(world: &mut World, unix_nanos: u64, seed: u8) -> bool {
    let (now, to) = (world.now(), world.nodes[1].address);
    let bytes = init(second(world, OTHER, unix_nanos, seed), now, (world.nodes[1].key, to));
    let from = SocketAddr::from(([192, 0, 2, 7], 999));
    let answered = world.nodes[1].endpoint.stats().answered_handshakes;
    world.deliver(Datagram { from, to, mark: Mark::None, bytes });
    world.drain(1);
    world.nodes[1].endpoint.stats().answered_handshakes > answered
}

/// Node 0 begins anew, at this time of day.
fn restart(world: &mut World, unix_nanos: u64) {
    let seed = world.dice.number() as u8;
    world.nodes[0].endpoint = second(world, OURS, unix_nanos, seed);
    world.connect(0, 1);
}

fn state(world: &World, at: usize) -> String {
    let connections = world.nodes[at].endpoint.connections();
    let states: Vec<_> = connections.map(|(id, c)| format!("{id:?} {:?} {c:?}", c.stats())).collect();
    states.join(" ")
}

#[test]
fn a_connection_goes_on_while_somebody_lacks_the_clusters_key() {
    for mut world in SEEDS.map(connected) {
        for round in 0..20 {
            let before = state(&world, 1);
            assert!(intrude(
                &mut world,
                if round % 2 == 0 { FAR_AHEAD + round } else { 1 << 61 },
                round as u8
            ));
            assert_eq!(state(&world, 1), before);
            assert_eq!(events(&mut world, 1), []);
            let text = Bytes::from_static(b"on and on");
            let sent = world.connection(0, 1).map(|c| c.send(Options::new(Class::Request), text));
            assert!(matches!(sent, Some(Ok(_))));
            world.drain(0);
            world.run_ms(50);
            assert!(matches!(events(&mut world, 1)[..], [Event::Message { .. }]));
        }
        assert!(!events(&mut world, 0).iter().any(|event| matches!(event, Event::Closed(_))));
    }
}

#[test]
fn a_node_that_restarts_is_heard_at_once_whatever_others_have_shown_for_it() {
    for mut world in SEEDS.map(connected) {
        assert!(intrude(&mut world, FAR_AHEAD, 3));
        restart(&mut world, 1_700_000_001_000_000_000);
        world.run_ms(14);
        assert_eq!(events(&mut world, 1), [], "it was asked and answered, and has proved nothing");
        world.run_ms(2);
        assert_eq!(events(&mut world, 1), [Event::Closed(CloseReason::Replaced), Event::Connected]);
        assert_eq!(events(&mut world, 0), [Event::Connected]);
    }
}

#[test]
fn a_connection_that_is_being_made_stays_on_its_way() {
    for mut world in SEEDS.map(pair) {
        (0..2).for_each(|link| world.net.link(link).config.mtu = 1);
        world.connect(1, 0);
        world.run_ms(10);
        let before = state(&world, 1);
        let answered = (0..6).filter(|seed| intrude(&mut world, FAR_AHEAD, *seed)).count();
        assert!(answered >= 3);
        assert_eq!(state(&world, 1), before);
        (0..2).for_each(|link| world.net.link(link).config.mtu = 0);
        world.run_ms(400);
        assert_eq!([events(&mut world, 0), events(&mut world, 1)], [[Event::Connected], [Event::Connected]]);
        assert_eq!(world.connection(1, 0).map(|c| c.remote()), Some(world.nodes[0].address));
    }
}

#[test]
fn one_candidate_is_kept_of_a_peer_and_forgotten() {
    let mut world = pair(SEEDS[0]);
    for seed in 0..10 {
        assert!(intrude(&mut world, FAR_AHEAD, seed));
        assert!(world.nodes[1].endpoint.connections().next().is_none());
    }
    let end = world.now() + 2 * Config::default().silence_max;
    assert_eq!(world.nodes[1].endpoint.poll_timeout(), Some(end));
    world.run_ms(7001);
    assert_eq!(world.nodes[1].endpoint.poll_timeout(), None);
    assert_eq!(events(&mut world, 1), []);
}

#[test]
fn a_node_whose_clock_was_set_back_is_heard_at_once() {
    for mut world in SEEDS.map(connected) {
        for (round, unix_nanos) in
            [LONG_AGO, LONG_AGO / 2, 0, 1_700_000_001_000_000_000].into_iter().enumerate()
        {
            restart(&mut world, unix_nanos);
            world.run_ms(16);
            assert_eq!(events(&mut world, 1), [Event::Closed(CloseReason::Replaced), Event::Connected]);
            assert_eq!(events(&mut world, 0), [Event::Connected]);
            let stats = world.nodes[1].endpoint.stats();
            let set_back = (round as u64 + 1).min(3);
            assert_eq!((stats.late_handshakes, stats.set_back_clocks), (set_back, set_back));
        }
        assert_eq!(world.nodes[1].endpoint.stats().refused_handshakes, 0);
    }
}

/// Whoever begins to renew them.
#[test]
fn a_node_whose_clock_was_set_back_renews_its_keys() {
    let config = Config {
        rekey_after: Duration::from_secs(1),
        reject_after: Duration::from_secs(3),
        ..Config::default()
    };
    let link = LinkConfig { delay: Duration::from_millis(5), ..LinkConfig::default() };
    for (seed, dialled) in SEEDS.into_iter().flat_map(|seed| [(seed, 0), (seed, 1)]) {
        let mut world = World::pair(seed, &config, &link);
        world.connect(0, 1);
        world.run_ms(200);
        let ours = identity(&world, OURS);
        world.nodes[0].endpoint = Endpoint::new(world.now(), config.clone(), ours, [77; 32], LONG_AGO);
        if dialled == 0 {
            world.connect(0, 1);
        } else {
            let key = world.nodes[1].key;
            world.nodes[0].endpoint.admit(key);
            world.connection(1, 0).into_iter().for_each(|connection| connection.close(0, b""));
            world.drain(1);
            world.connect(1, 0);
        }
        world.run_ms(200);
        (0..2).for_each(|at| drop(events(&mut world, at)));
        world.run_ms(10_000);
        assert_eq!([events(&mut world, 0), events(&mut world, 1)], [[], []], "{seed} {dialled}");
        let handshakes = world.connection(0, 1).map(|connection| connection.stats().handshakes);
        assert!(handshakes >= Some(8), "{handshakes:?}");
    }
}

/// They are answered, no oftener than a candidate is kept, and stand in nobody's way.
#[test]
fn handshakes_that_somebody_repeats_keep_nobody_out() {
    for mut world in SEEDS.map(connected) {
        let (now, to) = (world.now(), (world.nodes[1].key, world.nodes[1].address));
        let old = [1, 2].map(|seed| init(second(&world, OURS, LONG_AGO + u64::from(seed), seed), now, to));
        let repeat = |world: &mut World, old: &Vec<u8>| {
            let before = (state(world, 1), world.nodes[1].endpoint.stats().answered_handshakes);
            let from = SocketAddr::from(([192, 0, 2, 7], 999));
            world.deliver(Datagram { from, to: to.1, mark: Mark::None, bytes: old.clone() });
            world.drain(1);
            assert_eq!((state(world, 1), events(world, 1)), (before.0, vec![]));
            world.nodes[1].endpoint.stats().answered_handshakes - before.1
        };
        let answers: Vec<u64> = (0..5).map(|_| repeat(&mut world, &old[0])).collect();
        assert_eq!(answers, [1, 0, 0, 0, 0]);
        restart(&mut world, 1_700_000_001_000_000_000);
        world.run_ms(7);
        assert_eq!(old.each_ref().map(|old| repeat(&mut world, old)), [0, 0], "a newer one is under way");
        world.run_ms(9);
        assert_eq!(events(&mut world, 1), [Event::Closed(CloseReason::Replaced), Event::Connected]);
        assert_eq!(world.nodes[1].endpoint.stats().set_back_clocks, 0);
    }
}
