//! A link between two network namespaces, in this process: each end is a TUN device there, and [`Link`] says
//! when a packet that goes in comes out. For kernels without sch_netem, and the same on every kernel.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read, write};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::error::LabError;
use crate::latency::{Latency, Times};
use crate::link::{Conditions, Counters, Fate, Link};
use crate::{namespace, process};

/// Packets on their way in one direction, at most: 98 MB at 1500 bytes, a second of 780 Mbit/s.
const FLIGHTS_MAX: usize = 65_536;
/// Packets taken from one end before the other has its turn.
const BATCH: usize = 128;
/// The largest that IP has.
const MTU_MAX: usize = 65_535;
/// A link that nobody ends must end.
const SECONDS_MAX: f64 = 3600.0;

/// A link to emulate.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The namespaces that it joins.
    pub namespaces: [String; 2],
    /// The name of the TUN device, which is in both: `ip -n NAMESPACE tuntap add mode tun name DEVICE`.
    pub device: String,
    /// Bytes of the largest packet; that of the devices.
    #[serde(default = "usual_mtu")]
    pub mtu: usize,
    /// From the first namespace to the second.
    pub there: Conditions,
    /// From the second to the first; without it as there.
    pub back: Option<Conditions>,
    /// Whatever chance decides follows from it.
    #[serde(default)]
    pub seed: u64,
    /// It ends by itself after so long.
    pub limit_seconds: f64,
}

fn usual_mtu() -> usize {
    1500
}

/// What a link has done, at its end.
#[derive(Debug, Serialize)]
pub struct Report {
    /// From the first namespace to the second.
    pub there: Counters,
    /// From the second to the first.
    pub back: Counters,
    /// Packets that a device did not take: it was down, or its namespace gone.
    pub refused: u64,
    /// Whether this process ran before all ordinary ones, as it asks to.
    pub first: bool,
    /// How much later than due packets came out, in microseconds: what this machine adds to the delay.
    pub late_us: Latency,
}

impl Options {
    fn check(&self) -> Result<(), LabError> {
        self.there.check()?;
        self.back.as_ref().map_or(Ok(()), Conditions::check)?;
        if !(1..=MTU_MAX).contains(&self.mtu) {
            return Err(LabError::option("mtu", format!("{} is not between 1 and {MTU_MAX}", self.mtu)));
        }
        if !(self.limit_seconds > 0.0 && self.limit_seconds <= SECONDS_MAX) {
            let problem = format!("{} is not between 0 and {SECONDS_MAX}", self.limit_seconds);
            return Err(LabError::option("limit_seconds", problem));
        }
        Ok(())
    }
}

/// Emulates a link until SIGTERM. Calls `ready` when packets can pass. Needs root.
pub fn run(options: &Options, ready: impl FnOnce() -> Result<(), LabError>) -> Result<Report, LabError> {
    options.check()?;
    process::end_with_parent()?;
    let ending = process::ending()?;
    let [first, second] = options.namespaces.each_ref().map(|name| {
        namespace::enter(name)?;
        namespace::open_tun(&options.device)
    });
    let ends = [first?, second?];
    let back = options.back.as_ref().unwrap_or(&options.there);
    // Two seeds of one: the directions must not lose the same packets.
    let mut wire = Wire {
        ways: [
            Way::new(Link::new(options.there.clone(), options.seed.wrapping_mul(2))),
            Way::new(Link::new(back.clone(), options.seed.wrapping_mul(2).wrapping_add(1))),
        ],
        ends,
        buffer: vec![0; options.mtu],
        refused: 0,
        late: Times::new()?,
    };
    clock::be_punctual()?;
    let first = process::run_first().is_ok();
    ready()?;
    wire.run(&ending, clock::now() + clock::seconds(options.limit_seconds))?;
    let [there, back] = wire.ways.each_ref().map(|way| way.link.counters());
    Ok(Report { there, back, refused: wire.refused, first, late_us: wire.late.latency() })
}

struct Flight {
    due: u64,
    packet: Vec<u8>,
}

/// One direction, with the packets on their way, the next one first.
struct Way {
    link: Link,
    flights: VecDeque<Flight>,
}

struct Wire {
    ways: [Way; 2],
    ends: [OwnedFd; 2],
    buffer: Vec<u8>,
    refused: u64,
    late: Times,
}

