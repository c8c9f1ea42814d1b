//! What a session promises, whatever pieces its bytes come in.
#![allow(clippy::expect_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use proptest::prelude::*;
use turbopump_core::config::Limits;
use turbopump_core::error::Refusal;
use turbopump_core::keyspace::{Keyspace, Keyspaces, Writes};
use turbopump_core::output::Output;
use turbopump_core::replica::Replica;
use turbopump_core::reply::Reply;
use turbopump_core::session::{Ask, Client, Flow, Session, World};
use turbopump_core::store::{Store, StoreConfig};
use turbopump_core::version::{NodeId, Version};
use turbopump_core::waits::Waits;

const NOW_MS: u64 = 1_700_000_000_000;

fn replica() -> Replica {
    replica_of(0)
}

fn replica_of(memory_max: u64) -> Replica {
    let keyspaces =
        vec![Keyspace { prefix: b"once/".to_vec(), writes: Writes::Immutable, ..Keyspace::default() }];
    let store = Store::new(StoreConfig {
        node: NodeId(1),
        hash_seed: 1,
        digest_secret: [0; 16],
        keyspaces: Keyspaces::new(keyspaces),
        memory_max,
    });
    let limits = Limits { line_max: 1000, value_max: 200_000, key_max: 100, ..Limits::default() };
    let waits = Waits::new(10, Box::new(|_| {}));
    Replica::new(Arc::new(store), Arc::new(waits), Arc::new(limits))
}

/// A client that sends and takes what comes back, as the reactor would.
struct Peer {
    session: Session,
    out: Output,
    received: Vec<u8>,
    now_ms: u64,
    closed: bool,
}

impl Peer {
    fn new() -> Self {
        let session = Session::new(Client::new(1, None));
        Peer { session, out: Output::default(), received: Vec::new(), now_ms: NOW_MS, closed: false }
    }

    fn send(&mut self, replica: &Replica, bytes: &[u8], last: bool) -> Flow {
        let mut world = World { replica, now_ms: self.now_ms, random: 7, out: &mut self.out };
        let mut flow = self.session.handle_input(bytes, last, &mut world);
        loop {
            while !self.out.is_empty() {
                self.received.extend_from_slice(self.out.front());
                self.out.advance(self.out.front().len());
            }
            let mut world = World { replica, now_ms: self.now_ms, random: 7, out: &mut self.out };
            flow = match flow {
                Flow::Yield => self.session.resume(&mut world),
                Flow::Ask(Ask { command, .. }) => {
                    self.session.handle_answer(&Reply::Text(format!("about {command}")), &mut world)
                }
                other => {
                    self.closed |= matches!(other, Flow::Close | Flow::Linger);
                    return other;
                }
            };
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }
}

/// Sends `wire` in pieces that end at `cuts`, then half-closes; returns what came back.
fn talk(replica: &Replica, wire: &[u8], cuts: &[usize]) -> String {
    let mut peer = Peer::new();
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (wire.len() + 1)).chain([wire.len()]).collect();
    ends.sort_unstable();
    let mut start = 0;
    for end in ends {
        if !peer.closed {
            peer.send(replica, &wire[start..end], false);
        }
        start = end;
    }
    if !peer.closed {
        peer.send(replica, b"", true);
        assert!(peer.closed, "a connection that ended is closed");
    }
    // Versions differ from run to run only by the clock of the store.
    peer.text()
}

fn once(wire: &str) -> String {
    talk(&replica(), wire.as_bytes(), &[])
}

/// Replies without the versions, which tell two runs apart.
fn plain(text: &str) -> String {
    let version = |part: &str| part.get(..33).is_some_and(|start| start.parse::<Version>().is_ok());
    let mut parts = text.split("version=");
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |text, part| text + "version=" + if version(part) { &part[33..] } else { part })
}

const PIPE: &str = "keep||\nwrite|name=a|one\nwrite|name=b%20c length=4|x\n|y\nread|name=a|\n\
    delete|name=a|\nread|name=a|\nlist||\nlocal_list||\nnonsense|x=1|\nwrite|name=c length=0|\n\
    exists|name=c|\nwrite||no name\nwrite|nam=x|y\nwrite|name=%zz|y\nping|id=7 frame=1|\nmembership||\n\
    read|name=b%20c frame=1|\nwait|name=c|\n";

