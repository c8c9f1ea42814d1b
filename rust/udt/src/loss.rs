//! Packets in flight, and which of them are lost: by packets that overtook them or by time (RFC 9002, 6).
//!
//! A packet number is never used again, so an acknowledgement always tells which packet it means. What a lost
//! packet carried goes out in another one.

use std::collections::VecDeque;
use std::time::Duration;

use smallvec::SmallVec;

use crate::congestion::{Delivery, LossInfo};
use crate::error::Violation;
use crate::frame::Ack;
use crate::rtt::{GRANULARITY, Rtt};
use crate::time::Time;

/// Packets that may overtake another before it counts as lost. Grows where the path reorders.
const OVERTAKEN_MIN: u64 = 3;
const OVERTAKEN_MAX: u64 = 1000;
/// Lost packets that are remembered, to notice when they arrive after all.
const LOST_KEPT: usize = 512;
/// Probe timeouts without anything that came through, after which the path counts as congested for long.
const PERSISTENT: u32 = 3;

/// What a packet carried that matters when it is acknowledged or lost.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum SentFrame {
    Ack { largest: u64 },
    Message { id: u64, start: u64, end: u64, fin: bool },
    Drop { id: u64 },
    Stop { id: u64 },
    MaxData,
    MaxMessageData { id: u64 },
    MaxMessages,
}

/// A packet that was sent and neither acknowledged nor lost.
#[derive(Clone, Debug)]
pub(crate) struct SentPacket {
    pub at: Time,
    pub bytes: u32,
    /// Whether it will be acknowledged, and so counts as in flight.
    pub eliciting: bool,
    /// A probe for a larger path MTU: its loss tells nothing about congestion.
    pub mtu_probe: bool,
    /// Marked ECT(0).
    pub ect: bool,
    /// What it carried has been sent again after a probe timeout.
    pub repeated: bool,
    /// What it carried has been sent again early, or was itself sent before.
    pub duplicated: bool,
    pub frames: SmallVec<[SentFrame; 2]>,
    rate: RateState,
}

impl SentPacket {
    pub fn new(at: Time, bytes: usize, eliciting: bool) -> Self {
        SentPacket {
            at,
            bytes: bytes as u32,
            eliciting,
            mtu_probe: false,
            ect: false,
            repeated: false,
            duplicated: false,
            frames: SmallVec::new(),
            rate: RateState::default(),
        }
    }
}

/// Where delivery stood when a packet was sent.
#[derive(Clone, Copy, Debug, Default)]
struct RateState {
    delivered: u64,
    delivered_at: Time,
    first_sent: Time,
    lost: u64,
    in_flight: u64,
    app_limited: bool,
}

/// What an ACK changed.
#[derive(Debug, Default)]
pub(crate) struct Acked {
    /// The packets that it acknowledged first.
    pub packets: Vec<(u64, SentPacket)>,
    pub bytes: u64,
    /// A packet that was counted as lost.
    pub spurious: bool,
    /// How old the largest one is, if it is new.
    pub rtt_sample: Option<Duration>,
    pub delivery: Option<Delivery>,
}

/// The packets in flight.
#[derive(Debug)]
pub(crate) struct SentPackets {
    /// Packet number of the first in `packets`.
    base: u64,
    packets: VecDeque<Option<SentPacket>>,
    largest_acked: Option<u64>,
    in_flight: u64,
    eliciting: usize,
    lost: VecDeque<u64>,
    overtaken_max: u64,
    /// Eighths of the round-trip time that a packet may be late by. Grows where the path reorders.
    late_eighths: u32,
    loss_time: Option<Time>,
    last_eliciting: Time,
    /// When the newest acknowledged packet was sent.
    acked_sent_at: Time,
    delivered: u64,
    delivered_at: Time,
    first_sent: Time,
    lost_bytes: u64,
}

impl SentPackets {
    pub fn new() -> Self {
        SentPackets {
            base: 0,
            packets: VecDeque::new(),
            largest_acked: None,
            in_flight: 0,
            eliciting: 0,
            lost: VecDeque::new(),
            overtaken_max: OVERTAKEN_MIN,
            late_eighths: 1,
            loss_time: None,
            last_eliciting: Time::ZERO,
            acked_sent_at: Time::ZERO,
            delivered: 0,
            delivered_at: Time::ZERO,
            first_sent: Time::ZERO,
            lost_bytes: 0,
        }
    }

