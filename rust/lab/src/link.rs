//! One direction of a network link, as arithmetic: a packet goes in at a time, and out comes when it arrives,
//! if it does. Not here: packets, sockets, clocks. The emulator and a simulator bring their own.
//!
//! ```text
//! packet ─► lost? ─► room in the queue? ─► wait for the wire ─► travel (delay, jitter) ─► due
//! ```

use serde::{Deserialize, Serialize};

use crate::error::LabError;

/// Slower is not a link but an outage.
const RATE_MBIT_MIN: f64 = 0.001;
/// No path on this planet takes longer.
const DELAY_US_MAX: u64 = 60_000_000;

/// What a link is like. [`Conditions::default`] is a wire that nothing happens on.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Conditions {
    /// Megabits a second; 0: as fast as it is given.
    pub rate_mbit: f64,
    /// Bytes that may wait for the wire, the packet on it included; those beyond are dropped. Unused without
    /// a rate, since nothing waits then.
    pub queue_bytes: u64,
    /// One way, after the queue.
    pub delay_us: u64,
    /// Of all packets.
    pub loss_percent: f64,
    /// Packets that are lost in a row, on average (Gilbert's model); 0: each is lost by itself.
    pub burst_packets: f64,
    /// Up to so much more delay, evenly spread. Packets overtake each other by it.
    pub jitter_us: u64,
    /// Of the packets that are not lost: they arrive twice.
    pub duplicate_percent: f64,
    /// Of the packets that are not lost: they skip the delay, and so overtake.
    pub reorder_percent: f64,
    /// Of the packets that are not lost: a bit of them is flipped. Where checksums are looked at, that is a
    /// loss.
    pub corrupt_percent: f64,
    /// Larger packets vanish without a word, as in a path MTU black hole; 0: none.
    pub mtu: usize,
    /// When nothing passes, from and until, in microseconds since the first packet.
    pub outages_us: Vec<(u64, u64)>,
}

impl Conditions {
    /// Refuses what no link can be.
    pub fn check(&self) -> Result<(), LabError> {
        let percents = [
            ("loss_percent", self.loss_percent),
            ("duplicate_percent", self.duplicate_percent),
            ("reorder_percent", self.reorder_percent),
            ("corrupt_percent", self.corrupt_percent),
        ];
        for (name, percent) in percents {
            if !(0.0..=100.0).contains(&percent) {
                return Err(LabError::option(name, format!("{percent} is not between 0 and 100")));
            }
        }
        if self.rate_mbit != 0.0 && !(self.rate_mbit >= RATE_MBIT_MIN && self.rate_mbit.is_finite()) {
            let problem = format!("{} is neither 0 nor at least {RATE_MBIT_MIN}", self.rate_mbit);
            return Err(LabError::option("rate_mbit", problem));
        }
        if self.burst_packets != 0.0 && !(self.burst_packets >= 1.0 && self.burst_packets.is_finite()) {
            let problem = format!("{} is neither 0 nor at least 1", self.burst_packets);
            return Err(LabError::option("burst_packets", problem));
        }
        for (name, time) in [("delay_us", self.delay_us), ("jitter_us", self.jitter_us)] {
            if time > DELAY_US_MAX {
                return Err(LabError::option(name, format!("{time} is more than {DELAY_US_MAX}")));
            }
        }
        Ok(())
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// Chance took it, or an outage, or it was too large.
    Lost,
    /// The queue was full.
    Overflowed,
    /// It comes out.
    Arrives {
        /// When, in nanoseconds of the clock that the packet came in by.
        due: u64,
        /// Whether it comes out twice.
        twice: bool,
        /// Where it is damaged, if it is: a number, of which the remainder by the packet's bits is one.
        flip: Option<u64>,
    },
}

/// What a link has done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Counters {
    /// Packets that came in.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets that chance took, or outages, or that were too large.
    pub lost: u64,
    /// Packets that found the queue full.
    pub overflowed: u64,
    /// Packets that came out twice.
    pub duplicated: u64,
    /// Packets that skipped the delay.
    pub reordered: u64,
    /// Packets that came out damaged.
    pub corrupted: u64,
    /// The fullest that the queue has been.
    pub queue_bytes_most: u64,
}

