//! Large values between a client and a node that it is not connected to: whoever is slow, the node in between
//! holds little of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on panics where it stands"
)]

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use turbopump_core::cluster::{Cluster, ClusterConfig, Now, Transmit};
use turbopump_core::config::Limits;
use turbopump_core::keyspace::{Keyspace, Keyspaces};
use turbopump_core::layout::Member;
use turbopump_core::message::{Half, Message};
use turbopump_core::outbox::Outbox;
use turbopump_core::output::Output;
use turbopump_core::replica::Replica;
use turbopump_core::routes::{MemberIndex, Routes};
use turbopump_core::session::{Client, Flow, Session, World};
use turbopump_core::store::{Store, StoreConfig};
use turbopump_core::version::NodeId;
use turbopump_core::waits::Waits;

const WINDOW: usize = 4 << 20;
/// What is read from a client at once.
const READ: usize = 64 << 10;
/// What a value is beside its bytes.
const HEAD: usize = 100;
const NAMES: [&str; 2] = ["a", "b"];

/// One of two nodes, with one client.
struct Node {
    cluster: Cluster,
    replica: Replica,
    session: Session,
    out: Output,
    flow: Flow,
}

/// Both, and what is between them.
struct Pair {
    now: Now,
    nodes: [Node; 2],
    /// By sender.
    ways: [VecDeque<Cargo>; 2],
    streams: u64,
}

enum Cargo {
    Whole(Bytes),
    Piece(u64, Bytes),
    End(u64),
}

fn node(index: usize) -> Node {
    let keyspaces = || Keyspaces::new(vec![Keyspace { copies: 1, ..Keyspace::default() }]);
    let member = |name: &str| Member { name: name.into(), weight: 1, zone: String::new() };
    let members = NAMES.iter().map(|name| member(name)).collect();
    let id = |name: &str| NodeId(u64::from(name.as_bytes()[0]));
    let routes = Arc::new(Routes::new(members, NAMES[index], keyspaces(), id).unwrap());
    let (node, digest_secret) = (id(NAMES[index]), [0; 16]);
    let config = StoreConfig { node, hash_seed: 1, digest_secret, keyspaces: keyspaces(), memory_max: 0 };
    let outbox = Arc::new(Outbox::new(Arc::clone(&routes), 0, Arc::new(|| {})));
    let limits = Arc::new(Limits { relayed_max: WINDOW, ..Limits::default() });
    let waits = Arc::new(Waits::new(10, Box::new(|_| {})));
    let store = Arc::new(Store::new(config));
    let replica = Replica::new(store, waits, limits).with_outbox(Arc::clone(&outbox));
    let cluster = Cluster::new(ClusterConfig::default(), replica.clone(), vec![outbox], routes);
    let session = Session::new(Client::new(1, None));
    Node { cluster, replica, session, out: Output::default(), flow: Flow::Read }
}

impl Node {
    fn step(&mut self, step: impl FnOnce(&mut Session, &mut World<'_>) -> Flow) {
        let mut world = World { replica: &self.replica, now_ms: 1, random: 1, out: &mut self.out };
        self.flow = step(&mut self.session, &mut world);
    }

    /// Takes so many bytes of what the client is sent.
    fn read(&mut self, most: usize) -> Vec<u8> {
        let count = self.out.front().len().min(most);
        let bytes = self.out.front()[..count].to_vec();
        self.out.advance(count);
        bytes
    }

    /// What this node holds of what is between a client and another node.
    fn held(&self) -> usize {
        self.out.len() + self.cluster.held()
    }
}

impl Pair {
    fn new() -> Self {
        let now = Now { ms: 1, unix_ms: 1 };
        let mut pair = Pair { now, nodes: [node(0), node(1)], ways: Default::default(), streams: 0 };
        (0..2).for_each(|at| pair.nodes[at].cluster.handle_connected(now, 1 - at as MemberIndex));
        pair.settle();
        pair
    }

    /// A key that only the other node keeps.
    fn key(&self) -> String {
        let routes = self.nodes[0].cluster.routes();
        (0..).map(|number| format!("k{number}")).find(|key| !routes.is_mine(key.as_bytes())).unwrap()
    }

