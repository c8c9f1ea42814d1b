//! UDT's own controller: additive increase by the estimated capacity, multiplicative decrease (DAIMD).
//!
//! draft-gg-udt-03, section 6, with the constants of UDT 4.11. Two departures: the period at the end of slow
//! start, which 4.11 inverts where no rate is known, and the capacity, which counts as twice the rate of the
//! last loss where packet pairs tell nothing (as SRT does).

use std::time::Duration;

use super::{AckInfo, Controller, LossInfo, window_min};
use crate::config::Config;
use crate::time::Time;

/// Seconds between increases.
const SYN: f64 = 0.01;
/// Packets in flight at the start.
const WINDOW_START: f64 = 16.0;
/// Packets in flight at most; slow start ends there.
const WINDOW_MAX: f64 = 25_600.0;
/// A loss makes the period so much longer.
const DECREASE: f64 = 1.125;
/// Further cuts in one period of loss, at most.
const CUTS_MAX: u32 = 5;
/// Smallest increase of the rate, in packets per SYN.
const INCREASE_MIN: f64 = 0.01;
/// What the logarithm of the free capacity is scaled with.
const INCREASE: f64 = 1.5e-6;

/// Periods are in seconds a packet, windows in packets.
#[derive(Clone, Debug)]
pub(super) struct Udt {
    mtu: f64,
    period: f64,
    window: f64,
    slow_start: bool,
    /// The rate of arrival and the capacity, in packets a second, smoothed.
    arrival: f64,
    capacity: f64,
    /// The highest packet number sent, and the one at the last decrease.
    last_sent: u64,
    last_decrease: u64,
    /// The period before the last decrease.
    decrease_period: f64,
    loss_since_increase: bool,
    /// Losses in this period, on average in a period, and the cuts made.
    losses: u32,
    average_losses: f64,
    cut_every: u32,
    cuts: u32,
    rtt: f64,
    random: u64,
    marked_at: Option<Time>,
}

impl Udt {
    pub fn new(_: &Config, mtu: u16) -> Self {
        Udt {
            mtu: f64::from(mtu),
            period: 1e-6,
            window: WINDOW_START,
            slow_start: true,
            arrival: 0.0,
            capacity: 0.0,
            last_sent: 0,
            last_decrease: 0,
            decrease_period: 1e-6,
            loss_since_increase: false,
            losses: 0,
            average_losses: 1.0,
            cut_every: 1,
            cuts: 0,
            rtt: 0.1,
            random: 1,
            marked_at: None,
        }
    }

    fn end_slow_start(&mut self) {
        self.slow_start = false;
        // 4.11 takes `window / (rtt + SYN)` for a period where no rate is known: that is the rate.
        let rate = if self.arrival > 0.0 { self.arrival } else { self.window / (self.rtt + SYN) };
        self.period = 1.0 / rate.max(1.0);
    }

    /// Packets a second that are free, as the last loss and the packet pairs tell.
    fn free(&self) -> f64 {
        let rate = 1.0 / self.period;
        let known = if self.capacity > 0.0 { self.capacity } else { 2.0 / self.decrease_period };
        let free = known - rate;
        // Not yet back at the rate of the last loss: go on with care.
        if self.period > self.decrease_period { free.min(known / 9.0) } else { free }
    }

    fn increase(&mut self) {
        let free = self.free();
        let packets = if free <= 0.0 {
            INCREASE_MIN
        } else {
            let magnitude = 10_f64.powf((free * self.mtu * 8.0).log10().ceil());
            (magnitude * INCREASE / self.mtu).max(INCREASE_MIN)
        };
        self.period = self.period * SYN / (self.period * packets + SYN);
    }

    fn decrease(&mut self) {
        self.period *= DECREASE;
    }

    /// A number from 1 to `most`.
    fn throw(&mut self, most: u32) -> u32 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as u32 % most.max(1) + 1
    }
}

impl Controller for Udt {
    fn on_sent(&mut self, _: Time, number: u64, _: u64, _: u64) {
        self.last_sent = number;
    }

    fn on_ack(&mut self, ack: &AckInfo) {
        self.rtt = ack.rtt.smoothed().as_secs_f64();
        let smooth = |old: f64, new: u64| match (old > 0.0, new) {
            (_, 0) => old,
            (false, new) => new as f64,
            (true, new) => (old * 7.0 + new as f64) / 8.0,
        };
        self.arrival = smooth(self.arrival, ack.arrival_rate);
        self.capacity = smooth(self.capacity, ack.capacity);
        if self.slow_start {
            self.window += ack.bytes as f64 / self.mtu;
            if self.window > WINDOW_MAX {
                self.window = WINDOW_MAX;
                self.end_slow_start();
            }
        } else if self.arrival > 0.0 && !ack.app_limited {
            self.window = self.arrival * (self.rtt + SYN) + WINDOW_START;
        }
    }

