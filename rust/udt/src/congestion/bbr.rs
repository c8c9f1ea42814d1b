//! A controller by bandwidth and round-trip time, after draft-ietf-ccwg-bbr (version 3), reduced to what a
//! cluster needs: the rate of delivery and the least round-trip time say how fast to send and how much may be
//! in flight; loss counts only where more than a share of a round is lost.

use std::time::Duration;

use super::{AckInfo, Controller, LossInfo, initial_window, window_min};
use crate::config::Config;
use crate::time::Time;

const STARTUP_GAIN: f64 = 2.77;
const DRAIN_GAIN: f64 = 0.5;
/// Probing up and down, and how much of the window each phase uses.
const UP_GAIN: f64 = 1.2;
const DOWN_GAIN: f64 = 0.9;
/// So much more than the pipe holds in flight shows that there is no more to be had.
const UP_FLIGHT: f64 = 1.15;
const WINDOW_GAIN: f64 = 2.0;
/// A little slower than the path, so that a queue never stands.
const PACE_MARGIN: f64 = 0.99;
/// Share of a round that may be lost before it counts as congestion. Random loss is below it.
const LOSS_CEILING: f64 = 0.02;
/// Packets that must be lost too: one of ten is no share.
const LOSS_PACKETS_MIN: f64 = 6.0;
/// A round is a sample: it must be so many standard deviations above the ceiling.
const LOSS_DEVIATIONS: f64 = 3.0;
/// What is left of the flight that lost too much.
const BETA: f64 = 0.7;
/// A queue stands where no round trip of a round was shorter than so many times the least one.
const CROWD_RTT: f64 = 1.25;
/// What a loss behind a standing queue leaves of the rate: the next probe wins as much back, so that a path
/// which loses for reasons of its own is not given up step by step.
const CROWD_BETA: f64 = 1.0 / UP_GAIN;
/// Room left for others below the flight that lost too much.
const HEADROOM: f64 = 0.85;
/// The pipe is full when three rounds brought less than a quarter more.
const FULL_GROWTH: f64 = 1.25;
const FULL_ROUNDS: u32 = 3;
/// The least round-trip time is measured again after this, with half of the window, for a while.
const MIN_RTT_LIFE: Duration = Duration::from_secs(5);
/// A sample that is longer by less than this part shows that no queue stands, and saves the measurement.
const MIN_RTT_NEAR: u32 = 32;
const MIN_RTT_PROBE: Duration = Duration::from_millis(200);
/// Rounds between probes for more bandwidth, and the longest time.
const CRUISE_ROUNDS: u64 = 62;
const CRUISE_TIME: Duration = Duration::from_secs(2);
/// Bandwidth is the most of this many cycles.
const CYCLES: usize = 2;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Startup,
    Drain,
    Down,
    Cruise,
    Refill,
    Up,
    ProbeRtt,
}

/// Rates are in bytes a second, windows in bytes.
#[derive(Debug)]
pub(super) struct Bbr {
    phase: Phase,
    mtu: u16,
    initial: u64,
    /// The highest rate of this cycle and the ones before.
    rates: [u64; CYCLES],
    min_rtt: Duration,
    min_rtt_at: Time,
    /// Less was in flight, so that `min_rtt` is measured anew.
    probe_until: Option<Time>,
    probe_min: Duration,
    /// A round ends when a packet is acknowledged that was sent after this many bytes were delivered.
    round_end: u64,
    rounds: u64,
    round_lost: u64,
    round_delivered: u64,
    round_min_rtt: Duration,
    lossy_rounds: u32,
    /// The rate was lowered since the last probe.
    yielded: bool,
    full_rate: u64,
    full_rounds: u32,
    /// More in flight than this lost too much.
    flight_max: Option<u64>,
    /// Until the next probe: what a loss in this cycle leaves.
    flight_short: Option<u64>,
    cycle_at: Time,
    cycle_round: u64,
    up_rounds: u32,
    window: u64,
    pause: Duration,
    random: u64,
    marked: bool,
}