const RESP: &str = "*1\r\n$4\r\nPING\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$3\r\none\r\n\
    *2\r\n$3\r\nGET\r\n$1\r\na\r\n*2\r\n$4\r\nINCR\r\n$1\r\na\r\n*1\r\n$3\r\nGET\r\n*1\r\n$4\r\nINFO\r\n\
    *2\r\n$4\r\nKEYS\r\n$1\r\n*\r\n*2\r\n$3\r\nFOO\r\n$3\r\nbar\r\n*1\r\n$7\r\nFLUSHDB\r\n\
    *1\r\n$6\r\nDBSIZE\r\nPING inline\r\n*1\r\n$4\r\nQUIT\r\n";

proptest! {
    #[test]
    fn pieces_do_not_matter(cuts in proptest::collection::vec(any::<usize>(), 0..12)) {
        for wire in [PIPE, RESP] {
            let pieces = talk(&replica(), wire.as_bytes(), &cuts);
            prop_assert_eq!(plain(&pieces), plain(&once(wire)));
        }
    }

    #[test]
    fn no_bytes_break_it(
        wire in proptest::collection::vec(any::<u8>(), 0..300),
        cuts in proptest::collection::vec(any::<usize>(), 0..4),
    ) {
        talk(&replica(), &wire, &cuts);
        talk(&replica(), &[b"keep||\n", &wire[..]].concat(), &cuts);
        talk(&replica(), &[b"*1\r\n", &wire[..]].concat(), &cuts);
    }
}

#[test]
fn byte_by_byte() {
    for wire in [PIPE, RESP] {
        let cuts: Vec<usize> = (0..wire.len()).collect();
        let replica = replica();
        assert_eq!(plain(&talk(&replica, wire.as_bytes(), &cuts)), plain(&once(wire)));
    }
}

#[test]
fn the_pipe_protocol_answers_in_order() {
    let text = plain(&once(PIPE));
    let lines: Vec<&str> = text.split('\n').collect();
    assert_eq!(lines[0], "ok|");
    assert_eq!(&lines[1..3], ["ok|version=", "ok|version="]);
    assert_eq!(lines[3], "oneok|deleted=1 version=");
    assert_eq!(lines[4], "error|code=not_found|there is no value under this key");
    assert_eq!(&lines[5..7], ["b%20c", "(b%20c)=>4"]);
    assert!(lines[7].starts_with("error|code=unknown_command|"));
    assert_eq!(&lines[8..10], ["ok|version=", "ok|exists=1"]);
    assert!(lines[10].starts_with("error|code=missing_param|"));
    assert!(lines[11].starts_with("error|code=syntax|there is no parameter \"nam\""));
    assert!(lines[12].starts_with("error|code=bad_param|name="), "{lines:#?}");
    assert_eq!(&lines[13..15], ["ok|id=7 length=4|pong", "about membership"]);
    assert_eq!(&lines[15..], ["ok|version= length=4|x", "|y", "ok|version=", ""]);
}

#[test]
fn redis_commands_answer_in_order() {
    let text = once(RESP);
    let expected = "+PONG\r\n+OK\r\n$3\r\none\r\n-ERR value is not an integer or out of range\r\n\
        -ERR wrong number of arguments for 'get' command\r\n$10\r\nabout info\r\n*1\r\n$1\r\na\r\n\
        -ERR unknown command 'FOO', with args beginning with: 'bar' \r\n+OK\r\n:0\r\n$6\r\ninline\r\n+OK\r\n";
    assert_eq!(text, expected);
}

#[test]
fn without_keep_a_connection_is_one_command() {
    let replica = replica();
    let mut peer = Peer::new();
    assert_eq!(peer.send(&replica, b"write|name=foo|haha I am a great value\n", false), Flow::Close);
    assert!(peer.text().starts_with("ok|version="));
    assert_eq!(talk(&replica, b"read|name=foo|\n", &[]), "haha I am a great value");
    assert_eq!(talk(&replica, b"read|name=foo|", &[]), "haha I am a great value");
    assert_eq!(talk(&replica, b"local_list||\n", &[]), "(foo)=>23\n");
}

