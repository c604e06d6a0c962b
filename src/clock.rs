//! The only reader of operating-system time.
//!
//! Everything else passes [`Timestamp`]s around, so the scheduler and its tests need no clock at all.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

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

    /// The instant to hand to a timer; `None` when it lies beyond what the platform can represent.
    pub fn instant(&self, timestamp: Timestamp) -> Option<Instant> {
        self.origin.checked_add(Duration::from_nanos(timestamp.0))
    }
}

/// CPU time that this process has taken, all threads.
pub fn process_cpu() -> Duration {
    cpu(ClockId::ProcessCPUTime)
}

/// CPU time that this thread has taken.
pub fn thread_cpu() -> Duration {
    cpu(ClockId::ThreadCPUTime)
}

fn cpu(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_cpu_time() {
        let (process, thread) = (process_cpu(), thread_cpu());
        let sum = (0..2_000_000_u64).fold(0, |sum: u64, each| std::hint::black_box(sum.wrapping_add(each)));
        assert!(sum > 0 && process_cpu() > process && thread_cpu() > thread);
    }
}