impl Bbr {
    pub fn new(config: &Config, mtu: u16) -> Self {
        let initial = initial_window(config, mtu);
        Bbr {
            phase: Phase::Startup,
            mtu,
            initial,
            rates: [0; CYCLES],
            min_rtt: Duration::MAX,
            min_rtt_at: Time::ZERO,
            probe_until: None,
            probe_min: Duration::MAX,
            round_end: 0,
            rounds: 0,
            round_lost: 0,
            round_delivered: 0,
            round_min_rtt: Duration::MAX,
            lossy_rounds: 0,
            yielded: false,
            full_rate: 0,
            full_rounds: 0,
            flight_max: None,
            flight_short: None,
            cycle_at: Time::ZERO,
            cycle_round: 0,
            up_rounds: 0,
            window: initial,
            pause: CRUISE_TIME,
            random: 1,
            marked: false,
        }
    }

    fn rate(&self) -> u64 {
        self.rates.iter().copied().max().unwrap_or(0)
    }

    /// Bytes that the path holds.
    fn pipe(&self) -> u64 {
        if self.min_rtt == Duration::MAX || self.rate() == 0 {
            return self.initial;
        }
        (self.rate() as f64 * self.min_rtt.as_secs_f64()) as u64
    }

    fn enter(&mut self, now: Time, phase: Phase) {
        self.phase = phase;
        self.cycle_at = now;
        self.cycle_round = self.rounds;
        match phase {
            Phase::Down => {
                self.rates = [0, self.rate()];
                self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                self.pause = CRUISE_TIME + Duration::from_millis((self.random >> 33) % 1000);
                self.flight_short = None;
            }
            Phase::Refill => self.flight_short = None,
            Phase::Up => (self.up_rounds, self.yielded) = (0, false),
            _ => {}
        }
    }

    fn on_round(&mut self, ack: &AckInfo, app_limited: bool) {
        self.rounds += 1;
        let packets = (self.round_lost + self.round_delivered) as f64 / f64::from(self.mtu);
        let expected = LOSS_CEILING * packets;
        let ceiling = (expected + LOSS_DEVIATIONS * expected.sqrt()).max(LOSS_PACKETS_MIN);
        let lossy = self.round_lost as f64 / f64::from(self.mtu) > ceiling || self.marked;
        self.make_room();
        (self.round_lost, self.round_delivered) = (0, 0);
        self.marked = false;
        self.lossy_rounds = if lossy { self.lossy_rounds + 1 } else { 0 };
        if lossy {
            self.too_much(ack);
        }
        if self.phase == Phase::Startup && !app_limited {
            if self.rate() as f64 >= self.full_rate as f64 * FULL_GROWTH {
                (self.full_rate, self.full_rounds) = (self.rate(), 0);
            } else {
                self.full_rounds += 1;
            }
            if self.full_rounds >= FULL_ROUNDS || self.lossy_rounds >= 2 {
                self.enter(ack.now, Phase::Drain);
            }
        }
        if self.phase == Phase::Up {
            self.up_rounds += 1;
            if let Some(most) = &mut self.flight_max {
                // Probing found room: the limit grows, faster with each round.
                *most += u64::from(self.mtu) << self.up_rounds.min(8);
            }
        }
    }

    /// A round lost more than random loss would.
    fn too_much(&mut self, ack: &AckInfo) {
        let flight = ack.in_flight_before.max((self.pipe() as f64 * BETA) as u64);
        match self.phase {
            Phase::Startup => {}
            Phase::Up | Phase::Refill => {
                self.flight_max = Some(flight);
                self.enter(ack.now, Phase::Down);
            }
            _ => {
                let before = self.flight_short.unwrap_or(self.window);
                self.flight_short = Some((before as f64 * BETA) as u64);
            }
        }
    }

    /// Where a packet was lost behind a queue that stands, others fill it too, and slow down for that loss.
    fn make_room(&mut self) {
        let round_min = std::mem::replace(&mut self.round_min_rtt, Duration::MAX);
        let standing = round_min.as_secs_f64() > CROWD_RTT * self.min_rtt.as_secs_f64();
        let own_queue_is_gone = self.phase == Phase::Cruise && self.rounds - self.cycle_round > 2;
        if self.round_lost > 0 && standing && own_queue_is_gone && !self.yielded {
            self.yielded = true;
            self.rates = self.rates.map(|rate| (rate as f64 * CROWD_BETA) as u64);
        }
    }

