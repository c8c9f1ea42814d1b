//! CUBIC (RFC 9438) with HyStart++ (RFC 9406).

use std::time::Duration;

use super::{AckInfo, Controller, LossInfo, initial_window, window_min};
use crate::config::Config;
use crate::time::Time;

/// Packets a second cubed.
const C: f64 = 0.4;
const BETA: f64 = 0.7;
/// An increase that is as fast as Reno's with this beta.
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);
/// Pacing leaves the window room to fill: faster in slow start, which doubles each round.
const PACING_SLOW_START: f64 = 2.0;
const PACING: f64 = 1.25;

/// State, in bytes where it is a window.
#[derive(Clone, Debug)]
pub(super) struct Cubic {
    window: f64,
    threshold: f64,
    /// The window before the last cut.
    w_max: f64,
    /// What Reno's window would be.
    w_est: f64,
    /// When the increase after a cut began, and how many seconds it takes to come back to `w_max`.
    epoch: Option<(Time, f64)>,
    /// Packets sent before this belong to a loss that was answered.
    recovery: Option<Time>,
    slow_start: HyStart,
    mtu: f64,
    /// What to go back to when a loss was none.
    undo: Option<Box<Cubic>>,
}

impl Cubic {
    pub fn new(config: &Config, mtu: u16) -> Self {
        Cubic {
            window: initial_window(config, mtu) as f64,
            threshold: f64::MAX,
            w_max: 0.0,
            w_est: 0.0,
            epoch: None,
            recovery: None,
            slow_start: HyStart::default(),
            mtu: f64::from(mtu),
            undo: None,
        }
    }

    fn cut(&mut self, now: Time) {
        self.undo = None;
        self.undo = Some(Box::new(self.clone()));
        // Fast convergence: a flow that lost before it came back to its window leaves room for a new one.
        self.w_max = if self.window < self.w_max { self.window * (1.0 + BETA) / 2.0 } else { self.window };
        self.window = (self.window * BETA).max(2.0 * self.mtu);
        self.threshold = self.window;
        self.epoch = None;
        self.recovery = Some(now);
    }

    fn avoid_congestion(&mut self, ack: &AckInfo) {
        let (w_max, window) = (self.w_max / self.mtu, self.window / self.mtu);
        let (start, k) = *self.epoch.get_or_insert_with(|| {
            self.w_est = self.window;
            (ack.now, ((w_max - window).max(0.0) / C).cbrt())
        });
        let elapsed = (ack.now.since(start) + ack.rtt.smoothed()).as_secs_f64();
        let target = (C * (elapsed - k).powi(3) + w_max.max(window.min(w_max))) * self.mtu;
        let target = target.clamp(self.window, 1.5 * self.window);
        let share = ack.bytes as f64 / self.window;
        let alpha = if self.w_est >= self.w_max { 1.0 } else { ALPHA };
        self.w_est += alpha * share * self.mtu;
        self.window = (self.window + (target - self.window) * share).max(self.w_est);
    }
}

impl Controller for Cubic {
    fn on_ack(&mut self, ack: &AckInfo) {
        let recovering = self.recovery.is_some_and(|start| ack.sent_at <= start);
        if recovering || ack.app_limited {
            if ack.app_limited {
                // Time without data is no time to grow in.
                self.epoch = None;
                self.w_max = self.w_max.max(self.window);
            }
            return;
        }
        if self.window < self.threshold {
            let growth = self.slow_start.growth(ack);
            self.window += ack.bytes as f64 * growth;
            if self.slow_start.is_over() {
                self.threshold = self.window;
                self.w_max = self.window;
            }
        } else {
            self.avoid_congestion(ack);
        }
    }

    fn on_loss(&mut self, loss: &LossInfo) {
        if self.recovery.is_none_or(|start| loss.sent_at > start) {
            self.cut(loss.now);
        }
        if loss.persistent {
            self.window = 2.0 * self.mtu;
            self.undo = None;
        }
    }