impl Wire {
    fn run(&mut self, ending: &OwnedFd, limit: u64) -> Result<(), LabError> {
        loop {
            for way in 0..2 {
                self.take(way)?;
                self.deliver(way);
            }
            let now = clock::now();
            let due = self.ways.iter().filter_map(|way| way.flights.front()).map(|flight| flight.due).min();
            let wait = clock::timespec(due.unwrap_or(limit).min(limit).saturating_sub(now));
            let mut watched = [
                PollFd::new(&self.ends[0], PollFlags::IN),
                PollFd::new(&self.ends[1], PollFlags::IN),
                PollFd::new(ending, PollFlags::IN),
            ];
            match poll(&mut watched, Some(&wait)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(LabError::system("poll")(error)),
            }
            if !watched[2].revents().is_empty() || now >= limit {
                return Ok(());
            }
        }
    }

    /// Takes what was sent at one end.
    fn take(&mut self, from: usize) -> Result<(), LabError> {
        let way = &mut self.ways[from];
        for _ in 0..BATCH {
            // Two places: the packet may come out twice. Those that stay unread wait in the device.
            if way.flights.len() + 2 > FLIGHTS_MAX {
                break;
            }
            let bytes = match read(&self.ends[from], &mut self.buffer) {
                Ok(bytes) => bytes,
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(error) => return Err(LabError::system("reading from a TUN device")(error)),
            };
            if let Fate::Arrives { due, twice, flip } = way.link.carry(clock::now(), bytes) {
                if let Some(bit) = flip.and_then(|flip| flip.checked_rem(bytes as u64 * 8)) {
                    self.buffer[(bit / 8) as usize] ^= 1 << (bit % 8);
                }
                for _ in 0..=usize::from(twice) {
                    way.enter(Flight { due, packet: self.buffer[..bytes].to_vec() });
                }
            }
        }
        Ok(())
    }

    /// Hands over what is due at the other end.
    fn deliver(&mut self, from: usize) {
        let now = clock::now();
        let flights = &mut self.ways[from].flights;
        while flights.front().is_some_and(|flight| flight.due <= now)
            && let Some(flight) = flights.pop_front()
        {
            self.late.enter(now - flight.due);
            self.refused += u64::from(write(&self.ends[1 - from], &flight.packet).is_err());
        }
    }
}

impl Way {
    fn new(link: Link) -> Self {
        Way { link, flights: VecDeque::new() }
    }

    /// Puts a packet in its place, which is the last one unless it overtakes.
    fn enter(&mut self, flight: Flight) {
        let overtaken = self.flights.iter().rev().take_while(|other| other.due > flight.due).count();
        self.flights.insert(self.flights.len() - overtaken, flight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Result<Options, String> {
        let options: Options = serde_json::from_str(text).map_err(|error| error.to_string())?;
        options.check().map(|()| options).map_err(|error| error.to_string())
    }

    #[test]
    fn packets_that_overtake_come_first() {
        let mut way = Way::new(Link::new(Conditions::default(), 0));
        for (number, due) in [10, 30, 20, 30, 5].into_iter().enumerate() {
            way.enter(Flight { due, packet: vec![number as u8] });
        }
        let order: Vec<u8> = way.flights.iter().map(|flight| flight.packet[0]).collect();
        assert_eq!(order, [4, 0, 2, 1, 3]);
    }

    #[test]
    fn options_are_those_of_a_link() {
        let with = |change: &str| {
            options(&format!(r#"{{"namespaces":["a","b"],"device":"w","limit_seconds":1{change}}}"#))
        };
        let found = with(r#","there":{"rate_mbit":10,"queue_bytes":15000,"delay_us":1000}"#).unwrap();
        assert_eq!((found.mtu, found.seed, found.there.delay_us), (1500, 0, 1000));
        assert!(found.back.is_none());

        for (change, word) in [
            ("", "there"),
            (r#","there":{"delai_us":1}"#, "delai_us"),
            (r#","there":{"loss_percent":-1}"#, "loss_percent"),
            (r#","there":{},"back":{"rate_mbit":-1}"#, "rate_mbit"),
            (r#","there":{},"mtu":0"#, "mtu"),
        ] {
            let error = with(change).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
