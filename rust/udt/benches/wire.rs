//! What the state machine costs, without sockets: two endpoints that hand each other their datagrams.
//!
//! `cargo bench -p turbopump-udt`. Seconds are of one core that plays both ends.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use turbopump_udt::config::Algorithm;
use turbopump_udt::{
    Class, Config, ConnectionId, Ecn, Endpoint, Event, Identity, Options, PresharedKey, PrivateKey, Time,
};

const STREAM: u64 = 2 << 30;

struct Pair {
    ends: [Endpoint; 2],
    addresses: [SocketAddr; 2],
    start: Instant,
    buffer: Vec<u8>,
}

impl Pair {
    fn new(config: &Config) -> Self {
        let keys = [1, 2].map(|number| PrivateKey::new([number; 32]));
        let publics = keys.clone().map(|key| key.public());
        let end = |number: usize| {
            let identity =
                Identity { keys: vec![keys[number].clone()], psks: vec![(1, PresharedKey::new([9; 32]))] };
            let mut end = Endpoint::new(Time::ZERO, config.clone(), identity, [number as u8; 32], 1 << 60);
            publics.iter().for_each(|key| end.admit(*key));
            end
        };
        let addresses = [1, 2].map(|number| SocketAddr::from(([127, 0, 0, number], 4000)));
        let mut pair = Pair { ends: [end(0), end(1)], addresses, start: Instant::now(), buffer: Vec::new() };
        let now = pair.now();
        if let Err(error) = pair.ends[0].connect(now, publics[1], addresses[1]) {
            panic!("{error}");
        }
        pair
    }

    fn now(&self) -> Time {
        Time::from_nanos(self.start.elapsed().as_nanos() as u64)
    }

    /// Moves what one end wants to send to the other. Returns whether anything moved.
    fn carry(&mut self, from: usize) -> bool {
        let now = self.now();
        let mut moved = false;
        self.ends[from].handle_timeout(now);
        while let Some(transmit) = self.ends[from].poll_transmit(now, &mut self.buffer) {
            moved = true;
            for datagram in self.buffer.chunks_mut(transmit.segment_size) {
                self.ends[1 - from].handle_datagram(now, self.addresses[from], Ecn::NotEct, datagram);
            }
        }
        moved
    }
}

/// Seconds of both ends for a gigabyte, and Gbit/s.
fn stream(config: &Config) -> (f64, &'static str) {
    let mut pair = Pair::new(config);
    let chunk = Bytes::from(vec![7; 1 << 20]);
    let (mut message, mut received) = (None, 0_u64);
    let mut began = Instant::now();
    let mut idle = Duration::ZERO;
    let mut state = "";
    while received < STREAM {
        let step = Instant::now();
        let moved = pair.carry(0) | pair.carry(1);
        let now = pair.now();
        while let Some((id, event)) = pair.ends[0].poll_event() {
            let Some(connection) = pair.ends[0].connection_mut(now, id) else { continue };
            match event {
                Event::Connected => {
                    message = connection.open(Options::new(Class::Bulk)).ok();
                    began = Instant::now();
                    idle = Duration::ZERO;
                }
                Event::Closed(reason) => panic!("{reason}"),
                _ => {}
            }
        }
        if let Some(connection) = message.and_then(|_| pair.ends[0].connection_mut(now, ConnectionId(0))) {
            while let Some(id) = message {
                if connection.write(id, &mut chunk.clone()).unwrap_or(0) == 0 {
                    break;
                }
            }
            state = connection.stats().congestion;
        }
        while let Some((id, event)) = pair.ends[1].poll_event() {
            if let Event::MessageData { id: message, data } = event {
                received += data.len() as u64;
                if let Some(connection) = pair.ends[1].connection_mut(now, id) {
                    connection.consumed(message, data.len() as u64);
                }
            }
        }
        if !moved {
            idle += step.elapsed();
        }
    }
    let busy = began.elapsed().saturating_sub(idle);
    (busy.as_secs_f64() / (received as f64 / 1e9), state)
}

/// Who makes up handshakes.
#[derive(Clone, Copy)]
enum Stranger {
    /// Does not know the node's key: the first tag is wrong.
    Blind,
    /// Knows it.
    Knowing,
    /// Knows it, and pretends to have been given a cookie.
    Pretending,
}

/// Microseconds that an INIT of a stranger costs the node, and the share of a core that 100,000 of them in a
/// second take. They come from one address.
fn flood(stranger: Stranger) -> (f64, f64) {
    let mut pair = Pair::new(&Config::default());
    let mut init = Vec::new();
    let now = pair.now();
    let transmit = pair.ends[0].poll_transmit(now, &mut init);
    assert!(transmit.is_some_and(|transmit| transmit.len == 1200));
    match stranger {
        Stranger::Blind => init[150] ^= 1,
        Stranger::Knowing => {}
        Stranger::Pretending => init[180] ^= 1,
    }
    let (from, began, seconds) = (SocketAddr::from(([192, 0, 2, 1], 1)), Instant::now(), 10);
    for number in 0..seconds * 100_000 {
        // The time is the flood's own: the node counts handshakes by the second.
        let now = Time::from_nanos(number * 10_000);
        pair.ends[1].handle_datagram(now, from, Ecn::NotEct, &mut init);
        while pair.ends[1].poll_transmit(now, &mut pair.buffer).is_some() {}
    }
    let busy = began.elapsed().as_secs_f64() / seconds as f64;
    (busy * 1e6 / 1e5, busy)
}

#[expect(clippy::print_stdout, reason = "it is a table for people")]
fn main() {
    println!("{:<34}{:>10}{:>12}", "100,000 INITs/s of one stranger", "us each", "% of a core");
    let strangers = [
        ("blind", Stranger::Blind),
        ("knows the node's key", Stranger::Knowing),
        ("and pretends to have a cookie", Stranger::Pretending),
    ];
    for (name, stranger) in strangers {
        let (each, share) = flood(stranger);
        println!("{name:<34}{each:>10.2}{:>12.1}", share * 100.0);
    }
    println!("{:<34}{:>10}{:>12}", "one stream, both ends on a core", "s per GB", "Gbit/s busy");
    for congestion in [Algorithm::Cubic, Algorithm::Bbr] {
        for (datagram_max, aes) in [(65_000, true), (8952, true), (1472, true), (1472, false)] {
            let config = Config { congestion, datagram_max, aes, ..Config::default() };
            let (seconds, _) = stream(&config);
            let suite = if aes { "AEGIS-256" } else { "ChaCha20" };
            let name = format!("{congestion:?}, {datagram_max} bytes, {suite}");
            println!("{name:<34}{seconds:>10.3}{:>12.1}", 8.0 / seconds);
        }
    }
}
