//! What a run came to.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::cpu::Spent;
use crate::measure::Tally;

/// Points of the curve for each halving of what lies above: enough to draw.
const POINTS_PER_HALVING: u32 = 5;

/// How long requests took, in nanoseconds. At a rate, since they were due.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// The quickest.
    pub min: u64,
    /// Their mean.
    pub mean: f64,
    /// Half were as quick.
    pub p50: u64,
    /// 90% were.
    pub p90: u64,
    /// 99% were.
    pub p99: u64,
    /// 99.9% were.
    pub p999: u64,
    /// 99.99% were.
    pub p9999: u64,
    /// All were.
    pub max: u64,
}

impl Latency {
    fn of(latencies: &Histogram<u64>) -> Self {
        let at = |percent| latencies.value_at_percentile(percent).min(latencies.max());
        Latency {
            min: latencies.min(),
            mean: latencies.mean(),
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p999: at(99.9),
            p9999: at(99.99),
            max: latencies.max(),
        }
    }
}

/// So many percent of the requests took no longer than this.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// 0 to 100.
    pub percent: f64,
    /// Nanoseconds.
    pub ns: u64,
}

/// The figures of a run. They count from the end of the warm-up.
#[derive(Clone, Debug)]
pub struct Report {
    /// Requests that were answered, in whatever way.
    pub requests: u64,
    /// How long was measured.
    pub seconds: f64,
    /// Requests answered a second.
    pub rate: f64,
    /// How long they took.
    pub latency: Latency,
    /// The same as a curve to draw, ascending, to 100%. Empty if nothing was answered.
    pub points: Vec<Point>,
    /// Reads that found nothing.
    pub misses: u64,
    /// Values of the wrong length or of another key.
    pub bad: u64,
    /// Requests that the server refused.
    pub errors: u64,
    /// What it said, the first time.
    pub first_error: Option<String>,
    /// At a rate: requests that were due and had no answer at the end. They count in the latencies, with how
    /// long they had waited by then.
    pub unanswered: u64,
    /// CPU time of the server's processes for each request, in microseconds; `None` if they are not known.
    pub server_us_per_request: Option<f64>,
    /// CPUs that the server kept busy; `None` if its processes are not known.
    pub server_cpu: Option<f64>,
    /// CPUs that this side kept busy. Near 1 the rate is this side's limit, not the server's.
    pub client_cpu: f64,
    /// CPUs that others on the machine kept busy; above 0.15 the figures are theirs too. `None` if the
    /// server's processes are not known.
    pub other_cpu: Option<f64>,
}

impl Report {
    pub(crate) fn new(tally: Tally, unanswered: u64, elapsed: Duration, spent: Spent) -> Self {
        let seconds = elapsed.as_secs_f64();
        let per_request = |nanoseconds: u64| nanoseconds as f64 / 1e3 / tally.answered.max(1) as f64;
        Report {
            requests: tally.answered,
            seconds,
            rate: tally.answered as f64 / seconds.max(f64::MIN_POSITIVE),
            latency: Latency::of(&tally.latencies),
            points: points(&tally.latencies),
            misses: tally.misses,
            bad: tally.bad,
            errors: tally.errors,
            first_error: tally.first_error,
            unanswered,
            server_us_per_request: spent.server_ns.map(per_request),
            server_cpu: spent.server_ns.map(|nanoseconds| nanoseconds as f64 / 1e9 / seconds),
            client_cpu: spent.client,
            other_cpu: spent.other,
        }
    }
}

fn points(latencies: &Histogram<u64>) -> Vec<Point> {
    let mut points: Vec<Point> = latencies
        .iter_quantiles(POINTS_PER_HALVING)
        .map(|step| Point {
            percent: step.quantile_iterated_to() * 100.0,
            ns: step.value_iterated_to().min(latencies.max()),
        })
        .collect();
    // The iterator may come to the end several times.
    points.dedup_by(|later, earlier| later.percent <= earlier.percent);
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(latencies: impl IntoIterator<Item = u64>) -> Report {
        let mut tally = Tally::new().unwrap();
        latencies.into_iter().for_each(|latency| tally.answered(latency, 1));
        let spent = Spent { server_ns: Some(5_000_000), client: 0.5, other: Some(0.0) };
        Report::new(tally, 0, Duration::from_millis(500), spent)
    }

    #[test]
    fn percentiles_are_within_a_thousandth() {
        let found = report((1..=10_000).map(|step| step * 1000));
        let latency = found.latency;
        let expected = [
            (latency.min, 1_000),
            (latency.p50, 5_000_000),
            (latency.p90, 9_000_000),
            (latency.p99, 9_900_000),
            (latency.p999, 9_990_000),
            (latency.p9999, 9_999_000),
            (latency.max, 10_000_000),
        ];
        for (value, exact) in expected {
            assert!(value.abs_diff(exact) <= exact / 1000, "{value} for {exact}");
        }
        assert!((latency.mean - 5_000_500.0).abs() < 5_000.0);
        assert_eq!((found.requests, found.rate), (10_000, 20_000.0));
        assert_eq!((found.server_us_per_request, found.server_cpu), (Some(0.5), Some(0.01)));
    }

    #[test]
    fn nothing_is_longer_than_the_longest() {
        let found = report([1_000_001]);
        assert!(found.points.iter().all(|point| point.ns <= found.latency.max));
        assert_eq!(found.latency.p50, found.latency.max);
    }

    #[test]
    fn the_curve_ascends_to_the_end() {
        let found = report((0..100_000).map(|step| 20_000 + step * step % 77_777));
        assert!(found.points.len() > 50);
        let ascends = |pair: &[Point]| pair[0].percent < pair[1].percent && pair[0].ns <= pair[1].ns;
        assert!(found.points.windows(2).all(ascends));
        let last = found.points.last().unwrap();
        assert_eq!((last.percent, last.ns), (100.0, found.latency.max));
    }

    #[test]
    fn nothing_answered_is_no_curve() {
        let found = report([]);
        assert_eq!((found.points.len(), found.latency), (0, Latency { ..Latency::default() }));
    }
}