    /// Has the client of a node send some bytes.
    fn send(&mut self, at: usize, bytes: &[u8]) {
        self.nodes[at].step(|session, world| session.handle_input(bytes, false, world));
    }

    /// Takes messages of a node from it; those that were sent last go first, as far as they may.
    fn collect(&mut self, from: usize) -> bool {
        let cluster = &mut self.nodes[from].cluster;
        cluster.handle_orders(self.now);
        cluster.handle_timeout(self.now);
        cluster.work(self.now);
        let mut messages: Vec<Transmit> = Vec::new();
        while let Some(transmit) = cluster.poll_transmit(1 - from as MemberIndex) {
            messages.insert(0, transmit);
        }
        let any = !messages.is_empty();
        for Transmit { pieces, .. } in messages {
            if pieces.iter().map(Bytes::len).sum::<usize>() <= 16 << 10 {
                self.ways[from].push_front(Cargo::Whole(Vec::from(pieces).concat().into()));
                continue;
            }
            self.streams += 1;
            for mut piece in pieces {
                while !piece.is_empty() {
                    let next = piece.split_to(piece.len().min(65_000));
                    self.ways[from].push_back(Cargo::Piece(self.streams, next));
                }
            }
            self.ways[from].push_back(Cargo::End(self.streams));
        }
        any
    }

    fn deliver(&mut self, from: usize, cargo: Cargo) {
        let (now, peer, cluster) = (self.now, from as MemberIndex, &mut self.nodes[1 - from].cluster);
        match cargo {
            Cargo::Whole(bytes) => cluster.handle_message(now, peer, bytes),
            Cargo::Piece(stream, bytes) => cluster.handle_piece(now, peer, stream, bytes),
            Cargo::End(stream) => cluster.handle_end(now, peer, stream),
        }
        .unwrap();
    }

    /// Lets everything happen that can while clients do nothing; returns the most that a node held.
    fn settle(&mut self) -> usize {
        let mut most = 0;
        loop {
            most = most.max(self.answer(0)).max(self.answer(1));
            let mut any = self.collect(0) | self.collect(1);
            for from in 0..2 {
                while let Some(cargo) = self.ways[from].pop_front() {
                    any = true;
                    self.deliver(from, cargo);
                    most = most.max(self.answer(1 - from));
                }
            }
            for node in &mut self.nodes {
                if node.flow == Flow::Yield && node.out.len() <= node.replica.limits().output_max {
                    node.step(Session::resume);
                    any = true;
                }
            }
            if !any {
                return most;
            }
        }
    }

    /// Gives the client of a node what it waits for.
    fn answer(&mut self, at: usize) -> usize {
        let node = &mut self.nodes[at];
        while let Some((_, outcome)) = node.cluster.poll_done() {
            if node.session.is_sending() {
                node.session.hear(outcome);
                continue;
            }
            node.step(|session, world| session.handle_outcome(outcome, world));
        }
        node.session.handle_sent(node.out.len(), &node.replica);
        node.held()
    }

    /// Has the client of a send a request as it may, and the network work when it may not. Returns the most
    /// that a held.
    fn write(&mut self, request: &[u8]) -> usize {
        let mut most = 0;
        for bytes in request.chunks(READ) {
            if !self.nodes[0].session.has_room(&self.nodes[0].replica) {
                self.settle();
                assert!(self.nodes[0].session.has_room(&self.nodes[0].replica), "it stands still");
            }
            self.send(0, bytes);
            self.collect(0);
            most = most.max(self.nodes[0].held());
        }
        self.settle();
        most
    }

    /// What the second node has of a key.
    fn value_there(&self, key: &str) -> Option<Vec<u8>> {
        let store = self.nodes[1].replica.store();
        store.read(key.as_bytes(), |view| view.and_then(|view| view.value.map(|value| value.to_vec())))
    }

    /// What node b does for a.
    fn requests(&self) -> u64 {
        self.nodes[1].cluster.peer_stats(0).requests
    }
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index % 251) as u8).collect()
}