#[test]
fn a_value_is_never_cut_silently() {
    let replica = replica();
    for wire in ["write|name=k|two\nlines", "write|name=k|two\nlines\n", "write|name=k|one\n\n"] {
        assert!(talk(&replica, wire.as_bytes(), &[]).starts_with("error|code=multiline|"), "{wire:?}");
    }
    for wire in ["write|name=k length=3|abcd\n", "write|name=k length=9|abcd\n", "write|name=k|no newline"] {
        assert!(talk(&replica, wire.as_bytes(), &[]).starts_with("error|code=bad_length|"), "{wire:?}");
    }
    assert!(talk(&replica, b"read|name=k|", &[]).starts_with("error|code=not_found|"));
    for (wire, value) in [
        ("write|name=k length=eof|two\nlines|with|pipes\n", "two\nlines|with|pipes\n"),
        ("write|name=k length=9|a|b\nc|d\n|", "a|b\nc|d\n|"),
        ("write|name=k|a|second|pipe\n", "a|second|pipe"),
        ("write|name=k|\n", ""),
        ("write|name=k length=3|abc\n", "abc"),
    ] {
        assert!(
            talk(&replica, wire.as_bytes(), &[3, 9, 17, 21, 23, 24]).starts_with("ok|version="),
            "{wire:?}"
        );
        assert_eq!(talk(&replica, b"read|name=k|\n", &[]), value);
    }
}

#[test]
fn large_values_pass_whole() {
    let replica = replica();
    let large: Vec<u8> = (0..150_000u32).map(|i| (i % 251) as u8).collect();
    let cuts: Vec<usize> = (0..150_000).step_by(7_919).collect();
    for head in ["length=150000", "length=eof"] {
        let wire = [format!("write|name=big {head}|").as_bytes(), &large].concat();
        assert!(talk(&replica, &wire, &cuts).starts_with("ok|version="), "{head}");
        let mut peer = Peer::new();
        peer.send(&replica, b"read|name=big|\n", false);
        assert_eq!(peer.received, large);
    }
    let wire = [
        &b"*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$150000\r\n"[..],
        &large,
        b"\r\n*2\r\n$6\r\nSTRLEN\r\n$3\r\nbig\r\n",
    ]
    .concat();
    assert_eq!(talk(&replica, &wire, &cuts), "+OK\r\n:150000\r\n");
    let too_large = [&b"keep||\nwrite|name=k length=200001|"[..], &[b'x'; 200_001], b"\nping||\n"].concat();
    let answers = talk(&replica, &too_large, &cuts);
    assert!(
        answers.starts_with("ok|\nerror|code=value_too_long|") && answers.ends_with("\npong\n"),
        "{answers}"
    );
}

#[test]
fn too_long_lines_end_the_connection_with_a_reason() {
    let replica = replica();
    for wire in [vec![b'x'; 5_000], [b"write|name=k|".to_vec(), vec![b'x'; 2_000]].concat()] {
        assert!(talk(&replica, &wire, &[]).starts_with("error|code=line_too_long|"));
    }
    let long_key = format!("keep||\nwrite|name={}|v\nping||\n", "k".repeat(101));
    let answers = talk(&replica, long_key.as_bytes(), &[]);
    assert!(answers.starts_with("ok|\nerror|code=bad_key|") && answers.ends_with("\npong\n"), "{answers}");
}

#[test]
fn immutable_keys_take_one_value() {
    let replica = replica();
    let first = talk(&replica, b"write|name=once/a|x\n", &[]);
    assert_eq!(
        talk(&replica, b"write|name=once/a|x\n", &[]),
        first,
        "the same content again is the same write"
    );
    assert!(talk(&replica, b"write|name=once/a|y\n", &[]).starts_with("error|code=immutable|"));
    assert!(
        talk(&replica, b"*2\r\n$4\r\nINCR\r\n$6\r\nonce/a\r\n", &[])
            .starts_with("-ERR value is not an integer")
    );
    for command in ["EXPIRE once/a 10", "PERSIST once/a", "GETEX once/a EX 10", "SET once/a x PXAT 1"] {
        let refused = talk(&replica, format!("{command}\r\nTTL once/a\r\n").as_bytes(), &[]);
        let persist = command.starts_with("PERSIST") && refused == ":0\r\n:-1\r\n";
        assert!(persist || (refused.starts_with("-IMMUTABLE") && refused.ends_with(":-1\r\n")), "{refused}");
    }
    assert!(talk(&replica, b"delete|name=once/a|\n", &[]).starts_with("ok|deleted=1"));
    assert!(talk(&replica, b"write|name=once/a|y\n", &[]).starts_with("ok|version="));
}