    fn advance(&mut self, ack: &AckInfo) {
        let (now, pipe) = (ack.now, self.pipe());
        let since = self.rounds - self.cycle_round;
        match self.phase {
            Phase::Drain if ack.in_flight <= pipe => self.enter(now, Phase::Down),
            Phase::Down if ack.in_flight <= self.with_headroom().min(pipe) => self.enter(now, Phase::Cruise),
            Phase::Cruise if now.since(self.cycle_at) >= self.pause || since >= CRUISE_ROUNDS => {
                self.enter(now, Phase::Refill);
            }
            Phase::Refill if since >= 1 => self.enter(now, Phase::Up),
            Phase::Up if since >= 1 && ack.in_flight_before as f64 >= UP_FLIGHT * pipe as f64 => {
                self.enter(now, Phase::Down);
            }
            Phase::Up if since >= 4 => self.enter(now, Phase::Down),
            _ => {}
        }
    }

    fn with_headroom(&self) -> u64 {
        self.flight_max.map_or(u64::MAX, |most| (most as f64 * HEADROOM) as u64)
    }

    fn measure_min_rtt(&mut self, ack: &AckInfo) {
        let sample = ack.rtt.latest();
        self.round_min_rtt = self.round_min_rtt.min(sample);
        self.min_rtt = self.min_rtt.min(sample);
        if sample <= self.min_rtt + self.min_rtt / MIN_RTT_NEAR {
            self.min_rtt_at = ack.now;
        }
        match self.probe_until {
            None if ack.now.since(self.min_rtt_at) > MIN_RTT_LIFE && self.phase != Phase::Startup => {
                self.phase = Phase::ProbeRtt;
                self.probe_until = Some(ack.now + MIN_RTT_PROBE + self.min_rtt);
                self.probe_min = sample;
            }
            Some(until) => {
                self.probe_min = self.probe_min.min(sample);
                if ack.now >= until {
                    (self.min_rtt, self.min_rtt_at) = (self.probe_min, ack.now);
                    self.probe_until = None;
                    self.enter(ack.now, Phase::Refill);
                }
            }
            None => {}
        }
    }

    fn set_window(&mut self, ack: &AckInfo) {
        let gain = if self.phase == Phase::Startup { STARTUP_GAIN } else { WINDOW_GAIN };
        // What is acknowledged together, by a batch or a delay, must not stop the sender.
        let ms = self.rate() / 1000;
        let slack = (3 * 65_536_u64.min(ms).max(u64::from(self.mtu))).max(ms);
        let wanted = (gain * self.pipe() as f64) as u64 + slack;
        let mut window = if self.phase == Phase::Startup || self.window < wanted {
            (self.window + ack.bytes).min(wanted.max(self.initial))
        } else {
            wanted
        };
        match self.phase {
            Phase::Startup => window = window.max(self.window),
            Phase::ProbeRtt => window = window.min(self.pipe() / 2),
            Phase::Cruise | Phase::Down => window = window.min(self.with_headroom()),
            _ => window = window.min(self.flight_max.unwrap_or(u64::MAX)),
        }
        window = window.min(self.flight_short.unwrap_or(u64::MAX));
        self.window = window.max(2 * window_min(self.mtu));
    }

    fn gain(&self) -> f64 {
        match self.phase {
            Phase::Startup => STARTUP_GAIN,
            Phase::Drain => DRAIN_GAIN,
            Phase::Down => DOWN_GAIN,
            Phase::Up => UP_GAIN,
            Phase::Cruise | Phase::Refill | Phase::ProbeRtt => 1.0,
        }
    }
}