/// A pair, a key that the second keeps, and its value.
fn kept_there(len: usize) -> (Pair, String, Vec<u8>) {
    let (mut pair, value) = (Pair::new(), bytes(len));
    let key = pair.key();
    let write = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${len}\r\n", key.len());
    pair.send(1, &[write.as_bytes(), &value, b"\r\n"].concat());
    pair.settle();
    assert_eq!(pair.nodes[1].read(HEAD), b"+OK\r\n");
    (pair, key, value)
}

fn get(key: &str) -> String {
    format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len())
}

#[test]
fn a_client_that_reads_slowly_has_the_node_in_between_hold_a_window() {
    let (mut pair, key, value) = kept_there(64 << 20);
    pair.send(0, [get(&key), "PING\r\n".into()].concat().as_bytes());
    let (mut got, mut most) = (Vec::new(), pair.settle());
    let whole = [format!("${}\r\n", value.len()).as_bytes(), &value, b"\r\n+PONG\r\n"].concat();
    while got.len() < whole.len() {
        got.extend(pair.nodes[0].read(100_000));
        most = most.max(pair.settle());
        assert!(
            !pair.nodes[0].out.is_empty() || got.len() == whole.len(),
            "it stands still at {}",
            got.len()
        );
    }
    assert!(got == whole, "other bytes");
    assert!(most <= WINDOW + HEAD && most > WINDOW / 2, "{most} bytes were held");
    assert_eq!(
        (pair.requests(), pair.nodes[0].cluster.waiting(), pair.nodes[1].cluster.waiting()),
        (0, 0, 0)
    );
}

#[test]
fn replies_around_the_window_are_whole() {
    for len in [WINDOW - HEAD, WINDOW - 9, WINDOW - 8, WINDOW, WINDOW + 1, WINDOW + (WINDOW / 4), 3 * WINDOW]
    {
        let (mut pair, key, value) = kept_there(len);
        pair.send(0, format!("read|name={key} frame=1|\n").as_bytes());
        let mut got = Vec::new();
        pair.settle();
        while !pair.nodes[0].out.is_empty() {
            got.extend(pair.nodes[0].read(usize::MAX));
            pair.settle();
        }
        assert!(got.strip_suffix(b"\n").is_some_and(|got| got.ends_with(&value)), "of {len}: {}", got.len());
        assert_eq!(pair.requests(), 0);
    }
}

#[test]
fn keys_of_several_nodes_are_read_although_their_replies_come_in_parts() {
    let (mut pair, key, value) = kept_there(2 * WINDOW);
    let mine = (0..).map(|number| format!("k{number}")).find(|key| {
        let routes = pair.nodes[0].cluster.routes();
        routes.is_mine(key.as_bytes())
    });
    let both = [mine.unwrap(), key];
    let request = format!("MGET {} {}\r\n", both[0], both[1]);
    pair.send(0, request.as_bytes());
    pair.settle();
    let whole = [format!("*2\r\n$-1\r\n${}\r\n", value.len()).as_bytes(), &value, b"\r\n"].concat();
    assert!(pair.nodes[0].read(usize::MAX) == whole);
    assert_eq!(pair.requests(), 0);
}

#[test]
fn who_leaves_in_the_middle_is_read_for_no_more() {
    let (mut pair, key, _) = kept_there(64 << 20);
    pair.send(0, get(&key).as_bytes());
    pair.settle();
    assert_eq!(pair.requests(), 1);
    let node = &pair.nodes[0];
    node.session.forsake(&node.replica);
    pair.settle();
    assert_eq!(
        (pair.requests(), pair.nodes[0].cluster.waiting(), pair.nodes[1].cluster.waiting()),
        (0, 0, 0)
    );
}

