//! What the receiving side acknowledges and when, and what it measures for the sender: the rate of arrival
//! and, from packet pairs, the capacity of the path (draft-gg-udt-03, section 6).

use std::time::Duration;

use smallvec::SmallVec;

use crate::frame::{ACK_RANGES_MAX, Ack, EcnCounts};
use crate::ranges::RangeSet;
use crate::time::Time;

/// How a datagram was marked on its way (RFC 3168).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Ecn {
    /// Not marked: the sender or the path does not take part.
    #[default]
    NotEct,
    /// The sender takes part.
    Ect0,
    /// The sender takes part in another way (RFC 9331); treated as ECT(0).
    Ect1,
    /// A router was congested.
    Ce,
}

/// The first packets are acknowledged at once, so that the sender learns the path.
const EAGER: u64 = 16;
/// Ranges kept; older ones are forgotten, and their packets may be sent again.
const RANGES_KEPT: usize = 256;
/// A sender that has sent so many packets unacknowledged hears of them whatever the clock says.
const UNACKED_MAX: u32 = 64;
/// The same in bytes, for paths whose packets are large.
const UNACKED_BYTES_MAX: usize = 128 << 10;
/// So many packets unacknowledged are a stream, whose sender may be waiting to hear of them.
const STREAM: u32 = 4;

/// The packets that came.
#[derive(Debug, Default)]
pub(crate) struct Received {
    ranges: RangeSet,
    largest_at: Time,
    /// Packets that want an acknowledgement since the last one was sent.
    unacked: u32,
    /// Their bytes.
    unacked_bytes: usize,
    deadline: Option<Time>,
    /// Something came since the last ACK, so that the next packet may carry one.
    news: bool,
    ecn: EcnCounts,
    arrivals: Arrivals,
}

/// A packet that was opened, as far as acknowledging it goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub number: u64,
    pub bytes: usize,
    /// Whether it wants an acknowledgement.
    pub eliciting: bool,
    /// Whether its sender would like to hear at once.
    pub ack_now: bool,
    pub ecn: Ecn,
}

/// How long an acknowledgement may wait when nothing hurries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Of few packets, which an answer may follow that takes the acknowledgement with it.
    pub few: Duration,
    /// Of a stream.
    pub stream: Duration,
}

impl Received {
    /// Notes a packet that was not there before.
    pub fn on_packet(&mut self, now: Time, packet: Arrival, patience: Patience) {
        let next = self.largest().map_or(0, |largest| largest + 1);
        self.ranges.insert(packet.number..packet.number + 1);
        while self.ranges.len() > RANGES_KEPT {
            self.ranges.pop_first(u64::MAX);
        }
        if packet.number >= next {
            self.largest_at = now;
        }
        match packet.ecn {
            Ecn::NotEct => {}
            Ecn::Ect0 => self.ecn.ect0 += 1,
            Ecn::Ect1 => self.ecn.ect1 += 1,
            Ecn::Ce => self.ecn.ce += 1,
        }
        self.arrivals.on_packet(now, packet.number);
        self.news = true;
        if !packet.eliciting {
            return;
        }
        self.unacked += 1;
        self.unacked_bytes += packet.bytes;
        let at_once = packet.number != next
            || packet.number < EAGER
            || packet.ecn == Ecn::Ce
            || self.unacked >= UNACKED_MAX
            || self.unacked_bytes >= UNACKED_BYTES_MAX;
        let wait = match (at_once, packet.ack_now) {
            (true, _) => Duration::ZERO,
            // An answer that follows soon takes the acknowledgement with it.
            (false, true) => patience.few.min(Duration::from_millis(1)),
            (false, false) if self.unacked >= STREAM => patience.stream,
            (false, false) => patience.few,
        };
        self.deadline = Some(self.deadline.map_or(now + wait, |deadline| deadline.min(now + wait)));
    }

    /// The largest packet number that came.
    pub fn largest(&self) -> Option<u64> {
        self.ranges.iter().next_back().map(|range| range.end - 1)
    }

