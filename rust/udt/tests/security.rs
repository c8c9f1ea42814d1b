//! Strangers, liars and noise: none of them changes anything, and none of them is worth memory.

mod world;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use turbopump_sim::{Datagram, LinkConfig, Mark};
use turbopump_udt::error::{CloseReason, ConnectError};
use turbopump_udt::{
    Class, Config, ConnectionStats, Ecn, Endpoint, Event, Identity, Options, PresharedKey, PrivateKey, Time,
};
use world::World;

fn lan() -> LinkConfig {
    LinkConfig { delay: Duration::from_millis(5), ..LinkConfig::default() }
}

type Seen = Rc<RefCell<Vec<(usize, Vec<u8>)>>>;

/// Has every datagram that is sent kept.
fn tap(world: &mut World) -> Seen {
    let seen = Seen::default();
    let kept = Rc::clone(&seen);
    world.watch = Some(Box::new(move |node, datagram| kept.borrow_mut().push((node, datagram.to_vec()))));
    seen
}

fn connected(config: &Config) -> World {
    let mut world = World::pair(1, config, &lan());
    world.connect(0, 1);
    world.run_ms(200);
    assert!(world.connection(0, 1).is_some_and(|connection| connection.is_connected()));
    assert!(world.connection(1, 0).is_some_and(|connection| connection.is_connected()));
    world.take_events(0);
    world.take_events(1);
    world
}

/// All that can be seen of an endpoint but its counters of what it rejected.
fn fingerprint(world: &World, at: usize) -> String {
    let endpoint = &world.nodes[at].endpoint;
    let mut connections: Vec<_> = endpoint
        .connections()
        .map(|(id, c)| (id, ConnectionStats { packets_rejected: 0, ..c.stats() }, format!("{c:?}")))
        .collect();
    connections.sort_by_key(|(id, ..)| *id);
    format!("{connections:?} {:?} {}", endpoint.poll_timeout(), endpoint.stats().answered_handshakes)
}

/// Gives a node every version of a datagram with one bit flipped: it does as if none had come.
fn flip_every_bit(world: &mut World, to: usize, from: SocketAddr, datagram: &[u8]) {
    let before = fingerprint(world, to);
    let (now, mut out) = (world.now(), Vec::new());
    for bit in 0..datagram.len() * 8 {
        let mut forged = datagram.to_vec();
        forged[bit / 8] ^= 1 << (bit % 8);
        let endpoint = &mut world.nodes[to].endpoint;
        endpoint.handle_datagram(now, from, Ecn::NotEct, &mut forged);
        assert_eq!(endpoint.poll_transmit(now, &mut out), None, "bit {bit} was answered");
        assert_eq!(endpoint.poll_event(), None, "bit {bit} caused an event");
        if bit % 64 == 0 {
            assert_eq!(fingerprint(world, to), before, "bit {bit} changed something");
        }
    }
    assert_eq!(fingerprint(world, to), before);
}

