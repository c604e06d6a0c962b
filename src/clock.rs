//! The only reader of operating-system time.
//!
//! Everything else passes [`Timestamp`]s around, so the scheduler and its tests need no clock at all.

use std::time::{Duration, Instant, SystemTime};

/// Nanoseconds since the [`Clock`] was made. Monotonic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Later than every instant a process lives to see (584 years).
    pub const MAX: Timestamp = Timestamp(u64::MAX);

    pub fn from_nanos(nanos: u64) -> Timestamp {
        Timestamp(nanos)
    }

    pub fn saturating_add(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(nanos(duration)))
    }

    pub fn saturating_sub(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(nanos(duration)))
    }

    /// Time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A duration of more than 584 years saturates.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Reads the time. Copies agree with each other.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the time")]
    pub fn start() -> Clock {
        Clock { origin: Instant::now() }
    }

    pub fn now(&self) -> Timestamp {
        Timestamp(nanos(self.origin.elapsed()))
    }

    /// Seconds since 1970, for those who read calendars; it may jump.
    pub fn unix_seconds(&self) -> u64 {
        SystemTime::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_secs())
    }

    /// From 1970 to the making of this clock, as the calendar has it now.
    pub fn epoch(&self) -> Duration {
        let calendar = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        calendar.saturating_sub(self.origin.elapsed())
    }

    /// The instant to hand to a timer; `None` when it lies beyond what the platform can represent.
    pub fn instant(&self, timestamp: Timestamp) -> Option<Instant> {
        self.origin.checked_add(Duration::from_nanos(timestamp.0))
    }
}
