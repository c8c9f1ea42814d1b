//! How large datagrams may be: packetization-layer path MTU discovery (RFC 8899) and black holes.

use std::time::Duration;

use crate::config::Config;
use crate::packet::INIT_PADDED;
use crate::time::Time;

/// Every path takes this much (RFC 8200 without 80 bytes of headers); INITs have this size, so a handshake
/// proves it.
pub(crate) const MTU_MIN: u16 = INIT_PADDED as u16;
/// A probe is lost so often before its size counts as too large.
const TRIES: u8 = 3;
/// Larger packets lost in a row, none of them acknowledged, that make a black hole.
const BLACK_HOLE_PACKETS: u32 = 16;
/// Probe timeouts in a row that make one.
const BLACK_HOLE_TIMEOUTS: u32 = 2;
/// After a black hole, larger sizes are tried again sooner than after a failed probe: it may have been an
/// outage.
const BLACK_HOLE_PAUSE: Duration = Duration::from_secs(20);

/// What size a path takes.
#[derive(Debug)]
pub(crate) struct Mtu {
    current: u16,
    /// Sizes to try, ascending.
    sizes: Vec<u16>,
    /// The packet number and size of the probe in flight.
    probe: Option<(u64, u16)>,
    failed: u8,
    /// When to probe next; `None` when there is nothing larger to try.
    next: Option<Time>,
    again: Duration,
    lost_in_a_row: u32,
}

impl Mtu {
    /// A path of which only the minimum is known, to a peer that takes `most`.
    pub fn new(now: Time, config: &Config, most: u16) -> Self {
        let most = most.min(config.datagram_max);
        let mut sizes: Vec<u16> = config.mtu_probes.clone();
        sizes.retain(|size| (MTU_MIN + 1..=most).contains(size));
        Mtu {
            current: MTU_MIN,
            next: (!sizes.is_empty()).then_some(now),
            sizes,
            probe: None,
            failed: 0,
            again: config.mtu_again,
            lost_in_a_row: 0,
        }
    }

    /// The largest datagram that the path is known to take.
    pub fn current(&self) -> u16 {
        self.current
    }

    /// When a probe is due.
    pub fn next_time(&self) -> Option<Time> {
        self.next.filter(|_| self.probe.is_none())
    }

    /// The size of the probe to send now.
    pub fn due(&self, now: Time) -> Option<u16> {
        self.next_time().filter(|time| *time <= now)?;
        self.sizes.iter().copied().find(|size| *size > self.current)
    }

    /// The probe was sent.
    pub fn on_probe_sent(&mut self, number: u64, size: u16) {
        self.probe = Some((number, size));
    }

    /// A packet was acknowledged. Returns whether the size has changed.
    pub fn on_acked(&mut self, now: Time, number: u64, bytes: u32) -> bool {
        if bytes > MTU_MIN.into() {
            self.lost_in_a_row = 0;
        }
        let Some((_, size)) = self.probe.filter(|probe| probe.0 == number) else { return false };
        self.current = size;
        (self.probe, self.failed) = (None, 0);
        let larger = self.sizes.last().is_some_and(|largest| *largest > size);
        self.next = larger.then_some(now);
        true
    }

    /// The probe was lost.
    pub fn on_probe_lost(&mut self, now: Time) {
        self.probe = None;
        self.failed += 1;
        if self.failed >= TRIES {
            self.failed = 0;
            self.next = Some(now + self.again);
        }
    }

    /// Another packet was lost. Returns whether the size has changed.
    pub fn on_lost(&mut self, now: Time, bytes: u32) -> bool {
        if bytes > MTU_MIN.into() {
            self.lost_in_a_row += 1;
        }
        self.lost_in_a_row >= BLACK_HOLE_PACKETS && self.fall_back(now)
    }

    /// Nothing was acknowledged for `count` probe timeouts. Returns whether the size has changed.
    pub fn on_timeout(&mut self, now: Time, count: u32) -> bool {
        count >= BLACK_HOLE_TIMEOUTS && self.fall_back(now)
    }

    fn fall_back(&mut self, now: Time) -> bool {
        self.lost_in_a_row = 0;
        if self.current == MTU_MIN {
            return false;
        }
        (self.current, self.probe, self.failed) = (MTU_MIN, None, 0);
        self.next = Some(now + BLACK_HOLE_PAUSE.min(self.again));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mtu() -> Mtu {
        Mtu::new(Time::ZERO, &Config::default(), 1500)
    }

    #[test]
    fn it_climbs_while_probes_arrive() {
        let mut mtu = mtu();
        for (number, size) in [(1, 1400), (2, 1452), (3, 1472)] {
            assert_eq!(mtu.due(Time::ZERO), Some(size));
            mtu.on_probe_sent(number, size);
            assert_eq!(mtu.due(Time::ZERO), None);
            assert!(!mtu.on_acked(Time::ZERO, 99, 1200) && mtu.on_acked(Time::ZERO, number, size.into()));
        }
        assert_eq!((mtu.current(), mtu.next_time()), (1472, None));
    }

    #[test]
    fn a_size_that_fails_thrice_is_left_for_later() {
        let mut mtu = mtu();
        for number in 0..3 {
            mtu.on_probe_sent(number, 1400);
            mtu.on_probe_lost(Time::ZERO);
        }
        assert_eq!((mtu.current(), mtu.next_time()), (1200, Some(Time::ZERO + mtu.again)));
    }

    #[test]
    fn a_black_hole_is_noticed() {
        let mut mtu = mtu();
        mtu.on_probe_sent(1, 1400);
        mtu.on_acked(Time::ZERO, 1, 1400);
        assert!((1..BLACK_HOLE_PACKETS).all(|_| !mtu.on_lost(Time::ZERO, 1400)));
        assert!(!mtu.on_lost(Time::ZERO, 1200) && mtu.on_lost(Time::ZERO, 1400));
        assert_eq!(mtu.current(), MTU_MIN);
        assert!(!mtu.on_timeout(Time::ZERO, 2), "there is nothing below the minimum");
    }
}
