//! When requests are to be sent: a plan made before the load begins, which no answer changes.
//!
//! Pure. Times are from the start of the load and never decrease.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// What an open loop offers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Offer {
    /// Requests per second at the beginning.
    pub(super) from: f64,
    /// At the end; what is between is linear.
    pub(super) to: f64,
    pub(super) duration: Duration,
}

impl Offer {
    pub(super) fn constant(rate: f64, duration: Duration) -> Offer {
        Offer { from: rate, to: rate, duration }
    }

    /// Poisson arrivals: the number in one stretch of time says nothing of that in another. At most `limit`.
    ///
    /// Requests that come at unit rate are moved in time: the n-th comes when as many are expected,
    /// `from * t + (to - from) * t^2 / (2 * duration)`, as its sum of exponential gaps.
    pub(super) fn poisson(self, seed: u64, limit: usize) -> Vec<Duration> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let end = self.duration.as_secs_f64();
        let growth = (self.to - self.from) / (2.0 * end);
        let mut expected = 0.0;
        let mut times = Vec::new();
        while times.len() < limit {
            // 1 - u is never 0, whose logarithm is not a number.
            expected -= (1.0 - rng.random::<f64>()).ln();
            let root = (self.from * self.from + 4.0 * growth * expected).sqrt();
            let time = 2.0 * expected / (self.from + root);
            // Where the rate falls, some sums are never reached, and the root is not a number.
            if time.is_nan() || time >= end {
                break;
            }
            times.push(Duration::from_secs_f64(time));
        }
        times
    }
}

/// The times of a file: a number of seconds on each line, none less than the one before. At most `limit`;
/// blank lines and those that begin with # do not count.
pub(super) fn trace(text: &str, limit: usize) -> Result<Vec<Duration>, String> {
    let mut times: Vec<Duration> = Vec::new();
    for (line, content) in text.lines().enumerate() {
        let content = content.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if times.len() == limit {
            break;
        }
        let at = |reason| format!("line {}: {content:?} {reason}", line + 1);
        let seconds: f64 = content.parse().map_err(|_| at("is not a number of seconds"))?;
        let time = Duration::try_from_secs_f64(seconds).map_err(|_| at("is not a time from the start"))?;
        if times.last().is_some_and(|last| time < *last) {
            return Err(at("is earlier than the line before"));
        }
        times.push(time);
    }
    if times.is_empty() { Err("no request in it".to_owned()) } else { Ok(times) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const LIMIT: usize = 1_000_000;

    fn check(offer: Offer, expected: f64) -> Vec<Duration> {
        let times = offer.poisson(7, LIMIT);
        assert!(times.is_sorted() && times.last().is_none_or(|last| *last < offer.duration));
        // Five standard deviations of a Poisson count.
        let off = (times.len() as f64 - expected).abs();
        assert!(off < 5.0 * expected.sqrt(), "{} for {expected}", times.len());
        times
    }

    #[test]
    fn a_constant_rate_has_exponential_gaps() {
        let times = check(Offer::constant(200.0, MINUTE), 12_000.0);
        let gaps: Vec<f64> = times.windows(2).map(|two| (two[1] - two[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean * 200.0 - 1.0).abs() < 0.05, "{mean}");
        // 1 for an exponential distribution, 0 for even spacing.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "{variance}");
    }

    #[test]
    fn a_ramp_sends_most_at_its_high_end() {
        let later = |times: &[Duration]| times.iter().filter(|time| **time >= MINUTE / 2).count() as f64;
        let rising = check(Offer { from: 20.0, to: 180.0, duration: MINUTE }, 6000.0);
        assert!((later(&rising) / rising.len() as f64 - 0.7).abs() < 0.03);
        let falling = check(Offer { from: 200.0, to: 0.0, duration: MINUTE }, 6000.0);
        assert!((later(&falling) / falling.len() as f64 - 0.25).abs() < 0.03);
    }

    #[test]
    fn a_seed_is_a_plan_and_a_limit_is_a_limit() {
        let offer = Offer::constant(100.0, MINUTE);
        assert_eq!(offer.poisson(1, LIMIT), offer.poisson(1, LIMIT));
        assert_ne!(offer.poisson(1, LIMIT), offer.poisson(2, LIMIT));
        assert_eq!(offer.poisson(1, 10), offer.poisson(1, LIMIT)[..10]);
    }

    #[test]
    fn traces() {
        let seconds = |times: &[f64]| times.iter().copied().map(Duration::from_secs_f64).collect::<Vec<_>>();
        assert_eq!(trace("# a trace\n0\n0.5\n\n0.5\n 2e0 \n", 9), Ok(seconds(&[0.0, 0.5, 0.5, 2.0])));
        assert_eq!(trace("0\n1\n2\n", 2), Ok(seconds(&[0.0, 1.0])));
        for wrong in ["", "# nothing", "soon", "-1", "inf", "NaN", "2\n1"] {
            assert!(trace(wrong, 9).is_err(), "{wrong}");
        }
    }
}