#[test]
fn conditions_hold_or_refuse() {
    let replica = replica();
    let written = talk(&replica, b"write|name=k if=absent|1\n", &[]);
    let version = written.trim().strip_prefix("ok|version=").expect("a version").to_string();
    assert!(talk(&replica, b"write|name=k if=absent|2\n", &[]).starts_with("error|code=exists|"));
    assert!(talk(&replica, b"write|name=q if=present|2\n", &[]).starts_with("error|code=missing|"));
    let at = |version: &str| format!("write|name=k if_version={version}|2\n");
    assert!(talk(&replica, at(&version).as_bytes(), &[]).starts_with("ok|"));
    assert!(talk(&replica, at(&version).as_bytes(), &[]).starts_with("error|code=version_mismatch|"));
    assert!(talk(&replica, at("x").as_bytes(), &[]).starts_with("error|code=bad_param|"));
}

#[test]
fn values_expire_by_the_clock() {
    let replica = replica();
    talk(&replica, b"write|name=k ttl=2.5|v\n", &[]);
    let mut peer = Peer::new();
    peer.now_ms = NOW_MS + 2_499;
    peer.send(&replica, b"*2\r\n$4\r\nPTTL\r\n$1\r\nk\r\n*2\r\n$3\r\nTTL\r\n$1\r\nk\r\n", false);
    peer.now_ms = NOW_MS + 2_500;
    peer.send(&replica, b"*2\r\n$4\r\nPTTL\r\n$1\r\nk\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", false);
    assert_eq!(peer.text(), ":1\r\n:0\r\n:-2\r\n$-1\r\n");
}

#[test]
fn a_wait_ends_when_the_key_appears_or_the_time_is_up() {
    let replica = replica();
    let mut waiting = Peer::new();
    let flow = waiting.send(&replica, b"wait|name=k timeout=1.5|\n", false);
    assert_eq!(flow, Flow::Wait(b"k".to_vec(), Some(1_500)));
    talk(&replica, b"write|name=k|v\n", &[]);
    let mut world = World { replica: &replica, now_ms: NOW_MS, random: 7, out: &mut waiting.out };
    assert_eq!(waiting.session.handle_wait(false, &mut world), Flow::Close);
    assert!(waiting.out.front().starts_with(b"ok|version="));

    let mut late = Peer::new();
    late.send(&replica, b"wait|name=never|", true);
    let mut world = World { replica: &replica, now_ms: NOW_MS, random: 7, out: &mut late.out };
    assert_eq!(late.session.handle_wait(true, &mut world), Flow::Close);
    assert!(late.out.front().starts_with(b"error|code=timeout|"));
}

#[test]
fn a_watch_tells_what_there_is_room_for_and_ends_when_it_is_gone() {
    let replica = replica();
    let mut watching = Peer::new();
    assert_eq!(watching.send(&replica, b"keep||\nwatch|prefix=a|\n", false), Flow::Watch(true));
    let (mut flow, mut told) = (Flow::Watch(true), 0);
    for number in 0..300 {
        talk(&replica, format!("write|name=a{number}|v\n").as_bytes(), &[]);
    }
    while flow == Flow::Watch(true) {
        let mut world = World { replica: &replica, now_ms: NOW_MS, random: 7, out: &mut watching.out };
        flow = watching.session.handle_changes(false, &mut world);
        told += 1;
    }
    assert_eq!((flow, told), (Flow::Watch(false), 3));
    let text = String::from_utf8_lossy(watching.out.front()).into_owned();
    assert_eq!(text.lines().filter(|line| line.starts_with("event|revision=")).count(), 300);

    let mut world = World { replica: &replica, now_ms: NOW_MS, random: 7, out: &mut watching.out };
    assert_eq!(watching.session.handle_changes(true, &mut world), Flow::Watch(false));
    assert_eq!(watching.session.handle_refusal(Refusal::ShuttingDown, &mut world), Flow::Read);
    assert_eq!(replica.feed().watches(), 0);
    let text = String::from_utf8_lossy(watching.out.front()).into_owned();
    assert!(text.contains("ok|revision=") && text.contains("error|code=shutting_down|"), "{text}");
}

