//! How long things took, as percentiles.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::error::LabError;

/// Three digits are told apart: 0.1%.
const DIGITS: u8 = 3;
/// Longer than any run.
const LONGEST_NS: u64 = 3_600_000_000_000;

/// Times as they are found.
#[derive(Debug)]
pub struct Times(Histogram<u64>);

impl Times {
    pub fn new() -> Result<Self, LabError> {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, DIGITS)
            .map_err(|error| std::io::Error::other(error.to_string()))
            .map_err(LabError::system("a histogram"))?;
        Ok(Times(histogram))
    }

    pub fn enter(&mut self, nanoseconds: u64) {
        self.0.saturating_record(nanoseconds.max(1));
    }

    pub fn append(&mut self, other: &Times) {
        // Invariant: all have the same bounds, so that nothing of one is too large for another.
        let _ = self.0.add(&other.0);
    }

    pub fn latency(&self) -> Latency {
        let us = |nanoseconds: u64| nanoseconds.min(self.0.max()) as f64 / 1e3;
        let at = |percent| us(self.0.value_at_percentile(percent));
        Latency {
            count: self.0.len(),
            min: us(self.0.min()),
            mean: self.0.mean() / 1e3,
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p999: at(99.9),
            max: us(self.0.max()),
        }
    }
}

/// Percentiles in microseconds, under the names that the load generator gives them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    pub count: u64,
    pub min: f64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    #[serde(rename = "p99.9")]
    pub p999: f64,
    pub max: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_thousandth() {
        let (mut times, mut rest) = (Times::new().unwrap(), Times::new().unwrap());
        (1..=5_000).for_each(|step| times.enter(step * 1000));
        (5_001..=10_000).for_each(|step| rest.enter(step * 1000));
        times.append(&rest);
        let found = times.latency();
        let expected = [
            (found.min, 1.0),
            (found.mean, 5_000.5),
            (found.p50, 5_000.0),
            (found.p90, 9_000.0),
            (found.p99, 9_900.0),
            (found.p999, 9_990.0),
            (found.max, 10_000.0),
        ];
        for (value, exact) in expected {
            assert!((value - exact).abs() <= exact / 1000.0, "{value} for {exact}");
        }
        assert_eq!(found.count, 10_000);
    }

    #[test]
    fn the_names_are_those_that_are_read() {
        let mut times = Times::new().unwrap();
        times.enter(1_500);
        let text = serde_json::to_string(&times.latency()).unwrap();
        let all = r#"{"count":1,"min":1.5,"mean":1.5,"p50":1.5,"p90":1.5,"p99":1.5,"p99.9":1.5,"max":1.5}"#;
        assert_eq!(text, all);
    }

    #[test]
    fn nothing_is_no_time() {
        assert_eq!(Times::new().unwrap().latency().p99, 0.0);
    }
}