    /// The number of the next packet.
    pub fn next_number(&self) -> u64 {
        self.base + self.packets.len() as u64
    }

    /// Bytes in flight.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Packets in flight that will be acknowledged.
    pub fn eliciting(&self) -> usize {
        self.eliciting
    }

    /// When the last of those was sent.
    pub fn last_eliciting(&self) -> Time {
        self.last_eliciting
    }

    /// When the oldest packet that was overtaken counts as lost.
    pub fn loss_time(&self) -> Option<Time> {
        self.loss_time
    }

    /// Bytes of packets that were lost.
    pub fn lost_bytes(&self) -> u64 {
        self.lost_bytes
    }

    /// Notes the packet with the number `next_number`.
    pub fn on_sent(&mut self, mut packet: SentPacket, app_limited: bool) {
        if packet.eliciting {
            if self.in_flight == 0 {
                (self.first_sent, self.delivered_at) = (packet.at, packet.at);
            }
            self.in_flight += u64::from(packet.bytes);
            self.eliciting += 1;
            self.last_eliciting = packet.at;
            packet.rate = RateState {
                delivered: self.delivered,
                delivered_at: self.delivered_at,
                first_sent: self.first_sent,
                lost: self.lost_bytes,
                in_flight: self.in_flight,
                app_limited,
            };
            self.packets.push_back(Some(packet));
        } else {
            // Only its number and what it acknowledged matter, and nobody will acknowledge it.
            self.packets.push_back(None);
            self.trim();
        }
    }

    /// Takes the packets that `ack` names out of flight.
    pub fn on_ack(&mut self, now: Time, ack: &Ack) -> Result<Acked, Violation> {
        if ack.largest() >= self.next_number() {
            return Err(Violation::AckOfUnsent);
        }
        let mut acked = Acked::default();
        let mut newest: Option<(Time, RateState)> = None;
        for range in ack.ranges.iter().rev() {
            self.note_spurious(range.start, range.end, &mut acked);
            for number in range.start.max(self.base)..range.end {
                let Some(packet) = self.packets[(number - self.base) as usize].take() else { continue };
                self.forget(&packet);
                acked.bytes += u64::from(packet.bytes);
                newest = Some((packet.at, packet.rate));
                acked.packets.push((number, packet));
            }
        }
        let largest = ack.largest();
        self.largest_acked = self.largest_acked.max(Some(largest));
        if let Some((number, packet)) = acked.packets.last() {
            self.acked_sent_at = self.acked_sent_at.max(packet.at);
            if *number == largest {
                acked.rtt_sample = Some(now.since(packet.at));
            }
        }
        self.delivered += acked.bytes;
        if let Some((sent_at, rate)) = newest {
            acked.delivery = self.delivery(now, sent_at, rate);
            (self.delivered_at, self.first_sent) = (now, sent_at);
        }
        self.trim();
        Ok(acked)
    }

    fn delivery(&self, now: Time, sent_at: Time, rate: RateState) -> Option<Delivery> {
        let bytes = self.delivered - rate.delivered;
        let span = now.since(rate.delivered_at).max(sent_at.since(rate.first_sent));
        (!span.is_zero()).then(|| Delivery {
            rate: (bytes as f64 / span.as_secs_f64()) as u64,
            app_limited: rate.app_limited,
            before: rate.delivered,
            total: self.delivered,
            lost: self.lost_bytes - rate.lost,
            in_flight: rate.in_flight,
        })
    }

    /// A packet that was counted as lost came late: from now on more patience.
    fn note_spurious(&mut self, start: u64, end: u64, acked: &mut Acked) {
        let from = self.lost.partition_point(|number| *number < start);
        let to = self.lost.partition_point(|number| *number < end);
        if from >= to {
            return;
        }
        let largest = self.largest_acked.unwrap_or(0);
        for number in self.lost.drain(from..to) {
            acked.spurious = true;
            let distance = largest.saturating_sub(number) + 1;
            self.overtaken_max = self.overtaken_max.max(distance).min(OVERTAKEN_MAX);
        }
        self.late_eighths = (self.late_eighths + 1).min(8);
    }

