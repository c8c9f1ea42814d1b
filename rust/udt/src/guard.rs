//! The endpoint's defence against floods of handshakes: counters of fixed size, and cookies without state.

use core::net::{IpAddr, SocketAddr};
use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::quality::FixedState;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::handshake::tag;
use crate::rng::Rng;
use crate::sodium;
use crate::time::Time;

/// A cookie's secret is changed after this; the one before is accepted as long again (WireGuard's constant).
const SECRET_LIFE: Duration = Duration::from_secs(120);
/// Counters of addresses, by hash: two that share one are throttled together, which costs them a round trip.
const COUNTERS: usize = 1024;

/// Cookies for each handshake that an address may have without: a flood is not worth an answer each.
const COOKIES: u32 = 10;
/// Tags that claim to be made with a cookie and are looked at, for an address in a second: each costs four
/// hashes, so that they take less than a hundredth of a processor.
const CLAIMS: u16 = 5000;

/// What to do with a handshake.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// It is worth the work.
    Hear,
    /// Its sender must prove its address first.
    AskCookie,
    /// Its sender did, and asks too much; or nothing more of its address is looked at.
    Drop,
    /// It claims a cookie that it does not have: a stale one, or a bit that flipped. Its sender repeats it
    /// without.
    Forged,
}

/// Counts handshakes, and makes and checks cookies.
pub(crate) struct Guard {
    secrets: [Zeroizing<[u8; 32]>; 2],
    changed: Time,
    /// Handshakes in this second, in all and by address.
    second: Time,
    all: u32,
    by_address: Box<[u16; COUNTERS]>,
    proved: Box<[u16; COUNTERS]>,
    claims: Box<[u16; COUNTERS]>,
    per_second: u32,
    per_address: u32,
    /// Nobody outside can tell which addresses share a counter.
    hasher: FixedState,
}

impl Guard {
    pub fn new(now: Time, rng: &mut Rng, config: &Config) -> Self {
        Guard {
            secrets: [Zeroizing::new(rng.array()), Zeroizing::new(rng.array())],
            changed: now,
            second: now,
            all: 0,
            by_address: Box::new([0; COUNTERS]),
            proved: Box::new([0; COUNTERS]),
            claims: Box::new([0; COUNTERS]),
            per_second: config.handshakes_per_second,
            per_address: config.handshakes_per_address,
            hasher: FixedState::with_seed(rng.number()),
        }
    }

    /// Counts a handshake from an address, with the tag that proves the address, if it has one: `mac2` over
    /// `before`.
    pub fn judge(&mut self, now: Time, from: &SocketAddr, before: &[u8], mac2: &[u8]) -> Verdict {
        if now.since(self.second) >= Duration::from_secs(1) {
            self.second = now;
            self.all = 0;
            self.by_address.fill(0);
            self.proved.fill(0);
            self.claims.fill(0);
        }
        let at = (self.hasher.hash_one(network(from)) % COUNTERS as u64) as usize;
        let claimed = mac2.iter().any(|byte| *byte != 0);
        if claimed {
            self.claims[at] = self.claims[at].saturating_add(1);
            if self.claims[at] > CLAIMS {
                return Verdict::Drop;
            }
        }
        let proved = claimed && self.is_proved(from, before, mac2);
        let counter = if proved { &mut self.proved[at] } else { &mut self.by_address[at] };
        *counter = counter.saturating_add(1);
        let many = u32::from(*counter) > self.per_address;
        if proved {
            return if many { Verdict::Drop } else { Verdict::Hear };
        }
        self.all = self.all.saturating_add(1);
        if u32::from(*counter) > self.per_address.saturating_mul(COOKIES) {
            return Verdict::Drop;
        }
        match many || self.all > self.per_second {
            true => Verdict::AskCookie,
            false if claimed => Verdict::Forged,
            false => Verdict::Hear,
        }
    }

    /// The cookie of an address.
    pub fn cookie(&mut self, now: Time, rng: &mut Rng, from: &SocketAddr) -> [u8; 16] {
        if now.since(self.changed) >= SECRET_LIFE {
            self.secrets.swap(0, 1);
            self.secrets[0] = Zeroizing::new(rng.array());
            self.changed = now;
        }
        make(&self.secrets[0], from)
    }

    /// Whether `mac2` was made over `before` with a cookie of this address.
    fn is_proved(&self, from: &SocketAddr, before: &[u8], mac2: &[u8]) -> bool {
        self.secrets.iter().any(|secret| sodium::same(&tag(&make(secret, from), &[before]), mac2))
    }
}

fn make(secret: &[u8; 32], from: &SocketAddr) -> [u8; 16] {
    let port = from.port().to_le_bytes();
    match from.ip() {
        IpAddr::V4(ip) => tag(secret, &[&ip.octets(), &port]),
        IpAddr::V6(ip) => tag(secret, &[&ip.octets(), &port]),
    }
}

/// Who counts as one: an IPv4 address, or an IPv6 network of 64 bits, which is what one customer has.
fn network(from: &SocketAddr) -> [u8; 8] {
    let mut network = [0; 8];
    match from.ip() {
        IpAddr::V4(ip) => network[..4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => network.copy_from_slice(&ip.octets()[..8]),
    }
    network
}
