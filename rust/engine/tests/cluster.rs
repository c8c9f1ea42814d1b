//! Three engines in one process: what one is told, all know.

use std::error::Error;
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use turbopump_core::cluster::ClusterConfig;
use turbopump_core::keyspace::{Acks, Keyspace};
use turbopump_engine::config::{ClusterOptions, EngineConfig, MemberOptions};
use turbopump_engine::engine::Engine;
use turbopump_udt::{PresharedKey, PrivateKey};

const PATIENCE: Duration = Duration::from_secs(20);

type Failure = Box<dyn Error>;

struct Node {
    engine: Engine,
    socket: PathBuf,
}

impl Node {
    fn alive(&self) -> usize {
        self.engine.peers().iter().filter(|peer| peer.state == "alive").count()
    }

    fn stat(&self, name: &str) -> u64 {
        self.engine.stats().into_iter().find(|(of, _)| *of == name).map_or(0, |(_, count)| count)
    }

    fn ask(&self, text: &str) -> Result<String, Failure> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(text.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn resp(&self, words: &[&str]) -> Result<String, Failure> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        request += "*1\r\n$4\r\nQUIT\r\n";
        let answer = self.ask(&request)?;
        Ok(answer.strip_suffix("+OK\r\n").map(str::to_owned).unwrap_or(answer))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn key(name: u8) -> PrivateKey {
    PrivateKey::new([name.wrapping_mul(37) | 64; 32])
}

/// Three nodes that keep so many copies of each key, 0 for all, and confirm like this.
struct Trio {
    name: &'static str,
    members: Vec<MemberOptions>,
    copies: usize,
    acks: Acks,
}

impl Trio {
    fn new(name: &'static str, copies: usize, acks: Acks) -> Result<Self, Failure> {
        let held = ["a", "b", "c"].map(|name| (name, UdpSocket::bind("127.0.0.1:0")));
        let mut members = Vec::new();
        for (number, (name, socket)) in (1..).zip(held) {
            members.push(MemberOptions {
                name: name.into(),
                address: Some(socket?.local_addr()?),
                door: None,
                key: key(number).public(),
                weight: 1,
                zone: String::new(),
            });
        }
        Ok(Trio { name, members, copies, acks })
    }

    fn start(&self, index: usize) -> Result<Node, Failure> {
        let options = ClusterOptions {
            members: self.members.clone(),
            bind: self.members[index].address.ok_or("an address")?,
            key: key(index as u8 + 1),
            shared: vec![(0, PresharedKey::new([9; 32]))],
            digest_secret: [3; 16],
            redirect: false,
            awake: Duration::from_micros(100),
            cluster: ClusterConfig { sync_ms: 100, settle_ms: 100, ..ClusterConfig::default() },
            transport: turbopump_udt::Config::default(),
        };
        let (copies, acks) = (self.copies, self.acks);
        let keyspace = Keyspace { copies, write_acks: acks, read_acks: acks, ..Keyspace::default() };
        let config = EngineConfig {
            name: self.members[index].name.clone(),
            keyspaces: vec![keyspace],
            cluster: Some(options),
            ..EngineConfig::default()
        };
        let engine = Engine::new(config)?;
        let socket = std::env::temp_dir().join(format!("tp-{}-{}-{index}", std::process::id(), self.name));
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket)?;
        engine.listen(listener.as_fd(), false)?;
        engine.start()?;
        Ok(Node { engine, socket })
    }
}

fn cluster(name: &'static str, copies: usize, acks: Acks) -> Result<(Trio, Vec<Node>), Failure> {
    let trio = Trio::new(name, copies, acks)?;
    let nodes: Vec<Node> = (0..3).map(|index| trio.start(index)).collect::<Result<_, _>>()?;
    nodes.iter().try_for_each(|node| eventually(|| Ok(node.alive() == 2)))?;
    Ok((trio, nodes))
}

fn eventually(mut holds: impl FnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
    let begun = Instant::now();
    while !holds()? {
        assert!(begun.elapsed() < PATIENCE, "it did not happen in time");
        std::thread::yield_now();
    }
    Ok(())
}

#[test]
fn a_clone_has_what_any_node_was_told() -> Result<(), Failure> {
    let (_, nodes) = cluster("clone", 0, Acks::One)?;
    assert!(nodes[0].ask("write|name=foo|great\n")?.starts_with("ok|version="));
    for node in &nodes {
        eventually(|| Ok(node.ask("read|name=foo|\n")? == "great"))?;
    }
    assert_eq!(nodes[2].resp(&["DEL", "foo"])?, ":1\r\n");
    for node in &nodes {
        eventually(|| Ok(node.resp(&["GET", "foo"])? == "$-1\r\n"))?;
    }
    Ok(())
}

#[test]
fn a_quorum_write_is_read_from_any_node_at_once() -> Result<(), Failure> {
    let (_, nodes) = cluster("quorum", 0, Acks::Quorum)?;
    for round in 0..50 {
        let (writer, reader) = (&nodes[round % 3], &nodes[(round + 1) % 3]);
        let (key, value) = (format!("key{round}"), format!("value{round}"));
        assert_eq!(writer.resp(&["SET", &key, &value])?, "+OK\r\n");
        assert_eq!(reader.resp(&["GET", &key])?, format!("${}\r\n{value}\r\n", value.len()));
        assert_eq!(reader.resp(&["APPEND", &key, "!"])?, format!(":{}\r\n", value.len() + 1));
        assert_eq!(writer.ask(&format!("read|name={key}|\n"))?, format!("{value}!"));
    }
    Ok(())
}

#[test]
fn any_node_takes_commands_for_keys_it_does_not_keep() -> Result<(), Failure> {
    let (_, nodes) = cluster("partition", 2, Acks::Quorum)?;
    let large = "x".repeat(3_000_000);
    for round in 0..30 {
        let node = &nodes[round % 3];
        let key = format!("key{round}");
        assert_eq!(node.resp(&["SET", &key, "1"])?, "+OK\r\n");
        assert_eq!(nodes[(round + 1) % 3].resp(&["INCR", &key])?, ":2\r\n");
        assert_eq!(nodes[(round + 2) % 3].ask(&format!("read|name={key}|\n"))?, "2");
    }
    let keys: Vec<String> = (0..30).map(|round| format!("key{round}")).collect();
    let mut words = vec!["MGET"];
    words.extend(keys.iter().map(String::as_str));
    for node in &nodes {
        assert_eq!(node.resp(&words)?, format!("*30\r\n{}", "$1\r\n2\r\n".repeat(30)));
    }
    words[0] = "EXISTS";
    assert_eq!(nodes[0].resp(&words)?, ":30\r\n");
    words[0] = "DEL";
    assert_eq!(nodes[1].resp(&words)?, ":30\r\n");
    for (index, node) in nodes.iter().enumerate() {
        assert_eq!(node.resp(&["SET", "large", &large])?, "+OK\r\n", "node {index}");
        for other in &nodes {
            assert_eq!(other.resp(&["STRLEN", "large"])?, ":3000000\r\n");
            assert_eq!(other.ask("read|name=large|\n")?.len(), large.len());
        }
    }
    Ok(())
}

#[test]
fn a_node_that_comes_back_empty_is_healed() -> Result<(), Failure> {
    let (trio, mut nodes) = cluster("heal", 0, Acks::Quorum)?;
    for key in 0..500 {
        assert_eq!(nodes[key % 3].resp(&["SET", &format!("key{key}"), "before"])?, "+OK\r\n");
    }
    drop(nodes.remove(1));
    for key in 400..1000 {
        assert_eq!(nodes[key % 2].resp(&["SET", &format!("key{key}"), "after"])?, "+OK\r\n");
    }
    assert_eq!(nodes[0].resp(&["DEL", "key0", "key500"])?, ":2\r\n");
    nodes.insert(1, trio.start(1)?);
    eventually(|| Ok(nodes[1].stat("keys") == 998))?;
    assert_eq!(nodes[1].ask("read|name=key450 acks=one|\n")?, "after");
    assert_eq!(nodes[1].ask("read|name=key1 acks=one|\n")?, "before");
    Ok(())
}

#[test]
fn deletes_are_forgotten_when_all_know_of_them_and_not_before() -> Result<(), Failure> {
    let (trio, mut nodes) = cluster("forget", 0, Acks::Quorum)?;
    for key in 0..50 {
        assert_eq!(nodes[0].resp(&["SET", &format!("key{key}"), "value"])?, "+OK\r\n");
    }
    eventually(|| Ok(nodes.iter().all(|node| node.stat("keys") == 50)))?;
    for key in 0..50 {
        assert_eq!(nodes[key % 3].resp(&["DEL", &format!("key{key}")])?, ":1\r\n");
    }
    eventually(|| Ok(nodes.iter().all(|node| node.stat("keys") == 0 && node.stat("tombstones") == 0)))?;
    assert_eq!(nodes[0].resp(&["SET", "held", "value"])?, "+OK\r\n");
    drop(nodes.remove(2));
    assert_eq!(nodes[0].resp(&["DEL", "held"])?, ":1\r\n");
    let rounds = |node: &Node| node.engine.peers()[1].cluster.exchange.rounds;
    let begun = rounds(&nodes[0]);
    eventually(|| Ok(rounds(&nodes[0]) > begun + 10))?;
    assert_eq!(nodes[0].stat("tombstones"), 1, "one that is away may not know");
    nodes.push(trio.start(2)?);
    eventually(|| Ok(nodes.iter().all(|node| node.stat("tombstones") == 0)))?;
    Ok(())
}
