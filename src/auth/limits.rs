//! What a caller may take, whatever others do: calls and rows a second, calls and streams at a time.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{NotUntil, RateLimiter};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// As a file of keys has them, and --peer-limits; what is not there has no limit of its own.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub requests_per_second: Option<f64>,
    /// Calls that may come at once; what a second has, if it is not there.
    pub burst: Option<u32>,
    /// Images and texts. As many as a second has may come at once.
    pub rows_per_second: Option<f64>,
    pub concurrent_requests: Option<usize>,
    pub streams: Option<usize>,
}

impl Limits {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let rates = [self.requests_per_second, self.rows_per_second];
        if rates.into_iter().flatten().any(|rate| !(rate > 0.0 && rate <= 1e6)) {
            return Err("a limit per second must be more than zero, and at most a million");
        }
        if self.burst.is_some() && self.requests_per_second.is_none() {
            return Err("burst needs requests_per_second");
        }
        if self.burst == Some(0) || self.concurrent_requests == Some(0) || self.streams == Some(0) {
            return Err("a limit must be more than zero");
        }
        Ok(())
    }
}

/// From what is between the braces of their TOML, as in `requests_per_second = 50, streams = 4`.
impl FromStr for Limits {
    type Err = String;

    fn from_str(text: &str) -> Result<Limits, String> {
        let limits: Limits =
            toml::from_str(&text.replace(',', "\n")).map_err(|error| error.message().to_owned())?;
        limits.check()?;
        Ok(limits)
    }
}

/// As TOML.
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = [
            ("requests_per_second", self.requests_per_second.map(|rate| rate.to_string())),
            ("burst", self.burst.map(|burst| burst.to_string())),
            ("rows_per_second", self.rows_per_second.map(|rate| rate.to_string())),
            ("concurrent_requests", self.concurrent_requests.map(|count| count.to_string())),
            ("streams", self.streams.map(|count| count.to_string())),
        ];
        let written: Vec<String> =
            entries.into_iter().filter_map(|(name, value)| Some(format!("{name} = {}", value?))).collect();
        write!(f, "{{ {} }}", written.join(", "))
    }
}

/// How long until what was refused would not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    pub retry_after: Duration,
}

/// What is left of a limit on calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    pub limit: u32,
    pub remaining: u32,
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>;

/// The limits of a caller at work.
pub(super) struct Bounds {
    requests: Option<Limiter>,
    rows: Option<(Limiter, NonZeroU32)>,
    calls: Option<Arc<Semaphore>>,
    streams: Option<Arc<Semaphore>>,
}

/// Shortest hint where no clock tells when there is room.
const SOON: Duration = Duration::from_millis(100);

impl Bounds {
    pub(super) fn new(limits: &Limits) -> Bounds {
        let burst = |rate: f64, burst: Option<u32>| {
            let burst = burst.unwrap_or(rate.ceil() as u32);
            NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN)
        };
        let limiter = |rate: f64, burst: NonZeroU32| {
            let quota = governor::Quota::with_period(Duration::from_secs_f64(1.0 / rate))?;
            Some(RateLimiter::direct(quota.allow_burst(burst)).with_middleware())
        };
        let store = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Bounds {
            requests: limits.requests_per_second.and_then(|rate| limiter(rate, burst(rate, limits.burst))),
            rows: limits.rows_per_second.and_then(|rate| {
                let most = burst(rate, None);
                Some((limiter(rate, most)?, most))
            }),
            calls: limits.concurrent_requests.map(store),
            streams: limits.streams.map(store),
        }
    }

    /// Counts a call. `None`: there is no limit.
    pub(super) fn take_request(&self) -> Result<Option<Quota>, Exceeded> {
        let Some(limiter) = &self.requests else { return Ok(None) };
        match limiter.check() {
            Ok(state) => Ok(Some(Quota {
                limit: state.quota().burst_size().get(),
                remaining: state.remaining_burst_capacity(),
            })),
            Err(until) => Err(exceeded(&until)),
        }
    }

    /// Counts rows. More at once than a second has are counted as that many.
    pub(super) fn take_rows(&self, rows: usize) -> Result<(), Exceeded> {
        let Some((limiter, most)) = &self.rows else { return Ok(()) };
        let Some(rows) = NonZeroU32::new(u32::try_from(rows).unwrap_or(u32::MAX).min(most.get())) else {
            return Ok(());
        };
        match limiter.check_n(rows) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(until)) => Err(exceeded(&until)),
            Err(_) => unreachable!("it is at most what there can be"),
        }
    }

    /// A place for a call or a stream. `None`: there is no limit.
    pub(super) fn place(&self, stream: bool) -> Result<Option<OwnedSemaphorePermit>, Exceeded> {
        let Some(places) = (if stream { &self.streams } else { &self.calls }) else { return Ok(None) };
        places.clone().try_acquire_owned().map(Some).map_err(|_| Exceeded { retry_after: SOON })
    }
}

fn exceeded(until: &NotUntil<<DefaultClock as governor::clock::Clock>::Instant>) -> Exceeded {
    Exceeded { retry_after: until.wait_time_from(DefaultClock::default().now()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_the_next_is_told_when() {
        let limits = Limits { requests_per_second: Some(0.5), burst: Some(3), ..Limits::default() };
        let bounds = Bounds::new(&limits);
        let remaining: Vec<u32> = (0..3).map(|_| bounds.take_request().unwrap().unwrap().remaining).collect();
        assert_eq!(remaining, [2, 1, 0]);
        let Exceeded { retry_after } = bounds.take_request().unwrap_err();
        assert!(
            retry_after > Duration::from_secs(1) && retry_after <= Duration::from_secs(2),
            "{retry_after:?}"
        );
    }

    #[test]
    fn they_are_written_as_in_a_file_of_keys() {
        let limits: Limits = "requests_per_second = 50, burst = 100, streams = 4".parse().unwrap();
        assert_eq!(limits.to_string(), "{ requests_per_second = 50, burst = 100, streams = 4 }");
        for wrong in ["rate = 3", "streams", "streams = 0", "burst = 3", "streams = 1, streams = 2", "[a]"] {
            assert!(wrong.parse::<Limits>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn rows_and_places_are_bounded_apart() {
        let limits = Limits {
            rows_per_second: Some(10.0),
            concurrent_requests: Some(1),
            streams: Some(2),
            ..Limits::default()
        };
        let bounds = Bounds::new(&limits);
        bounds.take_rows(0).unwrap();
        bounds.take_rows(1000).unwrap();
        assert!(bounds.take_rows(5).is_err());
        let call = bounds.place(false).unwrap();
        assert!(bounds.place(false).is_err());
        let streams = [bounds.place(true).unwrap(), bounds.place(true).unwrap()];
        assert!(bounds.place(true).is_err());
        drop((call, streams));
        assert!(bounds.place(false).is_ok() && bounds.place(true).is_ok());
        assert_eq!(bounds.take_request(), Ok(None));
    }
}
