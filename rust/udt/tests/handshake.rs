//! Every way in which the first datagrams of a handshake can be lost: both sides connect nevertheless, once.

mod world;

use std::time::Duration;

use turbopump_sim::LinkConfig;
use turbopump_udt::{Config, Event};
use world::World;

const SECOND: u64 = 1_000_000_000;
/// Datagrams of which each may be lost: all ways are 2 to the power of this.
const EVENTS: u32 = 8;

/// Runs until both are connected, losing those of the first datagrams whose bits are set. Returns the time.
fn connect(lost: u32, both: bool) -> u64 {
    let link = LinkConfig { delay: Duration::from_millis(10), ..LinkConfig::default() };
    let mut world = World::pair(1, &Config::default(), &link);
    world.connect(0, 1);
    if both {
        world.connect(1, 0);
    }
    let mut arrived = 0;
    let connected = |world: &World, at: usize| {
        let events = &world.nodes[at].events;
        assert!(events.iter().all(|(_, event)| *event == Event::Connected) && events.len() < 2, "{events:?}");
        !events.is_empty()
    };
    while !(connected(&world, 0) && connected(&world, 1)) {
        let timer = world.nodes.iter().filter_map(|node| node.endpoint.poll_timeout()).min();
        let timer = timer.map_or(u64::MAX, |time| time.as_nanos());
        assert!(world.net.now() < 60 * SECOND, "{lost:#b}: {:?}", world.nodes[0].endpoint);
        if world.net.next_arrival().is_none_or(|at| at > timer) {
            world.step(timer);
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
    for both in [false, true] {
        let slowest = (0..1 << EVENTS).map(|lost| connect(lost, both)).max();
        assert!(slowest < Some(40 * SECOND), "{slowest:?}");
        assert_eq!(connect(0, both), 30_000_000, "INIT, RESP and the first packet");
    }
}
