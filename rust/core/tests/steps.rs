//! What takes long is done in steps: no call of a session keeps the reactor from its other clients for long.

use std::sync::Arc;

use turbopump_core::config::Limits;
use turbopump_core::keyspace::{Keyspace, Keyspaces, Writes};
use turbopump_core::output::Output;
use turbopump_core::replica::Replica;
use turbopump_core::session::{Client, Flow, Session, World};
use turbopump_core::store::{Store, StoreConfig};
use turbopump_core::version::NodeId;
use turbopump_core::waits::Waits;

/// Keys of a command that is too long for one step.
const MANY: usize = 5_000;

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
    Replica::new(Arc::new(store), Arc::new(Waits::new(1, Box::new(|_| {}))), Arc::new(Limits::default()))
}

fn replica() -> Replica {
    replica_of(0)
}

fn request(args: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<u8> {
    let args: Vec<Vec<u8>> = args.into_iter().map(|arg| arg.as_ref().to_vec()).collect();
    let arg = |arg: &Vec<u8>| [format!("${}\r\n", arg.len()).as_bytes(), arg, b"\r\n"].concat();
    let head = format!("*{}\r\n", args.len()).into_bytes();
    std::iter::once(head).chain(args.iter().map(arg)).collect::<Vec<_>>().concat()
}

/// A command on the keys `k0`, `k1`, and so on.
fn on_keys(command: &str, count: usize) -> Vec<u8> {
    request(std::iter::once(command.to_string()).chain((0..count).map(|i| format!("k{i}"))))
}

fn mset(count: usize, value: &str) -> Vec<u8> {
    let pairs = (0..count).flat_map(|i| [format!("k{i}"), value.to_string()]);
    request(std::iter::once("MSET".to_string()).chain(pairs))
}

/// Sends `wire` in pieces; returns what came back, and how often others had their turn meanwhile.
fn talk(replica: &Replica, wire: &[u8], piece: usize) -> (String, usize) {
    let (mut session, mut out) = (Session::new(Client::new(1, None)), Output::default());
    let (mut received, mut yields) = (Vec::new(), 0);
    for bytes in wire.chunks(piece) {
        let mut world = World { replica, now_ms: 1_000, random: 7, out: &mut out };
        let mut flow = session.handle_input(bytes, false, &mut world);
        loop {
            while !out.is_empty() {
                received.extend_from_slice(out.front());
                out.advance(out.front().len());
            }
            if flow != Flow::Yield {
                break;
            }
            yields += 1;
            flow = session.resume(&mut World { replica, now_ms: 1_000, random: 7, out: &mut out });
        }
    }
    (String::from_utf8_lossy(&received).into_owned(), yields)
}

#[test]
fn a_command_on_many_keys_lets_others_have_their_turn() {
    let replica = replica();
    let once = |wire: &[u8]| {
        let (text, yields) = talk(&replica, &[wire, b"PING\r\n"].concat(), usize::MAX);
        assert!(yields >= MANY / 1000, "others had their turn {yields} times");
        text
    };
    assert_eq!(once(&mset(MANY, "v")), "+OK\r\n+PONG\r\n");
    assert_eq!(once(&on_keys("EXISTS", MANY)), format!(":{MANY}\r\n+PONG\r\n"));
    assert_eq!(once(&on_keys("TOUCH", MANY + 7)), format!(":{MANY}\r\n+PONG\r\n"));
    assert_eq!(
        once(&on_keys("MGET", MANY + 1)),
        format!("*{}\r\n{}$-1\r\n+PONG\r\n", MANY + 1, "$1\r\nv\r\n".repeat(MANY))
    );
    assert_eq!(once(&on_keys("DEL", MANY - 9)), format!(":{}\r\n+PONG\r\n", MANY - 9));
    assert_eq!(once(&on_keys("UNLINK", MANY)), ":9\r\n+PONG\r\n");
}

#[test]
fn a_command_on_some_keys_is_done_at_once() {
    let replica = replica();
    for command in ["EXISTS", "DEL", "MGET", "UNLINK"] {
        assert_eq!(talk(&replica, &on_keys(command, 200), usize::MAX).1, 0, "{command}");
    }
    assert_eq!(talk(&replica, &mset(200, "v"), usize::MAX), ("+OK\r\n".into(), 0));
}

#[test]
fn pieces_do_not_matter_to_a_command_on_many_keys() {
    for piece in [7, 1_000, 65_536] {
        let replica = replica();
        let large = "v".repeat(40_000);
        let some = request(["MSET", "large", &large, "k1", "w"]);
        let wire =
            [mset(MANY, "v"), some, on_keys("DEL", 600), b"STRLEN large\r\nDBSIZE\r\n".to_vec()].concat();
        let (text, _) = talk(&replica, &wire, piece);
        assert_eq!(text, format!("+OK\r\n+OK\r\n:600\r\n:40000\r\n:{}\r\n", MANY - 599));
    }
}

#[test]
fn a_command_on_many_keys_is_checked_before_the_first_write() {
    let replica = replica();
    talk(&replica, &mset(MANY, "v"), usize::MAX);
    let too_long = "x".repeat(5_000);
    let keys: Vec<String> = (0..MANY).map(|i| format!("k{i}")).chain([too_long]).collect();
    let (text, _) =
        talk(&replica, &request(["DEL"].into_iter().chain(keys.iter().map(String::as_str))), 65_536);
    assert!(text.starts_with("-ERR a key has 1 to 4096 bytes"), "{text}");
    let pairs = keys.iter().flat_map(|key| [key.as_str(), "w"]);
    let (text, _) = talk(&replica, &request(["MSET"].into_iter().chain(pairs)), 65_536);
    assert!(text.starts_with("-ERR a key has 1 to 4096 bytes"), "{text}");
    talk(&replica, b"SET once/a x\r\n", 100);
    let pairs = (0..MANY).flat_map(|i| [format!("k{i}"), "w".into()]);
    let pairs = pairs.chain(["once/a".into(), "y".into()]);
    let (text, _) = talk(&replica, &request(std::iter::once("MSET".into()).chain(pairs)), 65_536);
    assert!(text.starts_with("-IMMUTABLE the key is immutable"), "{text}");
    assert_eq!(talk(&replica, b"GET k0\r\nDBSIZE\r\n", 100).0, format!("$1\r\nv\r\n:{}\r\n", MANY + 1));
}

#[test]
fn memory_that_ends_half_way_is_told_in_redis_words() {
    for (count, value) in [(MANY, "v".repeat(100)), (100, "v".repeat(9_000))] {
        let replica = replica_of(300_000);
        let (text, _) = talk(&replica, &mset(count, &value), 65_536);
        let told = text.strip_prefix("-OOM ").unwrap_or_default();
        let (done, rest) = told.split_once(' ').unwrap_or_default();
        assert!(rest.starts_with(&format!("of {count} keys were done, then: ")), "{text}");
        assert_eq!(talk(&replica, b"DBSIZE\r\n", 100).0, format!(":{done}\r\n"));
    }
}

#[test]
fn a_pipeline_of_costly_commands_lets_others_have_their_turn() {
    let (empty, replica) = (replica(), replica());
    talk(&replica, &mset(MANY, "v"), usize::MAX);
    let scan = request(["SCAN", "0", "MATCH", "q*", "COUNT", "1000"]);
    for (replica, command, count) in [
        (&replica, scan, 200),
        (&replica, on_keys("EXISTS", 250), 100),
        (&empty, b"RANDOMKEY\r\n".to_vec(), 100),
        (&empty, b"SCAN 0\r\n".to_vec(), 100),
    ] {
        let (_, yields) = talk(replica, &command.repeat(count), usize::MAX);
        assert!(yields >= 5, "others had their turn {yields} times");
    }
    // A client that sends on while it takes no replies has all of that in its inbox when it does.
    let gets = on_keys("GET", 1).repeat(100_000);
    assert!(talk(&replica, &gets, usize::MAX).1 >= 20);
    let pings = [b"keep||\n".to_vec(), b"ping||\n".repeat(100_000)].concat();
    let (text, yields) = talk(&replica, &pings, usize::MAX);
    assert!(yields >= 20 && text.len() == "ok|\n".len() + 100_000 * "pong\n".len());
}

#[test]
fn a_pattern_made_to_take_long_takes_many_steps() {
    let replica = replica();
    let keys: Vec<String> = (0..200).map(|i| format!("{}{i}", "a".repeat(4_000))).collect();
    let pairs = keys.iter().flat_map(|key| [key.as_str(), "v"]);
    talk(&replica, &request(["MSET"].into_iter().chain(pairs)), usize::MAX);
    for pattern in
        [format!("*{}b", "a".repeat(2_000)), "*?".repeat(2_000) + "b", format!("*[{}", "b".repeat(4_000))]
    {
        let (text, yields) = talk(&replica, &request(["KEYS", &pattern]), usize::MAX);
        assert_eq!(text, "*0\r\n");
        assert!(yields >= 4, "others had their turn {yields} times");
        let (text, _) =
            talk(&replica, &request(["SCAN", "0", "MATCH", &pattern, "COUNT", "1000"]), usize::MAX);
        assert!(!text.starts_with("*2\r\n$1\r\n0\r\n"), "SCAN ended early, and its cursor goes on");
    }
    let too_long = "a".repeat(5_000);
    for command in [request(["KEYS", &too_long]), request(["SCAN", "0", "MATCH", &too_long])] {
        assert!(talk(&replica, &command, usize::MAX).0.starts_with("-ERR a pattern has at most 4096 bytes"));
    }
}

#[test]
fn a_search_finds_what_a_pattern_matches() {
    let replica = replica();
    talk(&replica, &mset(MANY, "v"), usize::MAX);
    let (text, yields) = talk(&replica, &request(["KEYS", "k*9"]), usize::MAX);
    assert!(text.starts_with(&format!("*{}\r\n$", MANY / 10)), "{text}");
    assert_eq!(text.matches("\r\nk").count(), MANY / 10);
    assert!(yields >= 1);
    let (mut cursor, mut found) = ("0".to_string(), 0);
    loop {
        let (text, _) =
            talk(&replica, &request(["SCAN", &cursor, "MATCH", "k*9", "COUNT", "100"]), usize::MAX);
        cursor = text.split("\r\n").nth(2).unwrap_or_default().into();
        found += text.matches("\r\nk").count();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(found, MANY / 10);
}