    /// When an acknowledgement must go out.
    pub fn deadline(&self) -> Option<Time> {
        self.deadline
    }

    /// Whether a packet that goes out anyway should carry an acknowledgement.
    pub fn has_news(&self) -> bool {
        self.news && self.unacked > 0
    }

    /// Whether gaps have piled up that the sender should confirm to know, so that they can be forgotten.
    pub fn wants_confirmation(&self) -> bool {
        self.ranges.len() > ACK_RANGES_MAX / 4
    }

    /// The acknowledgement to send now.
    pub fn take(&mut self, now: Time) -> Ack {
        (self.unacked, self.unacked_bytes) = (0, 0);
        self.deadline = None;
        self.news = false;
        let ranges: SmallVec<_> = self.ranges.iter().rev().take(ACK_RANGES_MAX).collect();
        Ack {
            ranges,
            delay_us: now.since(self.largest_at).as_micros() as u64,
            ecn: self.ecn,
            rate: self.arrivals.rate(),
            capacity: self.arrivals.capacity,
        }
    }

    /// The sender knows everything up to `largest`: it need not be told again.
    pub fn on_confirmed(&mut self, largest: u64) {
        let newest = self.ranges.iter().next_back().map_or(0, |range| range.start);
        self.ranges.remove_below((largest + 1).min(newest));
    }
}

/// Packets of a pair: every 16th and its successor go out back to back.
pub(crate) const PAIR_EVERY: u64 = 16;
/// Gaps between arrivals that are remembered.
const GAPS: usize = 16;
/// Gaps between the packets of pairs that are remembered.
const PAIRS: usize = 64;
/// Arrivals are counted over at least this long where their gaps tell nothing: UDT's SYN.
const COUNT_OVER: Duration = Duration::from_millis(10);

/// UDT's receiver-side history. Packets that one system call brought have no gaps between them; then the rate
/// is counted over 10 ms, and the capacity stays unknown.
#[derive(Debug, Default)]
struct Arrivals {
    last: Option<(u64, Time)>,
    gaps: SmallVec<[u64; GAPS]>,
    gap_at: usize,
    /// What the gaps came to when `gap_at` was this.
    rated: (usize, u64),
    pairs: Vec<u64>,
    pair_at: usize,
    capacity: u64,
    counted: u64,
    counted_since: Time,
    counted_rate: u64,
}

impl Arrivals {
    fn on_packet(&mut self, now: Time, number: u64) {
        self.counted += 1;
        let over = now.since(self.counted_since);
        if over >= COUNT_OVER {
            self.counted_rate = (self.counted as f64 / over.as_secs_f64()) as u64;
            (self.counted, self.counted_since) = (0, now);
        }
        if let Some((before, at)) = self.last {
            let gap = now.since(at).as_nanos() as u64;
            if self.gaps.len() < GAPS {
                self.gaps.push(gap);
            } else {
                self.gaps[self.gap_at % GAPS] = gap;
            }
            self.gap_at += 1;
            if before % PAIR_EVERY == 0 && number == before + 1 && gap > 0 {
                if self.pairs.len() < PAIRS {
                    self.pairs.push(gap);
                } else {
                    self.pairs[self.pair_at % PAIRS] = gap;
                }
                self.pair_at += 1;
                self.capacity = if self.pairs.len() < GAPS { 0 } else { filtered(&self.pairs, 1) };
            }
        }
        self.last = Some((number, now));
    }

    /// Packets a second: those of the gaps that are near their median. To sort them takes a while, and where
    /// each packet is acknowledged most of them are those of the last time.
    fn rate(&mut self) -> u64 {
        if self.gap_at - self.rated.0 >= GAPS {
            self.rated = (self.gap_at, filtered(&self.gaps, GAPS / 2 + 1));
        }
        let per_second = self.rated.1;
        if per_second > 0 { per_second } else { self.counted_rate }
    }
}

