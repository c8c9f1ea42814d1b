//! Every way in which the first datagrams of a handshake can be lost: both sides connect nevertheless, once.

mod world;

use std::time::Duration;

use bytes::Bytes;
use turbopump_sim::{LinkConfig, Loss};
use turbopump_udt::{Class, Config, Event, Options};
use world::World;

const SECOND: u64 = 1_000_000_000;
/// Datagrams of which each may be lost: all ways are 2 to the power of this.
const EVENTS: u32 = 8;
/// Networks that delay, lose and repeat.
const SEEDS: u64 = 300;

/// Whether a node is connected; it has been told so once at most.
fn connected(world: &World, at: usize) -> bool {
    let events = &world.nodes[at].events;
    assert!(events.iter().all(|(_, event)| *event == Event::Connected) && events.len() < 2, "{events:?}");
    !events.is_empty()
}

/// Runs until both are connected, losing those of the first datagrams whose bits are set. One begins, and the
/// other too after some milliseconds, unless it is connected. Returns the time.
fn connect(lost: u32, first: usize, second_ms: Option<u64>) -> u64 {
    let link = LinkConfig { delay: Duration::from_millis(10), ..LinkConfig::default() };
    let mut world = World::pair(1, &Config::default(), &link);
    world.connect(first, 1 - first);
    let mut second_at = second_ms.map(|ms| ms * 1_000_000);
    let mut arrived = 0;
    while !(connected(&world, 0) && connected(&world, 1)) {
        let timer = world.nodes.iter().filter_map(|node| node.endpoint.poll_timeout()).min();
        let timer = timer.map_or(u64::MAX, |time| time.as_nanos()).min(second_at.unwrap_or(u64::MAX));
        assert!(world.net.now() < 60 * SECOND, "{lost:#b}: {:?}", world.nodes[0].endpoint);
        if world.net.next_arrival().is_none_or(|at| at > timer) {
            world.step(timer);
            if second_at.take_if(|at| *at <= timer).is_some() && world.connection(1 - first, first).is_none()
            {
                world.connect(1 - first, first);
            }
        } else if let Some(datagram) = world.net.arrive(timer) {
            arrived += 1;
            if arrived > EVENTS || lost >> (arrived - 1) & 1 == 0 {
                let at = world.deliver(datagram);
                at.into_iter().for_each(|at| world.drain(at));
            }
        }
    }
    // What is still under way changes nothing any more.
    let now = world.net.now();
    world.run_ms(2000);
    assert!(connected(&world, 0) && connected(&world, 1));
    assert!(world.connection(0, 1).is_some_and(|connection| connection.is_connected()));
    now
}

#[test]
fn whatever_is_lost_both_connect_once() {
    // While the first INIT is under way, its answer, the first packet; and between repeats.
    let seconds = [None, Some(0), Some(5), Some(15), Some(25), Some(255)];
    for (first, second_ms) in [0, 1].into_iter().flat_map(|first| seconds.map(|second| (first, second))) {
        let slowest = (0..1 << EVENTS).map(|lost| connect(lost, first, second_ms)).max();
        assert!(slowest < Some(40 * SECOND), "{first} {second_ms:?}: {slowest:?}");
        let least = connect(0, first, second_ms);
        // INIT, RESP and the first packet; of whoever goes first, where both begin.
        let own = if second_ms.is_some_and(|ms| ms < 10) { second_ms.unwrap_or(0) } else { 0 };
        assert!(
            (30_000_000..=30_000_000 + own * 1_000_000).contains(&least),
            "{first} {second_ms:?}: {least}"
        );
    }
}

#[test]
fn whatever_comes_late_or_twice_both_connect_once() {
    for seed in 0..SEEDS {
        let mut dice = turbopump_sim::Dice::new(seed);
        let delay = Duration::from_millis(10);
        let link = LinkConfig {
            delay,
            jitter: delay * dice.below(20) as u32,
            loss: Loss::Random(dice.pick(&[0.0, 0.1, 0.4])),
            reorder: 0.3,
            held: delay * dice.below(30) as u32,
            duplicate: 0.2,
            ..LinkConfig::default()
        };
        // Nobody is taken for dead because of the losses.
        let config = Config { silence_max: Duration::from_secs(30), ..Config::default() };
        let mut world = World::pair(seed, &config, &link);
        for at in [0, 1] {
            if world.connection(at, 1 - at).is_none() {
                world.connect(at, 1 - at);
            }
            world.run_ms(dice.below(400));
        }
        let both = |world: &mut World| connected(world, 0) && connected(world, 1);
        assert!(world.run_until(90 * SECOND, both), "seed {seed}");
        world.run_ms(5000);
        both(&mut world);
        for at in [0, 1] {
            let text = Bytes::from_static(b"hello");
            let sent = world.connection(at, 1 - at).map(|c| c.send(Options::new(Class::Request), text));
            assert!(matches!(sent, Some(Ok(_))), "seed {seed}");
            world.drain(at);
        }
        let told = |world: &World, at: usize| world.nodes[at].events.len() > 1;
        let end = world.net.now() + 20 * SECOND;
        assert!(world.run_until(end, |world| told(world, 0) && told(world, 1)), "seed {seed}");
    }
}
