//! The only reader of CPU time. Apart from [`crate::clock`], which needs the standard library alone.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

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