/// One direction of a link.
///
/// The fate of the nth packet depends on the seed and on n, and not on when the packet comes: two runs with
/// one seed lose the same packets, however the sender's timing differs. Only the queue knows the time.
#[derive(Clone, Debug)]
pub struct Link {
    conditions: Conditions,
    random: Random,
    /// When the wire will have sent all that it was given.
    idle_from: u64,
    /// When the first packet came.
    begun: Option<u64>,
    /// In a burst of losses.
    bad: bool,
    counters: Counters,
}

impl Link {
    /// An idle link.
    pub fn new(conditions: Conditions, seed: u64) -> Self {
        Link {
            conditions,
            random: Random(seed),
            idle_from: 0,
            begun: None,
            bad: false,
            counters: Counters::default(),
        }
    }

    /// Takes a packet of so many bytes at a time, in nanoseconds. Times must not go back.
    pub fn carry(&mut self, now: u64, bytes: usize) -> Fate {
        // Always as many numbers for a packet: the next one's must not depend on this one's fate.
        let [loss, jitter, duplicate, reorder, corrupt, flip] = std::array::from_fn(|_| self.random.share());
        let happens = |share: f64, percent: f64| share * 100.0 < percent;
        let bytes = bytes as u64;
        self.counters.packets += 1;
        self.counters.bytes += bytes;
        let too_large = self.conditions.mtu > 0 && bytes > self.conditions.mtu as u64;
        if self.loses(loss) || too_large || self.is_out(now) {
            self.counters.lost += 1;
            return Fate::Lost;
        }
        let Some(sent) = self.send(now, bytes) else {
            self.counters.overflowed += 1;
            return Fate::Overflowed;
        };
        let twice = happens(duplicate, self.conditions.duplicate_percent);
        let early = happens(reorder, self.conditions.reorder_percent);
        let flip = happens(corrupt, self.conditions.corrupt_percent).then_some((flip * 2f64.powi(53)) as u64);
        self.counters.duplicated += u64::from(twice);
        self.counters.reordered += u64::from(early);
        self.counters.corrupted += u64::from(flip.is_some());
        let travel_ns = match early {
            true => 0,
            false => {
                self.conditions.delay_us * 1000 + (jitter * self.conditions.jitter_us as f64 * 1e3) as u64
            }
        };
        Fate::Arrives { due: sent + travel_ns, twice, flip }
    }

    /// Whether chance takes the packet.
    fn loses(&mut self, chance: f64) -> bool {
        let share = self.conditions.loss_percent / 100.0;
        if self.conditions.burst_packets == 0.0 || share >= 1.0 {
            return chance < share;
        }
        // Bursts end so often that they have their length, and begin so often that they are the share.
        let end = 1.0 / self.conditions.burst_packets;
        self.bad = if self.bad { chance >= end } else { chance < end * share / (1.0 - share) };
        self.bad
    }

    /// Whether nothing passes now.
    fn is_out(&mut self, now: u64) -> bool {
        let since_us = (now - *self.begun.get_or_insert(now)) / 1000;
        self.conditions.outages_us.iter().any(|(from, until)| (*from..*until).contains(&since_us))
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// When the packet's last bit is on the wire; `None` if the queue has no room for it.
    fn send(&mut self, now: u64, bytes: u64) -> Option<u64> {
        if self.conditions.rate_mbit == 0.0 {
            return Some(now);
        }
        let ns_per_byte = 8e3 / self.conditions.rate_mbit;
        let start = self.idle_from.max(now);
        let queued = ((start - now) as f64 / ns_per_byte) as u64 + bytes;
        if queued > self.conditions.queue_bytes {
            return None;
        }
        self.counters.queue_bytes_most = self.counters.queue_bytes_most.max(queued);
        self.idle_from = start + (bytes as f64 * ns_per_byte) as u64;
        Some(self.idle_from)
    }
}

/// SplitMix64 (<https://prng.di.unimi.it/splitmix64.c>): any seed is good, 0 too.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    /// From 0 up to, but not including, 1.
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn ten_megabits() -> Conditions {
        Conditions { rate_mbit: 10.0, queue_bytes: 15_000, ..Conditions::default() }
    }

