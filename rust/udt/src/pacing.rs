//! A token bucket: spreads packets over time, so that a window does not leave as one burst.

use std::time::Duration;

use crate::time::Time;

/// Bytes that may go out at once: what one system call takes, or one millisecond's worth if that is less.
const BURST_MAX: f64 = (64 << 10) as f64;
const BURST_TIME: Duration = Duration::from_millis(1);
/// Where that is passed sooner, what passes in this time: who is woken later than that loses no tokens.
const LATE: Duration = Duration::from_micros(200);

/// Bytes that may leave now, filled at a rate.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// May be below zero: a probe goes out whatever the bucket says.
    tokens: f64,
    filled: Time,
    /// Bytes a second; `None` lets all pass.
    rate: Option<f64>,
    burst: f64,
}

impl Pacer {
    pub fn new() -> Self {
        Pacer { tokens: 0.0, filled: Time::ZERO, rate: None, burst: 0.0 }
    }

    /// Sets the rate in bytes a second, for packets of `mtu` bytes.
    pub fn set_rate(&mut self, now: Time, rate: Option<u64>, mtu: u16) {
        self.fill(now);
        if self.rate.is_none() {
            self.tokens = f64::MAX;
        }
        self.rate = rate.map(|rate| rate.max(1) as f64);
        let in_time = |time: Duration| self.rate.map_or(0.0, |rate| rate * time.as_secs_f64());
        self.burst = in_time(BURST_TIME).min(BURST_MAX.max(in_time(LATE))).max(2.0 * f64::from(mtu));
        self.tokens = self.tokens.min(self.burst);
    }

    /// When the next packet may leave: not after `now` if it may leave at once.
    pub fn next(&self, now: Time) -> Time {
        match self.rate {
            Some(rate) if self.tokens_at(now) <= 0.0 => {
                let needed = (self.burst / 2.0 - self.tokens_at(now)) / rate;
                now + Duration::from_nanos((needed * 1e9).ceil() as u64)
            }
            _ => now,
        }
    }

    /// Notes bytes that left.
    pub fn on_sent(&mut self, now: Time, bytes: usize) {
        if self.rate.is_some() {
            self.fill(now);
            self.tokens -= bytes as f64;
        }
    }

    fn fill(&mut self, now: Time) {
        self.tokens = self.tokens_at(now);
        self.filled = now;
    }

    fn tokens_at(&self, now: Time) -> f64 {
        let new = self.rate.map_or(0.0, |rate| rate * now.since(self.filled).as_secs_f64());
        (self.tokens + new).min(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lets_a_seconds_bytes_pass() {
        let mut pacer = Pacer::new();
        let (mut now, mut sent) = (Time::ZERO, 0_u64);
        pacer.set_rate(now, Some(1_000_000), 1200);
        while now < Time::from_nanos(1_000_000_000) {
            let next = pacer.next(now);
            if next > now {
                now = next;
                continue;
            }
            pacer.on_sent(now, 1200);
            sent += 1200;
        }
        assert!((990_000..1_010_000).contains(&sent), "{sent}");
    }

    #[test]
    fn without_a_rate_all_pass() {
        let mut pacer = Pacer::new();
        pacer.on_sent(Time::ZERO, 1 << 30);
        assert_eq!(pacer.next(Time::ZERO), Time::ZERO);
    }
}