    fn on_ecn(&mut self, now: Time, sent_at: Time) {
        if self.recovery.is_none_or(|start| sent_at > start) {
            self.cut(now);
            self.undo = None;
        }
    }

    fn on_spurious_loss(&mut self) {
        if let Some(before) = self.undo.take() {
            let window = self.window.max(before.window);
            *self = Cubic { window, ..*before };
        }
    }

    fn set_mtu(&mut self, mtu: u16) {
        self.mtu = f64::from(mtu);
        self.window = self.window.max(window_min(mtu) as f64);
    }

    fn window(&self) -> u64 {
        self.window as u64
    }

    fn pacing_rate(&self, rtt: Duration) -> Option<u64> {
        let gain = if self.window < self.threshold { PACING_SLOW_START } else { PACING };
        Some((gain * self.window / rtt.as_secs_f64().max(1e-6)) as u64)
    }

    fn state(&self) -> &'static str {
        if self.window < self.threshold { "slow start" } else { "congestion avoidance" }
    }
}

/// Ends slow start when the round-trip time grows, before packets are lost (RFC 9406).
#[derive(Clone, Debug, Default)]
struct HyStart {
    /// Packets sent from here on are of the next round.
    round_end: Time,
    round_started: bool,
    samples: u32,
    round_min: Option<Duration>,
    last_min: Option<Duration>,
    /// In conservative slow start: what the round-trip time was, and rounds so far.
    conservative: Option<(Duration, u32)>,
}

/// Samples in a round before it tells anything.
const SAMPLES_MIN: u32 = 8;
const THRESHOLD_MIN: Duration = Duration::from_millis(4);
const THRESHOLD_MAX: Duration = Duration::from_millis(16);
/// Conservative slow start grows a quarter as fast.
const CONSERVATIVE_GROWTH: f64 = 0.25;
const CONSERVATIVE_ROUNDS: u32 = 5;

impl HyStart {
    /// By how much of the acknowledged bytes the window grows.
    fn growth(&mut self, ack: &AckInfo) -> f64 {
        if !self.round_started || ack.sent_at >= self.round_end {
            self.round_started = true;
            self.round_end = ack.now;
            self.last_min = self.round_min.take();
            self.samples = 0;
            if let Some((_, rounds)) = &mut self.conservative {
                *rounds += 1;
            }
        }
        let sample = ack.rtt.latest();
        let min = *self.round_min.insert(self.round_min.map_or(sample, |min| min.min(sample)));
        self.samples += 1;
        if self.samples >= SAMPLES_MIN {
            match (self.conservative, self.last_min) {
                (Some((baseline, _)), _) if min < baseline => self.conservative = None,
                (None, Some(last)) if min >= last + (last / 8).clamp(THRESHOLD_MIN, THRESHOLD_MAX) => {
                    self.conservative = Some((min, 0));
                }
                _ => {}
            }
        }
        if self.conservative.is_some() { CONSERVATIVE_GROWTH } else { 1.0 }
    }