#[test]
fn a_busy_node_says_so_in_the_clients_words() {
    let replica = replica();
    for (wire, expected) in
        [(&b"*1\r\n$4\r\nINFO\r\n"[..], "-BUSY later\r\n"), (b"status||\n", "error|code=busy|later\n")]
    {
        let mut peer = Peer::new();
        let mut world = World { replica: &replica, now_ms: NOW_MS, random: 7, out: &mut peer.out };
        assert!(matches!(peer.session.handle_input(wire, false, &mut world), Flow::Ask(_)));
        peer.session.handle_refusal(Refusal::Busy("later".into()), &mut world);
        assert_eq!(peer.out.front(), expected.as_bytes());
    }
}

#[test]
fn a_cold_command_has_few_arguments_or_is_refused() {
    let args = |count: usize, size: usize| {
        let head = format!("*{}\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n", 2 + count);
        (head + &format!("${size}\r\n{}\r\n", "x".repeat(size)).repeat(count)).into_bytes()
    };
    let replica = replica();
    for (count, size) in [(1, 60_000), (2_000, 1)] {
        assert_eq!(talk(&replica, &args(count, size), &[]), "$12\r\nabout config\r\n");
    }
    for (count, size) in [(1, 70_000), (70, 1_000), (5_000, 0), (2, 150_000)] {
        let text = talk(&replica, &args(count, size), &[]);
        assert_eq!(text, "-ERR the arguments of 'config' are too long\r\n");
    }
    let list = [&b"*3\r\n$6\r\nCLIENT\r\n$4\r\nLIST\r\n$70000\r\n"[..], &[b'x'; 70_000], b"\r\n"].concat();
    assert_eq!(talk(&replica, &list, &[]), "-ERR the arguments of 'client' are too long\r\n");
}

#[test]
fn a_client_that_does_not_read_is_paused() {
    let replica = replica();
    talk(&replica, [b"write|name=v length=9000|", &[b'x'; 9000][..]].concat().as_slice(), &[]);
    let mut peer = Peer::new();
    let wire = b"*2\r\n$3\r\nGET\r\n$1\r\nv\r\n".repeat(1000);
    let mut world = World { replica: &replica, now_ms: NOW_MS, random: 7, out: &mut peer.out };
    assert_eq!(peer.session.handle_input(&wire, false, &mut world), Flow::Yield);
    assert!(peer.out.len() < replica.limits().output_max + 20_000, "{}", peer.out.len());
    peer.send(&replica, b"", true);
    assert_eq!(peer.received.len(), 1000 * (9000 + "$9000\r\n\r\n".len()));
}

#[test]
fn a_password_is_asked_for() {
    let replica = replica();
    let with_password = |wire: &[u8]| {
        let mut peer = Peer::new();
        peer.session = Session::new(Client::new(1, Some(b"secret"[..].into())));
        peer.send(&replica, wire, true);
        peer.text()
    };
    assert!(with_password(b"read|name=k|\n").starts_with("error|code=auth_required|"));
    assert!(with_password(b"auth|password=wrong|\n").starts_with("error|code=denied|"));
    assert!(with_password(b"auth|password=secret|\nwrite|name=k|v\n").starts_with("ok|\nok|version="));
    let get = "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
    assert_eq!(with_password(get.as_bytes()), "-NOAUTH Authentication required.\r\n");
    let auth = format!("*2\r\n$4\r\nAUTH\r\n$5\r\nwrong\r\n*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n{get}");
    let text = with_password(auth.as_bytes());
    assert!(text.starts_with("-WRONGPASS") && text.ends_with("+OK\r\n$1\r\nv\r\n"), "{text}");
}

fn used(replica: &Replica) -> u64 {
    replica.store().usage().total().bytes()
}