    fn on_loss(&mut self, loss: &LossInfo) {
        if self.slow_start {
            self.end_slow_start();
        }
        self.loss_since_increase = true;
        if loss.first > self.last_decrease || self.last_decrease == 0 {
            self.decrease_period = self.period;
            self.decrease();
            self.average_losses = (self.average_losses * 7.0 + f64::from(self.losses)) / 8.0;
            (self.losses, self.cuts) = (1, 1);
            self.last_decrease = self.last_sent;
            let average = self.average_losses.ceil() as u32;
            self.cut_every = self.throw(average);
        } else {
            self.losses += 1;
            if self.cuts < CUTS_MAX && self.losses.is_multiple_of(self.cut_every) {
                self.decrease();
                self.cuts += 1;
                self.last_decrease = self.last_sent;
            }
        }
    }

    fn on_ecn(&mut self, now: Time, sent_at: Time) {
        if self.marked_at.is_none_or(|at| sent_at > at) {
            if self.slow_start {
                self.end_slow_start();
            }
            self.marked_at = Some(now);
            self.loss_since_increase = true;
            self.decrease_period = self.period;
            self.decrease();
        }
    }

    fn on_tick(&mut self, _: Time) {
        if self.slow_start {
            return;
        }
        if std::mem::take(&mut self.loss_since_increase) {
            return;
        }
        self.increase();
    }

    fn set_mtu(&mut self, mtu: u16) {
        let change = f64::from(mtu) / self.mtu;
        self.mtu = f64::from(mtu);
        if !self.slow_start {
            // The same bytes a second, in packets of another size.
            (self.period, self.decrease_period) = (self.period * change, self.decrease_period * change);
        }
        (self.arrival, self.capacity) = (self.arrival / change, self.capacity / change);
    }

    fn window(&self) -> u64 {
        ((self.window * self.mtu) as u64).max(window_min(self.mtu as u16))
    }

    fn pacing_rate(&self, rtt: Duration) -> Option<u64> {
        if self.slow_start {
            // 4.11 sends the window at once; spread over a round trip it fills no queue that it need not.
            return Some((2.0 * self.window * self.mtu / rtt.as_secs_f64().max(1e-6)) as u64);
        }
        Some((self.mtu / self.period) as u64)
    }

    fn state(&self) -> &'static str {
        if self.slow_start { "slow start" } else { "rate control" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtt::Rtt;

    fn ack(bytes: u64, arrival_rate: u64, capacity: u64) -> AckInfo {
        let mut rtt = Rtt::new(Duration::from_millis(100));
        rtt.update(Duration::from_millis(20), Duration::ZERO);
        AckInfo {
            now: Time::ZERO,
            bytes,
            sent_at: Time::ZERO,
            rtt,
            in_flight_before: bytes,
            in_flight: 0,
            app_limited: false,
            delivery: None,
            arrival_rate,
            capacity,
        }
    }

    fn loss(first: u64) -> LossInfo {
        LossInfo {
            now: Time::ZERO,
            bytes: 1500,
            packets: 1,
            sent_at: Time::ZERO,
            first,
            last: first,
            persistent: false,
        }
    }

    /// The numbers were computed by hand from the draft's formulas.
    #[test]
    fn a_trace_gives_the_periods_of_the_draft() {
        let mut udt = Udt::new(&Config::default(), 1500);
        udt.on_ack(&ack(15_000, 1000, 10_000));
        assert_eq!(udt.window, 26.0);
        udt.on_sent(Time::ZERO, 50, 1500, 1500);
        udt.on_loss(&loss(3));
        // 1/1000 s, cut once.
        assert!((udt.period - 0.001_125).abs() < 1e-9);
        udt.on_tick(Time::ZERO);
        assert!((udt.period - 0.001_125).abs() < 1e-9, "no increase in the round of a loss");
        udt.on_tick(Time::ZERO);
        // Below the rate of the last loss: capacity/9 is free, 10000/9 packets = 13.3 Mbit, so 10^8 * 1.5e-6
        // / 1500 = 0.1 packets more in 10 ms.
        let expected = 0.001_125 * 0.01 / (0.001_125 * 0.1 + 0.01);
        assert!((udt.period - expected).abs() < 1e-9, "{}", udt.period);
        udt.on_ack(&ack(1500, 1000, 10_000));
        assert!((udt.window - (1000.0 * 0.03 + 16.0)).abs() < 1e-6);
    }

    #[test]
    fn the_period_at_the_end_of_slow_start_is_not_the_rate() {
        let mut udt = Udt::new(&Config::default(), 1500);
        udt.on_ack(&ack(15_000, 0, 0));
        udt.on_loss(&loss(3));
        let rate = 26.0 / 0.03;
        assert!((udt.period - DECREASE / rate).abs() < 1e-6, "{}", udt.period);
    }

    #[test]
    fn one_period_of_loss_is_cut_five_times_at_most() {
        let mut udt = Udt::new(&Config::default(), 1500);
        udt.on_ack(&ack(15_000, 1000, 0));
        udt.on_sent(Time::ZERO, 1000, 1500, 1500);
        for number in 1..100 {
            udt.on_loss(&loss(number));
        }
        assert!((udt.period - 0.001 * DECREASE.powi(5)).abs() < 1e-9);
    }
}
