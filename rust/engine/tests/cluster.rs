//! Three engines in one process: what one is told, all know.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
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

fn cluster(name: &str, copies: usize, acks: Acks) -> Result<Vec<Node>, Failure> {
    let names = ["a", "b", "c"];
    let held: Vec<UdpSocket> =
        names.iter().map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let ports: Vec<SocketAddr> = held.iter().map(UdpSocket::local_addr).collect::<Result<_, _>>()?;
    drop(held);
    let members: Vec<MemberOptions> = names
        .iter()
        .zip(&ports)
        .zip(1..)
        .map(|((name, address), number)| MemberOptions {
            name: (*name).into(),
            address: Some(*address),
            door: None,
            key: key(number).public(),
            weight: 1,
            zone: String::new(),
        })
        .collect();
    let start = |index: usize| -> Result<Node, Failure> {
        let options = ClusterOptions {
            members: members.clone(),
            bind: ports[index],
            key: key(index as u8 + 1),
            shared: vec![(0, PresharedKey::new([9; 32]))],
            digest_secret: [3; 16],
            redirect: false,
            cluster: ClusterConfig::default(),
            transport: turbopump_udt::Config::default(),
        };
        let keyspace = Keyspace { copies, write_acks: acks, read_acks: acks, ..Keyspace::default() };
        let config = EngineConfig {
            name: names[index].into(),
            keyspaces: vec![keyspace],
            cluster: Some(options),
            ..EngineConfig::default()
        };
        let engine = Engine::new(config)?;
        let socket = std::env::temp_dir().join(format!("tp-{}-{name}-{index}", std::process::id()));
        let listener = UnixListener::bind(&socket)?;
        engine.listen(listener.as_fd(), false)?;
        engine.start()?;
        Ok(Node { engine, socket })
    };
    let nodes: Vec<Node> = (0..names.len()).map(start).collect::<Result<_, _>>()?;
    for node in &nodes {
        eventually(|| Ok(node.engine.peers().iter().filter(|peer| peer.state == "alive").count() == 2))?;
    }
    Ok(nodes)
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
    let nodes = cluster("clone", 0, Acks::One)?;
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
    let nodes = cluster("quorum", 0, Acks::Quorum)?;
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
    let nodes = cluster("partition", 2, Acks::Quorum)?;
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