/// Packets a second from the gaps within an eighth and eight times of their median; 0 if fewer than `enough`.
fn filtered(gaps: &[u64], enough: usize) -> u64 {
    let mut sorted: SmallVec<[u64; PAIRS]> = SmallVec::from_slice(gaps);
    sorted.sort_unstable();
    let median = sorted[sorted.len() / 2];
    let near = sorted.iter().filter(|gap| **gap > median / 8 && **gap < median.saturating_mul(8));
    let (count, sum) = near.fold((0_u64, 0_u64), |(count, sum), gap| (count + 1, sum + gap));
    if count < enough as u64 || sum == 0 { 0 } else { (count as f64 * 1e9 / sum as f64).ceil() as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { few: Duration::from_millis(5), stream: Duration::from_millis(2) };

    fn packet(number: u64) -> Arrival {
        Arrival { number, bytes: 1000, eliciting: true, ack_now: false, ecn: Ecn::NotEct }
    }

    fn at(us: u64) -> Time {
        Time::from_nanos(us * 1000)
    }

    #[test]
    fn the_first_packets_and_gaps_are_acknowledged_at_once() {
        let mut received = Received::default();
        for number in 0..EAGER {
            received.on_packet(at(number), packet(number), PATIENCE);
            assert_eq!(received.deadline(), Some(at(number)));
            received.take(at(number));
        }
        received.on_packet(at(100), packet(16), PATIENCE);
        assert_eq!(received.deadline(), Some(at(5100)));
        received.on_packet(at(200), packet(18), PATIENCE);
        assert_eq!(received.deadline(), Some(at(200)));
        let ack = received.take(at(210));
        assert_eq!((&ack.ranges[..], ack.delay_us), (&[18..19, 0..17][..], 10));
        assert_eq!(received.deadline(), None);
    }

    #[test]
    fn a_stream_is_acknowledged_sooner_than_few_packets_and_at_once_after_many_bytes() {
        let mut received = Received::default();
        let deadlines =
            |received: &mut Received, numbers: std::ops::Range<u64>, bytes| -> Vec<Option<Time>> {
                let take = |number| {
                    received.on_packet(at(number), Arrival { bytes, ..packet(number) }, PATIENCE);
                    received.deadline()
                };
                numbers.map(take).collect()
            };
        deadlines(&mut received, 0..EAGER, 1000);
        received.take(at(100));
        let few = Some(at(5016));
        assert_eq!(deadlines(&mut received, 16..20, 1000), [few, few, few, Some(at(2019))]);
        received.take(at(100));
        assert_eq!(deadlines(&mut received, 20..23, 65_000), [Some(at(5020)), Some(at(5020)), Some(at(22))]);
    }

    #[test]
    fn what_the_sender_knows_is_forgotten() {
        let mut received = Received::default();
        for number in (0..100).step_by(2) {
            received.on_packet(at(number), packet(number), PATIENCE);
        }
        assert!(received.wants_confirmation());
        received.on_confirmed(90);
        assert_eq!(received.take(at(100)).ranges.len(), 4);
        received.on_confirmed(1000);
        assert_eq!(received.largest(), Some(98));
    }

    #[test]
    fn rate_and_capacity_are_those_of_the_link() {
        let mut received = Received::default();
        // 1000 packets a second, every 16th and its successor 120 us apart: 8334 packets a second.
        let mut clock = 0;
        for number in 0..600 {
            received.on_packet(at(clock), packet(number), PATIENCE);
            clock += if number % PAIR_EVERY == 0 { 120 } else { 1000 };
        }
        let ack = received.take(at(clock));
        assert!((1000..1100).contains(&ack.rate), "{ack:?}");
        assert_eq!(ack.capacity, 8334);
    }

    #[test]
    fn packets_that_came_together_are_counted() {
        let mut received = Received::default();
        for number in 0..3000 {
            received.on_packet(at(number / 30 * 1000), packet(number), PATIENCE);
        }
        let ack = received.take(at(100_000));
        assert!((27_000..33_000).contains(&ack.rate), "{ack:?}");
        assert_eq!(ack.capacity, 0);
    }
}