    /// The packets that count as lost by now, out of flight, and what the controller should know.
    pub fn detect_lost(&mut self, now: Time, rtt: &Rtt) -> Option<(Vec<SentPacket>, LossInfo)> {
        self.loss_time = None;
        let largest = self.largest_acked?;
        let patience = rtt.smoothed().max(rtt.latest());
        let patience = (patience + patience / 8 * self.late_eighths).max(GRANULARITY);
        let mut lost = Vec::new();
        let mut info: Option<LossInfo> = None;
        for number in self.base..largest.min(self.next_number()) {
            let slot = &mut self.packets[(number - self.base) as usize];
            let Some(packet) = slot else { continue };
            let late = packet.at + patience;
            if number + self.overtaken_max > largest && late > now {
                self.loss_time = Some(self.loss_time.map_or(late, |time| time.min(late)));
                continue;
            }
            let Some(packet) = slot.take() else { continue };
            self.forget(&packet);
            self.lost.push_back(number);
            if !packet.mtu_probe {
                self.lost_bytes += u64::from(packet.bytes);
                let info = info.get_or_insert(LossInfo {
                    now,
                    bytes: 0,
                    packets: 0,
                    sent_at: packet.at,
                    first: number,
                    last: number,
                    persistent: false,
                });
                info.bytes += u64::from(packet.bytes);
                info.packets += 1;
                info.persistent |= self.is_persistent(&packet, info.sent_at, rtt);
                (info.sent_at, info.last) = (info.sent_at.max(packet.at), number);
            }
            lost.push(packet);
        }
        while self.lost.len() > LOST_KEPT {
            self.lost.pop_front();
        }
        self.trim();
        let none =
            LossInfo { now, bytes: 0, packets: 0, sent_at: Time::ZERO, first: 0, last: 0, persistent: false };
        (!lost.is_empty()).then(|| (lost, info.unwrap_or(none)))
    }

    /// Whether this packet and an earlier lost one are several probe timeouts apart.
    fn is_persistent(&self, packet: &SentPacket, first: Time, rtt: &Rtt) -> bool {
        let span = rtt.probe_timeout(Duration::from_millis(10)) * PERSISTENT;
        packet.at.since(first) > span && self.acked_sent_at < first
    }

    /// The oldest packets in flight that were not repeated, at most `count` of them, marked as repeated.
    pub fn repeat_oldest(&mut self, count: usize, take: impl FnMut(&SentPacket)) {
        let fresh = self.packets.iter_mut().flatten().filter(|packet| !packet.repeated);
        fresh
            .take(count)
            .map(|packet| {
                packet.repeated = true;
                &*packet
            })
            .for_each(take);
    }

    /// The oldest packet in flight that was not duplicated and is `wanted`, marked as duplicated.
    pub fn duplicate_oldest(&mut self, wanted: impl Fn(&SentPacket) -> bool) -> Option<&SentPacket> {
        let mut fresh = self.packets.iter_mut().flatten().filter(|packet| !packet.duplicated);
        let packet = fresh.find(|packet| wanted(packet))?;
        packet.duplicated = true;
        Some(packet)
    }

    /// Lets packets be repeated once more, when repeats too were lost.
    pub fn forget_repeats(&mut self) {
        self.packets.iter_mut().flatten().for_each(|packet| packet.repeated = false);
    }

