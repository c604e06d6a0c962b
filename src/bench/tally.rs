//! What became of the requests of one load: counts by outcome, and latencies as percentiles.
//!
//! Pure. Every request that was sent has exactly one outcome. The times of an open loop are from when a request
//! was *meant* to be sent: a generator that is held up by the server would otherwise measure less of what the
//! server did to everyone else ("coordinated omission").

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Answered,
    /// RESOURCE_EXHAUSTED.
    Shed,
    /// DEADLINE_EXCEEDED, or the client's own timer.
    Expired,
    /// Any other status, of the call or of its one input, by the name of its code.
    Failed(&'static str),
}

#[derive(Debug)]
pub(super) struct Tally {
    slo: Duration,
    good: u64,
    shed: u64,
    expired: u64,
    failed: BTreeMap<&'static str, u64>,
    unsent: u64,
    latency: Times,
    lateness: Times,
}

/// Counts and times of a load, as they are reported.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Counts {
    /// `answered + shed + expired +` all of `failed`.
    pub(super) sent: u64,
    pub(super) answered: u64,
    /// Answered within the time of `--slo`.
    pub(super) good: u64,
    pub(super) shed: u64,
    pub(super) expired: u64,
    /// By gRPC status code.
    pub(super) failed: BTreeMap<&'static str, u64>,
    /// Not sent: as many as the generator keeps track of were without an answer.
    pub(super) unsent: u64,
    /// Of answered requests.
    #[serde(rename = "latency_ms")]
    pub(super) latency: Percentiles,
    /// From when a request was meant to be sent to when it was; none in a closed loop.
    #[serde(rename = "lateness_ms")]
    pub(super) lateness: Percentiles,
}

/// In milliseconds; null where there are too few values to tell.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Percentiles {
    pub(super) mean: Option<f64>,
    pub(super) p50: Option<f64>,
    pub(super) p90: Option<f64>,
    pub(super) p99: Option<f64>,
    #[serde(rename = "p99.9")]
    pub(super) p999: Option<f64>,
    pub(super) max: Option<f64>,
}

impl Tally {
    pub(super) fn new(slo: Duration) -> Tally {
        Tally {
            slo,
            good: 0,
            shed: 0,
            expired: 0,
            failed: BTreeMap::new(),
            unsent: 0,
            latency: Times::new(),
            lateness: Times::new(),
        }
    }

    pub(super) fn record(&mut self, outcome: Outcome, latency: Duration) {
        match outcome {
            Outcome::Answered => {
                self.latency.record(latency);
                self.good += u64::from(latency <= self.slo);
            }
            Outcome::Shed => self.shed += 1,
            Outcome::Expired => self.expired += 1,
            Outcome::Failed(code) => *self.failed.entry(code).or_default() += 1,
        }
    }

    pub(super) fn late(&mut self, lateness: Duration) {
        self.lateness.record(lateness);
    }

    pub(super) fn unsent(&mut self) {
        self.unsent += 1;
    }

    pub(super) fn counts(&self) -> Counts {
        let answered = self.latency.0.len();
        Counts {
            sent: answered + self.shed + self.expired + self.failed.values().sum::<u64>(),
            answered,
            good: self.good,
            shed: self.shed,
            expired: self.expired,
            failed: self.failed.clone(),
            unsent: self.unsent,
            latency: self.latency.percentiles(),
            lateness: self.lateness.percentiles(),
        }
    }
}

/// Values above are counted as this. No request may take longer: a deadline is at most an hour.
const LONGEST: Duration = Duration::from_secs(3600);

/// In microseconds, to a thousandth of the value.
#[derive(Debug)]
struct Times(Histogram<u64>);

impl Times {
    #[expect(clippy::expect_used, reason = "the bounds are constants")]
    fn new() -> Times {
        let bounds = Histogram::new_with_bounds(1, LONGEST.as_micros() as u64, 3);
        Times(bounds.expect("the highest value is more than twice the lowest"))
    }

    fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    fn percentiles(&self) -> Percentiles {
        let count = self.0.len();
        let millis = |micros: f64| micros / 1000.0;
        // A percentile above which less than one value is expected says nothing but the highest value.
        let quantile = |quantile: f64| {
            (count as f64 * (1.0 - quantile) >= 0.999)
                .then(|| millis(self.0.value_at_quantile(quantile) as f64))
        };
        Percentiles {
            mean: (count > 0).then(|| millis(self.0.mean())),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: (count > 0).then(|| millis(self.0.max() as f64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLO: Duration = Duration::from_millis(200);

    #[test]
    fn every_outcome_is_counted_once() {
        let mut tally = Tally::new(SLO);
        for (outcome, millis) in [
            (Outcome::Answered, 200),
            (Outcome::Answered, 201),
            (Outcome::Shed, 1),
            (Outcome::Expired, 1),
            (Outcome::Failed("INTERNAL"), 1),
            (Outcome::Failed("INTERNAL"), 1),
        ] {
            tally.record(outcome, Duration::from_millis(millis));
        }
        tally.unsent();
        let counts = tally.counts();
        assert_eq!((counts.sent, counts.answered, counts.good), (6, 2, 1));
        assert_eq!((counts.shed, counts.expired, counts.unsent), (1, 1, 1));
        assert_eq!(counts.failed, BTreeMap::from([("INTERNAL", 2)]));
        assert_eq!(counts.latency.max.map(f64::round), Some(201.0));
        assert_eq!(counts.lateness.mean, None);
    }

    #[test]
    fn percentiles_of_a_thousand() {
        let mut times = Times::new();
        (1..=1000).for_each(|millis| times.record(Duration::from_millis(millis)));
        let percentiles = times.percentiles();
        let check = |found: Option<f64>, expected: f64| {
            let found = found.unwrap();
            assert!((found / expected - 1.0).abs() < 0.002, "{found} for {expected}");
        };
        check(percentiles.mean, 500.5);
        check(percentiles.p50, 500.0);
        check(percentiles.p90, 900.0);
        check(percentiles.p99, 990.0);
        check(percentiles.p999, 999.0);
        check(percentiles.max, 1000.0);
    }

    #[test]
    fn few_values_have_no_high_percentiles() {
        let mut times = Times::new();
        assert_eq!(times.percentiles().p50, None);
        (0..10).for_each(|_| times.record(Duration::from_millis(5)));
        let percentiles = times.percentiles();
        assert!(percentiles.p50.is_some() && percentiles.p90.is_some() && percentiles.p99.is_none());
        times.record(Duration::from_secs(1_000_000));
        let max = times.percentiles().max.unwrap();
        assert!((max / 3_600_000.0 - 1.0).abs() < 0.001, "{max}");
    }
}
