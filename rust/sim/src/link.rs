//! One direction of a wire: what goes in comes out later, changed, twice or never.

use std::ops::Range;
use std::time::Duration;

use crate::dice::Dice;

/// How datagrams are lost.
#[derive(Clone, Copy, Debug, Default)]
pub enum Loss {
    /// Never, but for a full queue.
    #[default]
    None,
    /// Each with this probability.
    Random(f64),
    /// In bursts (Gilbert and Elliott): the link is good or bad, and loses only while bad.
    Bursts {
        /// Probability to turn bad, for each datagram.
        enter: f64,
        /// Probability to turn good again.
        leave: f64,
        /// Share that is lost while bad.
        lost: f64,
    },
}

/// What a link does to datagrams.
#[derive(Clone, Debug, Default)]
pub struct LinkConfig {
    /// Bytes a second; 0 is no limit.
    pub rate: u64,
    /// Bytes that wait for the link; more are dropped. 0 is no limit.
    pub queue: u64,
    /// From one end to the other.
    pub delay: Duration,
    /// Up to so much more, for each datagram anew: so that they overtake each other.
    pub jitter: Duration,
    /// How datagrams are lost.
    pub loss: Loss,
    /// Share that is held back by `held`.
    pub reorder: f64,
    /// How long those are held back.
    pub held: Duration,
    /// Share that arrives twice.
    pub duplicate: f64,
    /// Share in which a bit is flipped.
    pub corrupt: f64,
    /// Larger datagrams vanish, with no word; 0 is no limit.
    pub mtu: usize,
    /// Bytes waiting from which on datagrams are marked instead of being let pass unmarked; 0 is never.
    pub mark_above: u64,
    /// Whether marks are wiped.
    pub bleach: bool,
    /// When nothing passes, in nanoseconds.
    pub outages: Vec<Range<u64>>,
    /// Bytes beside each datagram's own, as headers are.
    pub overhead: usize,
}

/// A link at work.
#[derive(Clone, Debug)]
pub struct Link {
    /// May be changed at any time.
    pub config: LinkConfig,
    dice: Dice,
    /// When all that waits is through.
    free_at: u64,
    bad: bool,
    /// Datagrams dropped because the queue was full.
    pub overflowed: u64,
    /// Datagrams dropped for another reason.
    pub lost: u64,
    /// Datagrams that came out.
    pub carried: u64,
}

/// A datagram that comes out of a link.
pub(crate) struct Carried {
    pub at: u64,
    pub marked: bool,
    pub bytes: Vec<u8>,
}

impl Link {
    /// A link that throws its own dice.
    pub fn new(config: LinkConfig, dice: Dice) -> Self {
        Link { config, dice, free_at: 0, bad: false, overflowed: 0, lost: 0, carried: 0 }
    }

    /// Puts a datagram in. Returns what comes out, and when.
    pub(crate) fn carry(&mut self, now: u64, bytes: &[u8]) -> Vec<Carried> {
        let size = (bytes.len() + self.config.overhead) as u64;
        let waits = if self.config.rate > 0 {
            self.free_at.saturating_sub(now) as u128 * u128::from(self.config.rate) / 1_000_000_000
        } else {
            0
        };
        if self.config.queue > 0 && waits as u64 + size > self.config.queue.max(size) {
            self.overflowed += 1;
            return Vec::new();
        }
        if let Some(time) = (size * 1_000_000_000).checked_div(self.config.rate) {
            self.free_at = self.free_at.max(now) + time;
        }
        let through = self.free_at.max(now);
        let too_large = self.config.mtu > 0 && bytes.len() > self.config.mtu;
        if too_large || self.loses() || self.config.outages.iter().any(|outage| outage.contains(&now)) {
            self.lost += 1;
            return Vec::new();
        }
        let marked = self.config.mark_above > 0 && waits as u64 > self.config.mark_above;
        let copies = if self.dice.chance(self.config.duplicate) { 2 } else { 1 };
        self.carried += copies;
        (0..copies).map(|_| self.deliver(through, marked, bytes.to_vec())).collect()
    }

    fn loses(&mut self) -> bool {
        match self.config.loss {
            Loss::None => false,
            Loss::Random(share) => self.dice.chance(share),
            Loss::Bursts { enter, leave, lost } => {
                let turn = if self.bad { leave } else { enter };
                self.bad ^= self.dice.chance(turn);
                self.bad && self.dice.chance(lost)
            }
        }
    }

