//! What the machine is, and how much of its CPU time went where.
//!
//! Linux tells all of it; elsewhere what is missing is left out.

use std::num::NonZeroUsize;

pub(super) fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// As the CPU calls itself.
pub(super) fn cpu_model() -> Option<String> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = cpus.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// CPU seconds of everything that has run on this machine, those that a hypervisor gave to others included.
pub(super) fn busy_seconds() -> Option<f64> {
    busy(&std::fs::read_to_string("/proc/stat").ok()?)
}

/// The first line of proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal, in hundredths of a
/// second (USER_HZ, 100 on every platform that we build for).
fn busy(stat: &str) -> Option<f64> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
    let ticks: Vec<u64> = fields.map_while(|field| field.parse().ok()).take(8).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal] = *ticks.as_slice() else { return None };
    Some((user + nice + system + irq + softirq + steal) as f64 / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_is_not_busy() {
        let stat = "cpu  100 20 30 9000 800 7 3 40 55 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n";
        assert_eq!(busy(stat), Some(2.0));
        assert_eq!(busy("cpu 1 2"), None);
        assert_eq!(busy(""), None);
    }
}