    fn is_over(&self) -> bool {
        self.conservative.is_some_and(|(_, rounds)| rounds >= CONSERVATIVE_ROUNDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtt::Rtt;

    const MTU: u64 = 1000;

    fn at(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    fn ack(cubic: &mut Cubic, ms: u64, bytes: u64, rtt_ms: u64) {
        let mut rtt = Rtt::new(Duration::from_millis(100));
        rtt.update(Duration::from_millis(rtt_ms), Duration::ZERO);
        cubic.on_ack(&AckInfo {
            now: at(ms),
            bytes,
            sent_at: at(ms.saturating_sub(rtt_ms)),
            rtt,
            in_flight_before: bytes,
            in_flight: bytes,
            app_limited: false,
            delivery: None,
            arrival_rate: 0,
            capacity: 0,
        });
    }

    fn lose(cubic: &mut Cubic, ms: u64, sent_ms: u64, persistent: bool) {
        let sent_at = at(sent_ms);
        cubic.on_loss(&LossInfo {
            now: at(ms),
            bytes: MTU,
            packets: 1,
            sent_at,
            first: 0,
            last: 0,
            persistent,
        });
    }

    /// With 2000 packets in flight, of which a loss left 1400: the windows of RFC 9438, which grow to 2000 in
    /// the cube root of 600 / 0.4 seconds, 11.447, and as they came on beyond.
    fn after_a_loss() -> Cubic {
        let config = Config { initial_packets: 1000, ..Config::default() };
        let mut cubic = Cubic::new(&config, MTU as u16);
        ack(&mut cubic, 100, 1_000_000, 100);
        assert_eq!(cubic.window(), 2_000_000, "slow start doubles");
        lose(&mut cubic, 200, 150, false);
        assert_eq!((cubic.window(), cubic.state()), (1_400_000, "congestion avoidance"));
        cubic
    }

    #[test]
    fn a_trace_gives_the_windows_of_the_rfc() {
        let mut cubic = after_a_loss();
        // The first round after the loss begins at 400 ms; its target is that of a round-trip time later.
        let expected = [(400, 1415.6), (5_700, 1911.5), (11_700, 2000.0), (16_700, 2048.6), (21_700, 2394.4)];
        let mut ms = 400;
        for (time, packets) in expected {
            while ms <= time {
                let window = cubic.window();
                ack(&mut cubic, ms, window, 100);
                ms += 100;
            }
            let window = cubic.window() as f64 / 1000.0;
            assert!((window - packets).abs() < 0.5, "{window} packets after {time} ms, not {packets}");
        }
    }

    #[test]
    fn one_loss_in_a_round_trip_cuts_once_and_a_false_one_is_undone() {
        let mut cubic = after_a_loss();
        lose(&mut cubic, 210, 199, false);
        assert_eq!(cubic.window(), 1_400_000, "sent before the first was known");
        ack(&mut cubic, 250, 10_000, 100);
        assert_eq!(cubic.window(), 1_400_000, "no growth on what was sent before");
        let mut undone = cubic.clone();
        undone.on_spurious_loss();
        assert_eq!((undone.window(), undone.state()), (2_000_000, "slow start"));
        lose(&mut cubic, 320, 310, false);
        assert!((cubic.window - 980_000.0).abs() < 1.0);
        assert!((cubic.w_max - 1_400_000.0 * 0.85).abs() < 1.0, "it leaves room for a new flow");
        lose(&mut cubic, 3000, 2900, true);
        assert_eq!(cubic.window(), 2 * MTU, "nothing came through for long");
    }

    #[test]
    fn a_round_trip_that_grows_ends_slow_start() {
        let config = Config { initial_packets: 100, ..Config::default() };
        let mut cubic = Cubic::new(&config, MTU as u16);
        let (mut ms, mut windows) = (100, Vec::new());
        // Ten acknowledgements a round; from the fourth round on a queue adds a fifth to the time.
        for round in 0..12 {
            let rtt_ms = if round < 3 { 100 } else { 120 };
            let bytes = cubic.window() / 10;
            for _ in 0..10 {
                ack(&mut cubic, ms, bytes, rtt_ms);
                ms += 12;
            }
            windows.push(cubic.window() / MTU);
        }
        // It takes a round to see it; then there are five rounds of a quarter more, and no more of them.
        assert_eq!(windows[..4], [200, 400, 800, 1600]);
        assert!(windows[4..9].is_sorted_by(|a, b| a * 6 / 5 <= *b && b * 4 <= a * 5 + 4), "{windows:?}");
        assert!(windows[9..].iter().all(|window| window - windows[8] < 5), "{windows:?}");
        assert_eq!(cubic.state(), "congestion avoidance");
    }
}