/// The head of an MSET of `pairs` keys with values of `size` bytes, and each pair.
fn mset(pairs: usize, size: usize) -> impl Iterator<Item = Vec<u8>> {
    let head = format!("*{}\r\n$4\r\nMSET\r\n", 2 * pairs + 1).into_bytes();
    let value = "v".repeat(size);
    let pair = move |i| format!("$4\r\nk{i:03}\r\n${size}\r\n{value}\r\n").into_bytes();
    std::iter::once(head).chain((0..pairs).map(pair))
}

#[test]
fn the_large_arguments_of_half_a_request_are_accounted_for() {
    for size in [40_000, 150_000] {
        for piece in [1000, 65_536, usize::MAX] {
            let replica = replica_of(2_000_000);
            let mut peer = Peer::new();
            let wire: Vec<u8> = mset(100, size).flatten().collect();
            for bytes in wire.chunks(piece.min(wire.len() - 1)) {
                peer.send(&replica, bytes, false);
                assert!(used(&replica) <= 2_000_000);
            }
            assert!(peer.text().starts_with("-OOM "), "{}", peer.text());
            assert_eq!(peer.send(&replica, b"*1\r\n$4\r\nPING\r\n", false), Flow::Read);
            assert!(peer.text().ends_with("+PONG\r\n"));
        }
    }
}

#[test]
fn the_large_arguments_of_half_a_request_become_its_values() {
    for piece in [1000, 65_536] {
        let replica = replica();
        let mut peer = Peer::new();
        let wire: Vec<u8> = mset(30, 40_000).flatten().collect();
        let half = wire.len() / 2;
        wire[..half].chunks(piece).for_each(|bytes| {
            peer.send(&replica, bytes, false);
        });
        assert!(used(&replica) > 500_000, "what has come is in the account");
        wire[half..].chunks(piece).for_each(|bytes| {
            peer.send(&replica, bytes, false);
        });
        assert_eq!(peer.text(), "+OK\r\n");
        peer.send(&replica, b"STRLEN k000\r\nSTRLEN k029\r\nDEL k001\r\n", false);
        assert_eq!(peer.text(), "+OK\r\n:40000\r\n:40000\r\n:1\r\n");
        assert!((29 * 40_000..40 * 40_000).contains(&used(&replica)), "{}", used(&replica));
    }
}

#[test]
fn a_replaced_value_counts_as_long_as_it_is_read() {
    let replica = replica_of(400_000);
    let set = |fill: &str| format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$150000\r\n{}\r\n", fill.repeat(150_000));
    let mut peer = Peer::new();
    peer.send(&replica, set("1").as_bytes(), false);
    // A reader that takes nothing of its reply.
    let (mut reader, mut unread) = (Session::new(Client::new(2, None)), Output::default());
    let mut world = World { replica: &replica, now_ms: NOW_MS, random: 7, out: &mut unread };
    reader.handle_input(b"GET a\r\n", false, &mut world);
    peer.send(&replica, set("2").as_bytes(), false);
    assert!(used(&replica) > 300_000);
    peer.send(&replica, set("3").as_bytes(), false);
    assert!(peer.text().starts_with("+OK\r\n+OK\r\n-OOM "), "{}", peer.text());
    unread.clear();
    assert!(used(&replica) < 200_000);
    peer.send(&replica, set("4").as_bytes(), false);
    assert!(peer.text().ends_with("+OK\r\n"), "{}", peer.text());
}

#[test]
fn a_length_that_is_only_announced_takes_no_room() {
    let replica = replica_of(400_000);
    let (mut idle, mut peer) = (Peer::new(), Peer::new());
    idle.send(&replica, b"write|name=a length=200000|", false);
    let set = format!("*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$190000\r\n{}\r\n", "v".repeat(190_000));
    peer.send(&replica, set.as_bytes(), false);
    assert_eq!(peer.text(), "+OK\r\n");
    // There was room when it was announced, and there is none any more: told when all of it has come.
    peer.send(&replica, set.replace("\nb\r", "\nc\r").as_bytes(), false);
    idle.send(&replica, &[b'v'; 200_000], false);
    assert!(idle.text().starts_with("error|code=no_space|"), "{}", idle.text());
}