#[test]
fn a_flipped_bit_in_any_datagram_changes_nothing() {
    let config =
        Config { handshakes_per_address: 1 << 15, handshakes_per_second: 1 << 20, ..Config::default() };
    let mut world = World::pair(1, &config, &lan());
    let seen = tap(&mut world);
    world.connect(0, 1);
    let addresses = [world.nodes[0].address, world.nodes[1].address];
    let mut kinds = Vec::new();
    for _ in 0..12 {
        let Some(at) = world.net.next_arrival() else { break };
        let Some(datagram) = world.net.arrive(at) else { break };
        let to = addresses.iter().position(|address| *address == datagram.to).unwrap();
        flip_every_bit(&mut world, to, addresses[1 - to], &datagram.bytes);
        kinds.push(datagram.bytes[0]);
        world.deliver(datagram);
        world.drain(to);
    }
    assert!(world.connection(1, 0).is_some_and(|connection| connection.is_connected()));
    assert!([0x51, 0x52, 0x54].iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
    assert!(seen.borrow().len() > 3);
}

#[test]
fn a_repeated_datagram_changes_nothing() {
    let mut world = World::pair(1, &Config::default(), &lan());
    let seen = tap(&mut world);
    world.connect(0, 1);
    world.run_ms(100);
    let options = Options::new(Class::Request);
    world.connection(0, 1).unwrap().send(options, Bytes::from_static(b"once")).unwrap();
    world.drain(0);
    world.run_ms(100);
    for (node, datagram) in seen.borrow_mut().drain(..).collect::<Vec<_>>() {
        let (to, from) = (1 - node, world.nodes[node].address);
        let before = fingerprint(&world, to);
        let (now, mut out) = (world.now(), Vec::new());
        let endpoint = &mut world.nodes[to].endpoint;
        endpoint.handle_datagram(now, from, Ecn::NotEct, &mut datagram.clone());
        assert_eq!(endpoint.poll_transmit(now, &mut out), None);
        assert_eq!(fingerprint(&world, to), before, "type {:#x}", datagram[0]);
    }
    assert_eq!([causes(&world, 0), causes(&world, 1)], [[0; 5]; 2], "nobody is taken for a stranger");
}

#[test]
fn a_busy_node_asks_for_a_cookie_and_then_answers() {
    let config = Config { handshakes_per_second: 0, ..Config::default() };
    let mut world = World::pair(1, &config, &lan());
    let seen = tap(&mut world);
    world.connect(0, 1);
    world.run_ms(500);
    assert!(world.connection(0, 1).is_some_and(|connection| connection.is_connected()));
    let kinds: Vec<(usize, u8)> = seen.borrow().iter().map(|(node, bytes)| (*node, bytes[0])).collect();
    assert_eq!(kinds[..4], [(0, 0x51), (1, 0x53), (0, 0x51), (1, 0x52)]);
}

/// It knows another key of the cluster too, which the busy node does not.
#[test]
fn a_busy_node_is_shown_its_cookie_with_the_right_key() {
    let config = Config { handshakes_per_second: 0, ..Config::default() };
    let mut world = World::pair(1, &config, &lan());
    let psks = vec![(1, PresharedKey::new([9; 32])), (2, PresharedKey::new([8; 32]))];
    assert_eq!(world.nodes[0].endpoint.set_psks(psks), Ok(()));
    world.connect(0, 1);
    world.run_ms(100);
    assert!(world.connection(0, 1).is_some_and(|connection| connection.is_connected()));
}

#[test]
fn no_answer_is_larger_than_its_question() {
    let mut world = World::pair(1, &Config::default(), &lan());
    let seen = tap(&mut world);
    world.connect(0, 1);
    world.run_ms(12);
    let sizes: Vec<usize> = seen.borrow().iter().map(|(_, bytes)| bytes.len()).collect();
    assert!(sizes[0] == 1200 && sizes[1] < 200, "{sizes:?}");
}

/// What a node has against strangers, by cause: versions, tags, who they are, secrets; and nonsense.
fn causes(world: &World, at: usize) -> [u64; 5] {
    let stats = world.nodes[at].endpoint.stats();
    let secrets = stats.other_secrets + stats.unheard_answers;
    [stats.other_versions, stats.forged_handshakes, stats.unknown_peers, secrets, stats.malformed]
}

/// Under the number of the right one, the answer does not open, and who gave it is asked again and again;
/// under another, there is no answer, and only who is asked knows why.
#[test]
fn who_has_another_secret_does_not_connect_and_either_side_knows_why() {
    for (number, both) in [(1, false), (2, false), (1, true), (2, true)] {
        let mut world = World::pair(1, &Config::default(), &lan());
        let other = vec![(number, PresharedKey::new([8; 32]))];
        assert_eq!(world.nodes[0].endpoint.set_psks(other), Ok(()));
        world.connect(0, 1);
        if both {
            world.connect(1, 0);
        }
        world.run_ms(15_000);
        let counted = [0, 1].map(|at| causes(&world, at));
        let told = counted.map(|causes| causes[3] >= 3);
        assert_eq!(told, [(number, both) != (2, false), true], "{number} {both} {counted:?}");
        assert!(counted.iter().all(|[a, b, c, _, e]| a + b + c + e == 0), "{counted:?}");
        world.run_ms(105_000);
        let connected = |node: &world::Node| node.events.iter().any(|(_, event)| *event == Event::Connected);
        assert!(!world.nodes.iter().any(connected));
    }
}

/// A few lost datagrams are no sign of another secret.
#[test]
fn answers_that_are_lost_twice_hardly_count() {
    let mut world = World::pair(1, &Config::default(), &lan());
    let links = world.connect_links(0, 1, &lan(), &lan());
    world.net.link(links.1).config.mtu = 1;
    world.connect(0, 1);
    world.run_ms(500);
    world.net.link(links.1).config.mtu = lan().mtu;
    world.run_ms(2000);
    assert!(world.connection(0, 1).is_some_and(|connection| connection.is_connected()));
    assert_eq!(world.nodes[1].endpoint.stats().answered_handshakes, 3);
    assert_eq!(causes(&world, 1), [0, 0, 0, 1, 0], "the owner speaks of three");
}

#[test]
fn who_is_not_admitted_does_not_connect() {
    let mut world = World::pair(1, &Config::default(), &lan());
    let key = world.nodes[0].key;
    world.nodes[1].endpoint.forbid(&key);
    world.connect(0, 1);
    world.run_ms(3000);
    assert!(world.nodes[1].endpoint.connections().next().is_none());
    let found = causes(&world, 1);
    assert!(matches!(found, [0, 0, 1..=9, 0, 0]), "{found:?}");
    world.nodes[1].endpoint.admit(key);
    world.run_ms(10_000);
    assert!(world.connection(0, 1).is_some_and(|connection| connection.is_connected()));
}

#[test]
fn both_may_begin_at_once() {
    for seed in 0..20 {
        let mut world = World::pair(seed, &Config::default(), &lan());
        world.connect(0, 1);
        world.run_ms(seed);
        if world.connection(1, 0).is_none() {
            world.connect(1, 0);
        }
        world.run_ms(3000);
        for at in 0..2 {
            let connects = world.nodes[at].events.iter().filter(|(_, event)| *event == Event::Connected);
            assert_eq!(connects.count(), 1, "seed {seed}");
            assert!(world.nodes[at].events.iter().all(|(_, event)| !matches!(event, Event::Closed(_))));
        }
    }
}

#[test]
fn a_peer_that_forgot_everything_is_heard_again() {
    let mut world = connected(&Config::default());
    let (key, address) = (world.nodes[1].key, world.nodes[1].address);
    // The dice fall as in `World::add`: the same key, another seed, a later start.
    let secret = PrivateKey::new(turbopump_sim::Dice::new(1).bytes());
    assert_eq!(secret.public(), world.nodes[0].key);
    let identity = Identity { keys: vec![secret], psks: vec![(1, PresharedKey::new([9; 32]))] };
    let now = world.now();
    let unix = 1_700_000_001_000_000_000;
    world.nodes[0].endpoint = Endpoint::new(now, Config::default(), identity, [3; 32], unix);
    world.nodes[0].endpoint.connect(now, key, address).unwrap();
    world.drain(0);
    world.run_ms(100);
    let events: Vec<Event> = world.take_events(1).into_iter().map(|(_, event)| event).collect();
    assert_eq!(events, [Event::Closed(CloseReason::Replaced), Event::Connected]);
}

#[test]
fn keys_are_renewed_while_data_flows() {
    let config = Config { rekey_after: Duration::from_secs(1), ..Config::default() };
    let mut world = connected(&config);
    for _ in 0..100 {
        let options = Options::new(Class::Request);
        world.connection(0, 1).unwrap().send(options, Bytes::from_static(b"on and on")).unwrap();
        world.drain(0);
        world.run_ms(100);
        for (_, event) in world.take_events(1) {
            if let Event::Message { id, data, .. } = event {
                world.connection(1, 0).unwrap().consumed(id, data.len() as u64);
            }
        }
    }
    let stats = world.connection(1, 0).unwrap().stats();
    assert!((9..=12).contains(&stats.handshakes), "{stats:?}");
    assert_eq!((stats.packets_rejected, stats.packets_lost), (0, 0));
}

/// Sends a request each 100 ms, each way, and has it arrive.
fn converse(world: &mut World, seconds: u64) {
    for _ in 0..seconds * 10 {
        for at in 0..2 {
            let options = Options::new(Class::Request);
            let text = Bytes::from_static(b"on and on");
            let sent = world.connection(at, 1 - at).map(|connection| connection.send(options, text));
            assert!(matches!(sent, Some(Ok(_))), "{sent:?}");
            world.drain(at);
        }
        world.run_ms(100);
        for at in 0..2 {
            let events = world.take_events(at);
            assert!(events.iter().all(|(_, event)| !matches!(event, Event::Closed(_))), "{events:?}");
            let arrived = events.iter().filter(|(_, event)| matches!(event, Event::Message { .. })).count();
            assert_eq!(arrived, 1);
        }
    }
}

#[test]
fn the_clusters_key_is_replaced_while_data_flows() {
    let config = Config { rekey_after: Duration::from_secs(2), ..Config::default() };
    let mut world = connected(&config);
    let (old, new) = ((1, PresharedKey::new([9; 32])), (2, PresharedKey::new([8; 32])));
    let both = vec![new.clone(), old.clone()];
    let id = world.nodes[0].endpoint.find(&world.nodes[1].key);
    // Whoever is first: the other has the old key alone, or the new one alone, for a while.
    let steps = [(0, both.clone()), (1, both), (1, vec![new.clone()]), (0, vec![new])];
    for (at, psks) in steps {
        assert_eq!(world.nodes[at].endpoint.set_psks(psks), Ok(()));
        let before = world.connection(0, 1).unwrap().stats().handshakes;
        converse(&mut world, 6);
        assert!(world.connection(0, 1).unwrap().stats().handshakes >= before + 2);
    }
    assert_eq!([causes(&world, 0), causes(&world, 1)], [[0; 5]; 2], "nobody is taken for a stranger");
    assert_eq!(
        world.nodes[0].endpoint.find(&world.nodes[1].key),
        id,
        "it was the same connection all the time"
    );
    // Whoever has the old key alone is a stranger now.
    assert_eq!(world.nodes[0].endpoint.set_psks(vec![old]), Ok(()));
    assert_eq!(world.nodes[0].endpoint.set_psks(Vec::new()), Err(ConnectError::NoPsk));
    world.connection(0, 1).unwrap().close(0, b"");
    world.drain(0);
    world.run_ms(100);
    world.connect(0, 1);
    world.run_ms(10_000);
    assert!(!world.connection(0, 1).is_some_and(|connection| connection.is_connected()));
}

#[test]
fn a_key_that_was_replaced_lately_is_still_answered() {
    let mut world = World::new(1);
    world.add(Config::default());
    world.add(Config::default());
    let (new, old) = (PrivateKey::new([1; 32]), PrivateKey::new([2; 32]));
    let psks = vec![(2, PresharedKey::new([8; 32])), (1, PresharedKey::new([9; 32]))];
    let identity = Identity { keys: vec![new, old.clone()], psks };
    world.nodes[1].endpoint = Endpoint::new(Time::ZERO, Config::default(), identity, [1; 32], 1 << 60);
    let peer = world.nodes[0].key;
    world.nodes[1].endpoint.admit(peer);
    world.nodes[1].key = old.public();
    world.connect_links(0, 1, &lan(), &lan());
    world.connect(0, 1);
    world.run_ms(1000);
    assert!(world.connection(0, 1).is_some_and(|connection| connection.is_connected()));
}

#[test]
fn a_peer_whose_address_changes_stays_connected_and_proves_it() {
    let mut world = connected(&Config::default());
    let outside = SocketAddr::from(([172, 16, 0, 1], 9001));
    let address = world.nodes[0].address;
    world.net.rebind(address, outside);
    world.run_ms(3000);
    let events: Vec<Event> = world.take_events(1).into_iter().map(|(_, event)| event).collect();
    assert_eq!(events, [Event::PathChanged(outside)]);
    assert_eq!(world.connection(1, 0).unwrap().remote(), outside);
}

/// Somebody who repeats our packets from elsewhere, faster than we are, gets three times what he sent at
/// most.
#[test]
fn an_address_that_is_not_proved_gets_little() {
    let mut world = connected(&Config::default());
    let id = world.connection(1, 0).unwrap().open(Options::new(Class::Bulk)).unwrap();
    world.connection(1, 0).unwrap().write(id, &mut Bytes::from(vec![1; 8 << 20])).unwrap();
    let liar = SocketAddr::from(([192, 0, 2, 7], 999));
    let to = world.nodes[1].address;
    let now = world.now();
    let options = Options::new(Class::Request);
    world.connection(0, 1).unwrap().send(options, Bytes::from_static(b"from here")).unwrap();
    let mut out = Vec::new();
    let transmit = world.nodes[0].endpoint.poll_transmit(now, &mut out).unwrap();
    let seen = tap(&mut world);
    world.deliver(Datagram { from: liar, to, mark: Mark::None, bytes: out });
    let (now, mut buffer, mut lied) = (world.now(), Vec::new(), 0);
    while let Some(transmit) = world.nodes[1].endpoint.poll_transmit(now, &mut buffer) {
        lied += if transmit.to == liar { transmit.len } else { 0 };
    }
    assert!(lied <= 3 * transmit.len, "{lied} bytes for {}", transmit.len);
    world.drain(1);
    world.run_ms(5000);
    assert_eq!(world.connection(1, 0).unwrap().remote(), world.nodes[0].address);
    assert!(!seen.borrow().is_empty());
}

#[test]
fn a_dead_peer_is_noticed_within_five_seconds() {
    let mut world = connected(&Config::default());
    let links = world.connect_links(0, 1, &lan(), &lan());
    world.net.link(links.0).config.mtu = 1;
    world.net.link(links.1).config.mtu = 1;
    let began = world.net.now();
    let closed = |world: &mut World| {
        world.nodes.iter().all(|node| node.events.iter().any(|(_, event)| matches!(event, Event::Closed(_))))
    };
    assert!(world.run_until(began + 5_000_000_000, closed));
    assert!(world.nodes.iter().all(|node| node.endpoint.connections().next().is_none()));
}

#[test]
fn a_closed_connection_says_why() {
    let mut world = connected(&Config::default());
    world.connection(0, 1).unwrap().close(7, b"enough");
    world.drain(0);
    world.run_ms(100);
    let reason = CloseReason::Peer { code: 7, reason: "enough".into() };
    assert_eq!(world.take_events(1).pop().map(|(_, event)| event), Some(Event::Closed(reason)));
    assert_eq!(world.take_events(0).pop().map(|(_, event)| event), Some(Event::Closed(CloseReason::Local)));
    assert!(world.nodes.iter().all(|node| node.endpoint.connections().next().is_none()));
}
