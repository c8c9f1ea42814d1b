//! Two nodes with different files: neither lets the other in, and neither keeps asking. Time stands still for
//! them unless the test moves it.

use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use turbopump_core::cluster::{Cluster, ClusterConfig, Notice, Now};
use turbopump_core::config::Limits;
use turbopump_core::keyspace::Keyspaces;
use turbopump_core::layout::Member;
use turbopump_core::outbox::Outbox;
use turbopump_core::replica::Replica;
use turbopump_core::routes::Routes;
use turbopump_core::store::{Store, StoreConfig};
use turbopump_core::version::NodeId;
use turbopump_core::waits::Waits;
use turbopump_engine::peers::{Address, Peers};
use turbopump_udt::{Config, Identity, PresharedKey, PrivateKey};

const NAMES: [&str; 2] = ["a", "b"];
const PATIENCE: Duration = Duration::from_secs(20);
/// Turns after which whoever does not wait has dialled many times: each is a round trip on loopback.
const TURNS: usize = 150;
/// The longest that a node waits.
const REFUSED_MS: u64 = 10_000;

type Failure = Box<dyn Error>;

struct Node {
    peers: Peers,
    poll: Poll,
    events: Events,
    /// How often the other was refused, and found.
    refused: usize,
    up: usize,
}

fn cluster(me: usize, file: u8) -> Result<Cluster, Failure> {
    let member = |name: &str| Member { name: name.into(), weight: 1, zone: String::new() };
    let members = NAMES.map(member).to_vec();
    let id = |name: &str| NodeId(if name == NAMES[0] { 1 } else { 2 });
    let routes = Arc::new(Routes::new(members, NAMES[me], Keyspaces::default(), id)?);
    let store = Arc::new(Store::new(StoreConfig {
        node: NodeId(me as u64 + 1),
        hash_seed: 1,
        digest_secret: [0; 16],
        keyspaces: Keyspaces::default(),
        memory_max: 0,
    }));
    store.keep_tombstones(true);
    let outbox = Arc::new(Outbox::new(Arc::clone(&routes), 0, Arc::new(|| {})));
    let waits = Arc::new(Waits::new(1, Box::new(|_| {})));
    let replica = Replica::new(store, waits, Arc::new(Limits::default())).with_outbox(Arc::clone(&outbox));
    let config = ClusterConfig { cluster: [file; 16], boot: u64::from(file) + 1, ..ClusterConfig::default() };
    Ok(Cluster::new(config, replica, vec![outbox], routes))
}

impl Node {
    fn new(addresses: &[SocketAddr; 2], me: usize, file: u8) -> Result<Self, Failure> {
        let key = |at: usize| PrivateKey::new([at as u8 + 1; 32]);
        let identity = Identity { keys: vec![key(me)], psks: vec![(0, PresharedKey::new([9; 32]))] };
        let addresses = addresses.iter().enumerate();
        let links: Vec<Address> =
            addresses.map(|(at, to)| Address { key: key(at).public(), address: Some(*to) }).collect();
        let bind = links[me].address.ok_or("there is an address")?;
        let mut peers = Peers::bind(bind, Config::default(), identity, links, cluster(me, file)?)?;
        let poll = Poll::new()?;
        peers.register(poll.registry(), Token(0), Token(1))?;
        Ok(Node { peers, poll, events: Events::with_capacity(8), refused: 0, up: 0 })
    }

    fn turn(&mut self, now: Now) -> io::Result<()> {
        self.poll.poll(&mut self.events, Some(Duration::from_millis(1)))?;
        for event in &self.events {
            match event.token() {
                Token(0) => self.peers.handle_socket(event),
                _ => self.peers.handle_timer(),
            }
        }
        while self.peers.receive(now)? {}
        while self.peers.send(now)? {}
        while let Some(notice) = self.peers.cluster().poll_notice() {
            match notice {
                Notice::Refused(..) => self.refused += 1,
                Notice::Up(_) => self.up += 1,
                Notice::Down(_) => {}
            }
        }
        Ok(())
    }
}

/// Lets both run until something holds.
fn until(nodes: &mut [Node; 2], now: Now, holds: impl Fn(&[Node; 2]) -> bool) -> Result<(), Failure> {
    let begun = Instant::now();
    while !holds(nodes) {
        if begun.elapsed() > PATIENCE {
            return Err("it took too long".into());
        }
        nodes.iter_mut().try_for_each(|node| node.turn(now))?;
    }
    Ok(())
}

fn refused(nodes: &[Node; 2]) -> usize {
    nodes.iter().map(|node| node.refused).sum()
}

#[test]
fn whoever_is_refused_waits_and_is_let_in_when_it_begins_anew() -> Result<(), Failure> {
    // Two ports that are free: the system gives them to nobody else for a while.
    let sockets = [UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?, UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?];
    let addresses = [sockets[0].local_addr()?, sockets[1].local_addr()?];
    drop(sockets);
    let mut nodes = [Node::new(&addresses, 0, 0)?, Node::new(&addresses, 1, 1)?];
    let mut now = Now { ms: 1, unix_ms: 1_700_000_000_000 };
    for round in 1..=4 {
        // Neither gives up, either knows why, and neither comes more than once, however fast the other is.
        until(&mut nodes, now, |nodes| nodes.iter().all(|node| node.refused >= round))?;
        for _ in 0..TURNS {
            nodes.iter_mut().try_for_each(|node| node.turn(now))?;
        }
        assert!(refused(&nodes) <= 2 * round, "{} refusals in {round} rounds", refused(&nodes));
        now.ms += REFUSED_MS;
    }
    // The one with the other file begins anew with this one, and dials, while the other waits.
    now.ms -= REFUSED_MS;
    let [first, second] = nodes;
    drop(second);
    let before = first.refused;
    let mut nodes = [first, Node::new(&addresses, 1, 0)?];
    until(&mut nodes, now, |nodes| nodes.iter().all(|node| node.up == 1))?;
    assert_eq!(refused(&nodes), before);
    Ok(())
}