impl Controller for Bbr {
    fn on_ack(&mut self, ack: &AckInfo) {
        self.round_delivered += ack.bytes;
        self.measure_min_rtt(ack);
        if let Some(delivery) = ack.delivery {
            // A span shorter than the path's is a batch that came at once, not a rate.
            let plausible = !delivery.app_limited || delivery.rate > self.rate();
            if plausible {
                // Only a probe sends faster than what is known: elsewhere, more is a burst that came at once.
                let probing = !matches!(self.phase, Phase::Cruise | Phase::Refill) || self.rate() == 0;
                let most = if probing { u64::MAX } else { self.rate() };
                self.rates[0] = self.rates[0].max(delivery.rate.min(most));
            }
            if delivery.before >= self.round_end {
                self.round_end = delivery.total;
                self.on_round(ack, delivery.app_limited);
            }
        }
        if self.phase != Phase::ProbeRtt {
            self.advance(ack);
        }
        self.set_window(ack);
    }

    fn on_loss(&mut self, loss: &LossInfo) {
        self.round_lost += loss.bytes;
        if loss.persistent {
            self.window = window_min(self.mtu);
        }
    }

    fn on_ecn(&mut self, _: Time, _: Time) {
        self.marked = true;
    }

    fn set_mtu(&mut self, mtu: u16) {
        self.mtu = mtu;
        self.window = self.window.max(2 * window_min(mtu));
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn pacing_rate(&self, rtt: Duration) -> Option<u64> {
        let rate = match self.rate() {
            0 => self.initial as f64 / rtt.as_secs_f64().max(1e-4),
            rate => rate as f64,
        };
        Some((rate * self.gain() * PACE_MARGIN) as u64)
    }

    fn state(&self) -> &'static str {
        match self.phase {
            Phase::Startup => "startup",
            Phase::Drain => "drain",
            Phase::Down => "probe down",
            Phase::Cruise => "cruise",
            Phase::Refill => "refill",
            Phase::Up => "probe up",
            Phase::ProbeRtt => "probe rtt",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::congestion::Delivery;
    use crate::rtt::Rtt;

    const MTU: u64 = 1000;
    /// Bytes that the path delivers in a millisecond, and how many it holds.
    const RATE_MS: u64 = 10_000;
    const PIPE: u64 = 20 * RATE_MS;

    /// A path of 20 ms and 10 MB/s, filled by a sender that always has something to send.
    struct Trace {
        bbr: Bbr,
        ms: u64,
        /// What the queue adds to the round-trip time.
        queue_ms: u64,
        delivered: Vec<u64>,
        phases: Vec<&'static str>,
    }

    impl Trace {
        fn new() -> Self {
            let bbr = Bbr::new(&Config::default(), MTU as u16);
            Trace { bbr, ms: 0, queue_ms: 0, delivered: Vec::new(), phases: Vec::new() }
        }

        /// A millisecond in which the path delivers what it can, and loses so many packets.
        fn step(&mut self, lost: u64) {
            self.ms += 1;
            let total = self.delivered.last().copied().unwrap_or(0) + RATE_MS;
            self.delivered.push(total);
            let rtt_ms = 20 + self.queue_ms;
            let before = self.delivered[self.delivered.len().saturating_sub(rtt_ms as usize)];
            let mut rtt = Rtt::new(Duration::from_millis(20));
            rtt.update(Duration::from_millis(rtt_ms), Duration::ZERO);
            let now = Time::from_nanos(self.ms * 1_000_000);
            if lost > 0 {
                let (bytes, sent_at) = (lost * MTU, now);
                self.bbr.on_loss(&LossInfo {
                    now,
                    bytes,
                    packets: lost,
                    sent_at,
                    first: 0,
                    last: lost,
                    persistent: false,
                });
            }
            // The start and a probe put a quarter more in flight than the path holds.
            let probes = matches!(self.bbr.phase, Phase::Startup | Phase::Up);
            let in_flight = if probes { PIPE * 5 / 4 } else { PIPE * 9 / 10 };
            self.bbr.on_ack(&AckInfo {
                now,
                bytes: RATE_MS,
                sent_at: now,
                rtt,
                in_flight_before: in_flight,
                in_flight,
                app_limited: false,
                delivery: Some(Delivery {
                    rate: RATE_MS * 1000,
                    app_limited: false,
                    before,
                    total,
                    lost: 0,
                    in_flight,
                }),
                arrival_rate: 0,
                capacity: 0,
            });
            if self.phases.last() != Some(&self.bbr.state()) {
                self.phases.push(self.bbr.state());
            }
        }

        fn run_ms(&mut self, ms: u64) {
            (0..ms).for_each(|_| self.step(0));
        }

        /// Runs into the cruise that follows.
        fn cruising() -> Self {
            let mut trace = Trace::new();
            trace.run_ms(500);
            assert_eq!(trace.bbr.phase, Phase::Cruise);
            trace
        }

        fn pace(&self) -> u64 {
            self.bbr.pacing_rate(Duration::from_millis(20)).unwrap()
        }
    }

    #[test]
    fn a_clean_path_is_found_and_probed_every_62_round_trips() {
        let mut trace = Trace::new();
        trace.run_ms(10);
        assert_eq!(trace.pace(), (2.77 * 0.99 * 1e7) as u64, "the gain of the start");
        trace.run_ms(1990);
        let begin = ["startup", "drain", "probe down", "cruise"];
        let cycle = ["refill", "probe up", "probe down", "cruise"];
        assert_eq!(trace.phases, [begin, cycle].concat());
        assert_eq!(trace.pace(), (0.99 * 1e7) as u64, "a hundredth less than the path");
        let slack = trace.bbr.window - 2 * PIPE;
        assert!(
            slack <= 3 * 65_536,
            "twice the path, and room for {slack} bytes that are acknowledged together"
        );
    }

    #[test]
    fn random_loss_changes_nothing() {
        let mut trace = Trace::cruising();
        let (pace, window) = (trace.pace(), trace.bbr.window);
        // A packet of each 66, which is less than the ceiling.
        (0..400).for_each(|ms| trace.step(u64::from(ms % 6 == 0)));
        assert_eq!((trace.pace(), trace.bbr.window), (pace, window));
        assert_eq!(trace.bbr.phase, Phase::Cruise);
    }

    #[test]
    fn more_loss_than_chance_makes_leaves_less_in_flight() {
        let mut trace = Trace::cruising();
        let (pace, window) = (trace.pace(), trace.bbr.window);
        // A tenth for a round.
        (0..20).for_each(|_| trace.step(1));
        trace.run_ms(25);
        assert_eq!(trace.pace(), pace);
        assert_eq!(trace.bbr.window, (window as f64 * BETA) as u64);
    }

    #[test]
    fn a_loss_behind_a_queue_that_stands_costs_what_a_probe_wins() {
        let mut trace = Trace::cruising();
        let pace = trace.pace();
        trace.queue_ms = 10;
        trace.run_ms(100);
        assert_eq!(trace.pace(), pace, "a queue alone is none of its business");
        trace.step(1);
        trace.run_ms(60);
        let less = trace.pace();
        assert!((less as f64 * UP_GAIN / pace as f64 - 1.0).abs() < 1e-6, "{less} of {pace}");
        (0..10).for_each(|_| trace.step(1));
        trace.run_ms(60);
        assert_eq!(trace.pace(), less, "once between two probes");
    }

    #[test]
    fn only_a_probe_raises_the_rate() {
        let mut trace = Trace::cruising();
        let pace = trace.pace();
        let ack = |bbr: &mut Bbr, before| {
            let now = Time::from_nanos(600_000_000);
            let mut rtt = Rtt::new(Duration::from_millis(20));
            rtt.update(Duration::from_millis(20), Duration::ZERO);
            let delivery =
                Delivery { rate: 15_000_000, app_limited: false, before, total: 0, lost: 0, in_flight: PIPE };
            bbr.on_ack(&AckInfo {
                now,
                bytes: MTU,
                sent_at: now,
                rtt,
                in_flight_before: PIPE,
                in_flight: PIPE,
                app_limited: false,
                delivery: Some(delivery),
                arrival_rate: 0,
                capacity: 0,
            });
        };
        ack(&mut trace.bbr, 0);
        assert_eq!(trace.pace(), pace, "a burst that came at once");
        trace.bbr.enter(Time::from_nanos(600_000_000), Phase::Up);
        ack(&mut trace.bbr, 0);
        assert_eq!(trace.bbr.rate(), 15_000_000);
    }
}