    fn deliver(&mut self, through: u64, marked: bool, mut bytes: Vec<u8>) -> Carried {
        let mut at = through + self.config.delay.as_nanos() as u64;
        let jitter = self.config.jitter.as_nanos() as u64;
        if jitter > 0 {
            at += self.dice.below(jitter);
        }
        if self.dice.chance(self.config.reorder) {
            at += self.config.held.as_nanos() as u64;
        }
        if !bytes.is_empty() && self.dice.chance(self.config.corrupt) {
            let bit = self.dice.below(bytes.len() as u64 * 8);
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
        Carried { at, marked, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// When each of so many datagrams of 1000 bytes, one a millisecond, comes out; nothing if it does not.
    fn arrivals(config: &LinkConfig, count: u64) -> Vec<Vec<Carried>> {
        let mut link = Link::new(config.clone(), Dice::new(7));
        (0..count).map(|ms| link.carry(ms * MS, &[0; 1000])).collect()
    }

    fn lost(config: &LinkConfig, count: u64) -> Vec<bool> {
        arrivals(config, count).iter().map(Vec::is_empty).collect()
    }

    #[test]
    fn bursts_lose_in_a_row() {
        let share = |lost: &[bool]| lost.iter().filter(|lost| **lost).count() as f64 / lost.len() as f64;
        let again = |all: &[bool]| {
            let after: Vec<bool> = all.windows(2).filter(|pair| pair[0]).map(|pair| pair[1]).collect();
            share(&after)
        };
        // Bad for 10 datagrams on average, of each 510.
        let bursts = Loss::Bursts { enter: 0.002, leave: 0.1, lost: 0.5 };
        let bursts = lost(&LinkConfig { loss: bursts, ..LinkConfig::default() }, 500_000);
        let single = lost(&LinkConfig { loss: Loss::Random(0.01), ..LinkConfig::default() }, 500_000);
        assert!((0.009..0.011).contains(&share(&bursts)) && (0.009..0.011).contains(&share(&single)));
        assert!((0.4..0.5).contains(&again(&bursts)), "the next is lost too if the link is still bad");
        assert!(again(&single) < 0.02);
    }

    #[test]
    fn an_outage_lets_nothing_pass_and_a_black_hole_nothing_large() {
        let config = LinkConfig { outages: vec![2 * MS..4 * MS, 5 * MS..6 * MS], ..LinkConfig::default() };
        assert_eq!(lost(&config, 7), [false, false, true, true, false, true, false]);
        let mut link = Link::new(LinkConfig { mtu: 999, ..LinkConfig::default() }, Dice::new(7));
        assert_eq!((link.carry(0, &[0; 1000]).len(), link.carry(0, &[0; 999]).len()), (0, 1));
        assert_eq!((link.lost, link.carried), (1, 1));
    }

    #[test]
    fn damage_is_one_bit_and_copies_are_damaged_by_themselves() {
        let config = LinkConfig { corrupt: 0.5, duplicate: 1.0, ..LinkConfig::default() };
        let pairs = arrivals(&config, 1000);
        let ones = |carried: &Carried| carried.bytes.iter().map(|byte| byte.count_ones()).sum::<u32>();
        assert!(pairs.iter().all(|pair| pair.len() == 2 && pair.iter().all(|one| ones(one) <= 1)));
        let damaged = pairs.iter().flatten().filter(|one| ones(one) == 1).count();
        assert!((900..1100).contains(&damaged), "{damaged} of 2000");
        assert!(pairs.iter().any(|pair| ones(&pair[0]) != ones(&pair[1])));
    }

    #[test]
    fn what_waits_is_dropped_beyond_the_queue_and_marked_before() {
        // 2000 bytes of queue at a byte each 2 us: the third of three at once finds no room.
        let config = LinkConfig { rate: 500_000, queue: 2000, mark_above: 500, ..LinkConfig::default() };
        let mut link = Link::new(config, Dice::new(7));
        let out: Vec<Vec<Carried>> = (0..3).map(|_| link.carry(0, &[0; 1000])).collect();
        let seen: Vec<_> = out.iter().flatten().map(|one| (one.at, one.marked)).collect();
        assert_eq!(seen, [(2 * MS, false), (4 * MS, true)]);
        assert_eq!(link.overflowed, 1);
    }

    #[test]
    fn a_seed_gives_the_same_link_again() {
        let config = LinkConfig {
            delay: Duration::from_millis(10),
            jitter: Duration::from_millis(5),
            loss: Loss::Random(0.1),
            reorder: 0.1,
            held: Duration::from_millis(20),
            duplicate: 0.1,
            corrupt: 0.1,
            ..LinkConfig::default()
        };
        let times = || -> Vec<(u64, Vec<u8>)> {
            arrivals(&config, 1000).into_iter().flatten().map(|one| (one.at, one.bytes)).collect()
        };
        assert_eq!(times(), times());
        let overtaken = times().windows(2).filter(|pair| pair[1].0 < pair[0].0).count();
        assert!(overtaken > 50, "{overtaken}");
    }
}