    /// The fates of packets of 1250 bytes, one every `gap` nanoseconds.
    fn fates(conditions: &Conditions, seed: u64, count: u64, gap: u64) -> Vec<Fate> {
        let mut link = Link::new(conditions.clone(), seed);
        (0..count).map(|number| link.carry(number * gap, 1250)).collect()
    }

    fn due(fate: Fate) -> u64 {
        match fate {
            Fate::Arrives { due, .. } => due,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_perfect_wire_takes_no_time() {
        assert_eq!(
            fates(&Conditions::default(), 1, 1, 0),
            [Fate::Arrives { due: 0, twice: false, flip: None }]
        );
    }

    #[test]
    fn an_idle_link_takes_the_delay_and_the_time_to_send() {
        let conditions = Conditions { delay_us: 20_000, ..ten_megabits() };
        // 1250 bytes are 10,000 bits: 1 ms at 10 Mbit/s.
        let arrivals: Vec<u64> = fates(&conditions, 1, 3, 5 * MS).into_iter().map(due).collect();
        assert_eq!(arrivals, [21 * MS, 26 * MS, 31 * MS]);
    }

    #[test]
    fn packets_that_come_together_leave_at_the_rate_until_the_queue_is_full() {
        let found = fates(&ten_megabits(), 1, 14, 0);
        let arrivals: Vec<u64> = found[..12].iter().map(|&fate| due(fate)).collect();
        assert_eq!(arrivals, (1..=12).map(|packet| packet * MS).collect::<Vec<_>>());
        assert_eq!(found[12..], [Fate::Overflowed; 2]);
    }

    #[test]
    fn nothing_delivers_more_than_the_rate() {
        // Offered five times what the link carries.
        let found = fates(&ten_megabits(), 1, 5000, MS / 5);
        let arrived: Vec<u64> =
            found.iter().filter(|fate| **fate != Fate::Overflowed).map(|&fate| due(fate)).collect();
        for second in [1000 * MS, 500 * MS] {
            let bytes = 1250 * arrived.iter().filter(|&&due| due <= second).count() as u64;
            assert!(bytes * 8 <= second / 100, "{bytes} bytes in {second} ns");
        }
        assert!((999..=1012).contains(&arrived.len()), "{}", arrived.len());
    }

    #[test]
    fn the_queue_empties_with_time() {
        let mut link = Link::new(ten_megabits(), 1);
        let burst =
            |link: &mut Link, now| (0..20).filter(|_| link.carry(now, 1250) != Fate::Overflowed).count();
        assert_eq!(burst(&mut link, 0), 12);
        assert_eq!(burst(&mut link, 4 * MS), 4);
        assert_eq!(burst(&mut link, 100 * MS), 12);
        assert_eq!(link.counters().queue_bytes_most, 15_000);
        assert_eq!(link.counters().overflowed, 60 - 28);
    }

    #[test]
    fn the_share_that_is_lost_is_the_one_asked_for() {
        for percent in [0.0, 0.1, 2.0, 50.0, 100.0] {
            let conditions = Conditions { loss_percent: percent, ..Conditions::default() };
            let lost = fates(&conditions, 7, 100_000, 1).iter().filter(|fate| **fate == Fate::Lost).count();
            let expected = percent * 1000.0;
            assert!((lost as f64 - expected).abs() <= 5.0 * expected.sqrt(), "{lost} of {percent}%");
        }
    }

    #[test]
    fn bursts_have_the_share_and_the_length_asked_for() {
        for (percent, length) in [(1.0, 1.0), (1.0, 5.0), (20.0, 10.0)] {
            let conditions =
                Conditions { loss_percent: percent, burst_packets: length, ..Conditions::default() };
            let found = fates(&conditions, 7, 1_000_000, 1);
            let lost = found.iter().filter(|fate| **fate == Fate::Lost).count() as f64;
            let bursts =
                found.windows(2).filter(|pair| pair[0] != Fate::Lost && pair[1] == Fate::Lost).count() as f64;
            assert!((lost / 1e4 / percent - 1.0).abs() < 0.1, "{lost} of {percent}%");
            assert!((lost / bursts / length - 1.0).abs() < 0.1, "{length}: {lost} in {bursts} bursts");
        }
    }

    #[test]
    fn large_packets_vanish_in_a_black_hole_and_all_in_an_outage() {
        let outages_us = vec![(2_000, 4_000), (9_000, 10_000)];
        let mut link = Link::new(Conditions { mtu: 1250, outages_us, ..Conditions::default() }, 1);
        let start = 77 * MS;
        let passes = |link: &mut Link, ms, bytes| link.carry(start + ms * MS, bytes) != Fate::Lost;
        let passed: Vec<u64> = (0..12).filter(|ms| passes(&mut link, *ms, 1250)).collect();
        assert_eq!(passed, [0, 1, 4, 5, 6, 7, 8, 10, 11]);
        assert!(!passes(&mut link, 20, 1251));
        assert_eq!(link.counters().lost, 4);
    }

    #[test]
    fn damage_is_as_frequent_as_asked_and_anywhere() {
        let conditions = Conditions { corrupt_percent: 10.0, ..Conditions::default() };
        let flips: Vec<u64> = fates(&conditions, 1, 10_000, 1)
            .into_iter()
            .filter_map(|fate| if let Fate::Arrives { flip, .. } = fate { flip } else { None })
            .collect();
        assert!((850..1150).contains(&flips.len()), "{}", flips.len());
        let bytes: std::collections::HashSet<u64> = flips.iter().map(|flip| flip % 10_000 / 8).collect();
        assert!(bytes.len() > 500);
    }

    #[test]
    fn a_seed_gives_the_same_losses_whatever_the_timing() {
        let conditions = Conditions { loss_percent: 5.0, jitter_us: 500, ..Conditions::default() };
        let lost = |seed, gap| -> Vec<bool> {
            fates(&conditions, seed, 1000, gap).iter().map(|fate| *fate == Fate::Lost).collect()
        };
        assert_eq!(fates(&conditions, 3, 1000, 10), fates(&conditions, 3, 1000, 10));
        assert_eq!(lost(3, 10), lost(3, 12_345));
        assert_ne!(lost(3, 10), lost(4, 10));
    }

    #[test]
    fn packets_keep_their_order_unless_told_otherwise() {
        let overtakes = |conditions: &Conditions| {
            let arrivals: Vec<u64> = fates(conditions, 1, 1000, MS).into_iter().map(due).collect();
            arrivals.windows(2).filter(|pair| pair[1] < pair[0]).count()
        };
        let still = Conditions { delay_us: 20_000, ..Conditions::default() };
        assert_eq!(overtakes(&still), 0);
        assert!(overtakes(&Conditions { jitter_us: 5_000, ..still.clone() }) > 100);
        assert!((10..90).contains(&overtakes(&Conditions { reorder_percent: 5.0, ..still })));
    }

    #[test]
    fn jitter_and_copies_stay_within_what_was_asked() {
        let conditions =
            Conditions { delay_us: 1000, jitter_us: 500, duplicate_percent: 10.0, ..Conditions::default() };
        let found = fates(&conditions, 1, 10_000, MS);
        let travels = found.iter().zip(0..).map(|(&fate, number)| due(fate) - number * MS);
        assert!(travels.clone().all(|travel| (MS..MS + MS / 2).contains(&travel)));
        assert!(travels.max().unwrap() > MS + 490_000);
        let twice = found.iter().filter(|fate| matches!(fate, Fate::Arrives { twice: true, .. })).count();
        assert!((850..1150).contains(&twice), "{twice}");
    }

    #[test]
    fn what_no_link_can_be_is_refused_by_name() {
        let wrong = [
            ("loss_percent", Conditions { loss_percent: 101.0, ..Conditions::default() }),
            ("reorder_percent", Conditions { reorder_percent: f64::NAN, ..Conditions::default() }),
            ("rate_mbit", Conditions { rate_mbit: -1.0, ..Conditions::default() }),
            ("rate_mbit", Conditions { rate_mbit: f64::INFINITY, ..Conditions::default() }),
            ("corrupt_percent", Conditions { corrupt_percent: -1.0, ..Conditions::default() }),
            ("burst_packets", Conditions { burst_packets: 0.5, ..Conditions::default() }),
            ("delay_us", Conditions { delay_us: u64::MAX, ..Conditions::default() }),
        ];
        for (name, conditions) in wrong {
            let error = conditions.check().unwrap_err();
            assert!(error.to_string().starts_with(name), "{error}");
        }
        assert!(ten_megabits().check().is_ok());
    }
}