#[test]
fn who_leaves_before_the_reply_begins_is_read_for_no_more() {
    for len in [10, 64 << 20] {
        let (mut pair, key, _) = kept_there(len);
        pair.send(0, get(&key).as_bytes());
        let node = &pair.nodes[0];
        node.session.forsake(&node.replica);
        pair.settle();
        assert_eq!((pair.requests(), pair.nodes[0].cluster.waiting()), (0, 0));
    }
    // A guest that waits for a key goes at once, and not when its time is over.
    let mut pair = Pair::new();
    let key = pair.key();
    pair.send(0, format!("wait|name={key} timeout=1000|\n").as_bytes());
    pair.settle();
    assert_eq!(pair.requests(), 1);
    let node = &pair.nodes[0];
    node.session.forsake(&node.replica);
    pair.settle();
    assert_eq!(pair.requests(), 0);
}

#[test]
fn a_client_that_reads_nothing_is_not_waited_for_for_ever() {
    let (mut pair, key, _) = kept_there(64 << 20);
    pair.send(0, get(&key).as_bytes());
    pair.settle();
    pair.now.ms += pair.nodes[1].replica.limits().stall_ms_max;
    pair.settle();
    assert_eq!((pair.requests(), pair.nodes[0].cluster.waiting()), (0, 0));
    assert_eq!(pair.nodes[0].flow, Flow::Close, "what it has is no whole reply");
}

#[test]
fn a_reply_breaks_off_when_its_node_is_lost() {
    let (mut pair, key, _) = kept_there(64 << 20);
    pair.send(0, get(&key).as_bytes());
    pair.settle();
    let now = pair.now;
    pair.nodes[0].cluster.handle_closed(now, 1);
    pair.nodes[1].cluster.handle_closed(now, 0);
    pair.settle();
    assert_eq!((pair.requests(), pair.nodes[0].cluster.waiting()), (0, 0));
    assert_eq!(pair.nodes[0].flow, Flow::Close);
}

#[test]
fn more_than_was_asked_for_is_refused() {
    let (mut pair, key, _) = kept_there(64 << 20);
    pair.send(0, get(&key).as_bytes());
    assert!(pair.collect(0));
    let Some(Cargo::Whole(forward)) = pair.ways[0].pop_front() else { panic!("nothing was sent") };
    let Ok(Some((Message::Forward { id, .. }, _))) = Message::decode(forward, true) else {
        panic!("it was not forwarded")
    };
    let part = Message::Part { of: Half::Reply, id, offset: WINDOW as u64 - 2, last: false };
    let lie = Bytes::from([&part.to_bytes()[..], b"abc"].concat());
    assert!(pair.nodes[0].cluster.handle_message(pair.now, 1, lie).is_err());
}

fn set(key: &str, value: &[u8]) -> Vec<u8> {
    let head = format!("*5\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n", key.len(), value.len());
    [head.as_bytes(), value, b"\r\n$2\r\nEX\r\n$4\r\n1000\r\n"].concat()
}

fn write(key: &str, value: &[u8]) -> Vec<u8> {
    [format!("write|name={key} length={}|", value.len()).as_bytes(), value, b"\n"].concat()
}

/// What a client is told in all.
fn heard(node: &mut Node) -> String {
    let mut all = Vec::new();
    while !node.out.is_empty() {
        all.extend(node.read(usize::MAX));
    }
    String::from_utf8(all).unwrap()
}

#[test]
fn a_client_that_writes_fast_has_the_node_in_between_hold_a_window() {
    for len in [WINDOW + 1, 5 * WINDOW - 7, 64 << 20] {
        let value = bytes(len);
        let mut pair = Pair::new();
        let key = pair.key();
        let most = pair.write(&[set(&key, &value), get(&key)[..9].into()].concat());
        assert!(most <= WINDOW + READ, "{most} bytes were held");
        assert_eq!(heard(&mut pair.nodes[0]), "+OK\r\n");
        assert!(pair.value_there(&key) == Some(value));
        assert_eq!((pair.requests(), pair.nodes[0].cluster.waiting()), (0, 0));
        assert_eq!(pair.nodes[0].replica.store().usage().total().bytes(), 0, "nothing stays in its account");
    }
}

