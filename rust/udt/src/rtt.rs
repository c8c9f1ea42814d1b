//! The round-trip time: smoothed, its variance, its minimum (RFC 9002, section 5).

use std::time::Duration;

/// Timers are no finer than this.
pub(crate) const GRANULARITY: Duration = Duration::from_millis(1);

/// What is known of a path's round-trip time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rtt {
    latest: Duration,
    smoothed: Duration,
    variance: Duration,
    min: Duration,
    measured: bool,
}

impl Rtt {
    /// Nothing is measured; `initial` is the guess.
    pub fn new(initial: Duration) -> Self {
        Rtt { latest: initial, smoothed: initial, variance: initial / 2, min: initial, measured: false }
    }

    pub fn latest(&self) -> Duration {
        self.latest
    }

    pub fn smoothed(&self) -> Duration {
        self.smoothed
    }

    pub fn variance(&self) -> Duration {
        self.variance
    }

    pub fn min(&self) -> Duration {
        self.min
    }

    /// Takes a sample. The peer says that it waited `ack_delay` before it answered.
    pub fn update(&mut self, sample: Duration, ack_delay: Duration) {
        self.latest = sample;
        if !self.measured {
            *self =
                Rtt { latest: sample, smoothed: sample, variance: sample / 2, min: sample, measured: true };
            return;
        }
        self.min = self.min.min(sample);
        let adjusted = if sample >= self.min + ack_delay { sample - ack_delay } else { sample };
        self.variance = (self.variance * 3 + self.smoothed.abs_diff(adjusted)) / 4;
        self.smoothed = (self.smoothed * 7 + adjusted) / 8;
    }

    /// How long to wait for an acknowledgement of a single packet: no floor but the timers' granularity.
    pub fn probe_timeout(&self, ack_delay: Duration) -> Duration {
        self.smoothed + (self.variance * 4).max(GRANULARITY) + ack_delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_stays_within_what_was_measured(
            samples in prop::collection::vec((1_u64..2_000_000, 0_u64..20_000), 1..100),
        ) {
            let mut rtt = Rtt::new(Duration::from_millis(100));
            for (sample, delay) in &samples {
                rtt.update(Duration::from_micros(*sample), Duration::from_micros(*delay));
            }
            let low = Duration::from_micros(samples.iter().map(|s| s.0).min().unwrap());
            let high = Duration::from_micros(samples.iter().map(|s| s.0).max().unwrap());
            prop_assert_eq!(rtt.min(), low);
            prop_assert!(rtt.smoothed() <= high && rtt.smoothed() + GRANULARITY >= low);
            prop_assert!(rtt.probe_timeout(Duration::ZERO) >= rtt.smoothed() + GRANULARITY);
        }
    }

    #[test]
    fn the_first_sample_replaces_the_guess() {
        let mut rtt = Rtt::new(Duration::from_secs(1));
        rtt.update(Duration::from_millis(10), Duration::ZERO);
        assert_eq!((rtt.smoothed(), rtt.variance()), (Duration::from_millis(10), Duration::from_millis(5)));
    }
}