    /// Packets in flight, the oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &SentPacket> {
        self.packets.iter().flatten()
    }

    fn forget(&mut self, packet: &SentPacket) {
        if packet.eliciting {
            self.in_flight -= u64::from(packet.bytes);
            self.eliciting -= 1;
        }
    }

    fn trim(&mut self) {
        while self.packets.front().is_some_and(Option::is_none) {
            self.packets.pop_front();
            self.base += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn at(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    fn rtt() -> Rtt {
        let mut rtt = Rtt::new(Duration::from_millis(100));
        rtt.update(Duration::from_millis(20), Duration::ZERO);
        rtt
    }

    fn ack(numbers: &[u64]) -> Ack {
        let ranges = numbers.iter().rev().map(|number| *number..number + 1).collect();
        Ack { ranges, ..Ack::default() }
    }

    fn send(sent: &mut SentPackets, now: Time, count: usize) {
        (0..count).for_each(|_| sent.on_sent(SentPacket::new(now, 1000, true), false));
    }

    #[test]
    fn three_that_overtake_make_a_loss() {
        let mut sent = SentPackets::new();
        send(&mut sent, at(0), 5);
        sent.on_ack(at(20), &ack(&[1, 2])).unwrap();
        assert!(sent.detect_lost(at(20), &rtt()).is_none());
        assert_eq!(sent.loss_time(), Some(at(20) + Duration::from_micros(2500)), "an eighth of 20 ms later");
        sent.on_ack(at(21), &ack(&[3])).unwrap();
        let (packets, info) = sent.detect_lost(at(21), &rtt()).unwrap();
        assert_eq!((packets.len(), info.first, info.bytes), (1, 0, 1000));
        assert_eq!(sent.in_flight(), 1000);
    }

    #[test]
    fn time_makes_a_loss_too() {
        let mut sent = SentPackets::new();
        send(&mut sent, at(0), 2);
        sent.on_ack(at(20), &ack(&[1])).unwrap();
        assert!(sent.detect_lost(at(22), &rtt()).is_none());
        assert!(sent.detect_lost(at(23), &rtt()).is_some());
    }

    #[test]
    fn a_loss_that_was_none_makes_patient() {
        let mut sent = SentPackets::new();
        send(&mut sent, at(0), 10);
        sent.on_ack(at(20), &ack(&[5])).unwrap();
        assert_eq!(sent.detect_lost(at(20), &rtt()).unwrap().0.len(), 3);
        assert!(sent.on_ack(at(21), &ack(&[0, 1, 2, 5])).unwrap().spurious);
        assert_eq!(sent.overtaken_max, 6);
        assert!(!sent.on_ack(at(21), &ack(&[0, 1, 2, 5])).unwrap().spurious, "it is told once");
    }

    #[test]
    fn what_was_not_sent_cannot_be_acknowledged() {
        let mut sent = SentPackets::new();
        send(&mut sent, at(0), 3);
        assert_eq!(sent.on_ack(at(1), &ack(&[1, 3])).unwrap_err(), Violation::AckOfUnsent);
        assert_eq!(sent.in_flight(), 3000);
    }

    #[test]
    fn the_rate_of_delivery_is_that_of_the_path() {
        let mut sent = SentPackets::new();
        let mut rate = 0;
        for ms in 0..60 {
            send(&mut sent, at(ms), 1);
            if ms >= 20 {
                let acked = sent.on_ack(at(ms), &ack(&[ms - 20])).unwrap();
                rate = acked.delivery.map_or(0, |delivery| delivery.rate);
            }
        }
        assert!((999_000..=1_000_000).contains(&rate), "1000 bytes a millisecond, not {rate}");
    }

    proptest! {
        /// Each packet leaves the flight once, and what is in flight is what did not.
        #[test]
        fn the_flight_is_what_was_neither_acknowledged_nor_lost(
            steps in prop::collection::vec((0_u8..3, prop::collection::vec(0_u64..40, 1..6)), 1..60),
        ) {
            let (mut sent, mut now) = (SentPackets::new(), 0);
            let (mut gone, mut count) = (HashSet::new(), 0_u64);
            for (kind, numbers) in steps {
                now += 3;
                match kind {
                    0 => {
                        send(&mut sent, at(now), numbers.len());
                        count += numbers.len() as u64;
                    }
                    _ if count == 0 => {}
                    _ => {
                        let mut numbers: Vec<u64> = numbers.iter().map(|back| back % count).collect();
                        numbers.sort_unstable();
                        numbers.dedup();
                        let acked = sent.on_ack(at(now), &ack(&numbers)).unwrap();
                        for (number, _) in acked.packets {
                            prop_assert!(numbers.contains(&number) && gone.insert(number));
                        }
                        let before = sent.eliciting() as u64;
                        let lost = sent.detect_lost(at(now), &rtt()).map_or(0, |(packets, _)| packets.len());
                        prop_assert_eq!(before - lost as u64, sent.eliciting() as u64);
                        gone.extend(sent.lost.iter());
                        let flying = (0..count).filter(|number| !gone.contains(number)).count();
                        prop_assert_eq!(sent.in_flight(), 1000 * flying as u64);
                    }
                }
            }
        }
    }
}