#[test]
fn the_pipe_protocol_writes_so_with_a_length_and_up_to_the_end() {
    let value = bytes(5 * WINDOW);
    let mut pair = Pair::new();
    let key = pair.key();
    let keep = b"keep|frame=1|\n".to_vec();
    let most = pair.write(&[keep, write(&key, &value), b"ping||\n".to_vec()].concat());
    assert!(most <= WINDOW + READ, "{most} bytes were held");
    let told = heard(&mut pair.nodes[0]);
    assert!(told.contains("version=") && told.contains("pong"), "{told}");
    assert!(pair.value_there(&key).as_ref() == Some(&value));

    let mut pair = Pair::new();
    let most = pair.write(&[format!("write|name={key} length=eof|").as_bytes(), &value].concat());
    assert!(most <= WINDOW + READ, "{most} bytes were held");
    assert_eq!(pair.value_there(&key), None, "it has no end yet");
    pair.nodes[0].step(|session, world| session.handle_input(b"", true, world));
    pair.settle();
    assert!(heard(&mut pair.nodes[0]).starts_with("ok|version="));
    assert_eq!(pair.nodes[0].flow, Flow::Close);
    assert!(pair.value_there(&key) == Some(value));
    assert_eq!((pair.requests(), pair.nodes[0].cluster.waiting()), (0, 0));
}

#[test]
fn who_leaves_in_the_middle_of_a_write_has_written_nothing() {
    let (mut pair, value) = (Pair::new(), bytes(5 * WINDOW));
    let key = pair.key();
    let request = set(&key, &value);
    pair.write(&request[..3 * WINDOW]);
    assert_eq!(pair.requests(), 1);
    let node = &pair.nodes[0];
    node.session.forsake(&node.replica);
    pair.settle();
    assert_eq!((pair.requests(), pair.nodes[0].cluster.waiting(), pair.value_there(&key)), (0, 0, None));
    assert_eq!(pair.nodes[1].replica.store().usage().total().bytes(), 0);
}

#[test]
fn who_leaves_when_all_of_a_write_was_sent_has_written_it() {
    let (mut pair, value) = (Pair::new(), bytes(2 * WINDOW));
    let key = pair.key();
    let request = set(&key, &value);
    let (most, last) = request.split_at(request.len() - READ);
    pair.write(most);
    pair.send(0, last);
    let node = &pair.nodes[0];
    node.session.forsake(&node.replica);
    pair.settle();
    assert!(pair.value_there(&key) == Some(value));
    assert_eq!((pair.requests(), pair.nodes[0].cluster.waiting()), (0, 0));
}

#[test]
fn a_write_whose_node_is_lost_is_skipped_and_refused() {
    for whole in [false, true] {
        let (mut pair, value) = (Pair::new(), bytes(5 * WINDOW));
        let key = pair.key();
        let request = set(&key, &value);
        let at = if whole { request.len() } else { 3 * WINDOW };
        let (before, after) = request.split_at(at - READ);
        pair.write(before);
        pair.send(0, &after[..READ]);
        pair.collect(0);
        pair.ways = Default::default();
        let now = pair.now;
        pair.nodes[0].cluster.handle_closed(now, 1);
        pair.nodes[1].cluster.handle_closed(now, 0);
        pair.write(&[&after[READ..], b"PING\r\n"].concat());
        let told = heard(&mut pair.nodes[0]);
        let why = if whole { "it may be done or not" } else { "nothing was done, try again" };
        assert!(told.starts_with('-') && told.contains(why) && told.ends_with("\r\n+PONG\r\n"), "{told}");
        assert_eq!((pair.requests(), pair.nodes[0].cluster.waiting(), pair.value_there(&key)), (0, 0, None));
    }
}

#[test]
fn a_client_that_sends_nothing_more_is_not_waited_for_for_ever() {
    let (mut pair, value) = (Pair::new(), bytes(5 * WINDOW));
    let key = pair.key();
    let request = set(&key, &value);
    pair.write(&request[..3 * WINDOW]);
    pair.now.ms += pair.nodes[1].replica.limits().stall_ms_max;
    pair.settle();
    assert_eq!((pair.requests(), pair.nodes[0].cluster.waiting()), (0, 0));
    pair.write(&request[3 * WINDOW..]);
    let told = heard(&mut pair.nodes[0]);
    assert!(told.starts_with('-') && told.contains("waited 600 s for this client"), "{told}");
}
