//! The ideal queue: one server, work-conserving, the same batch rule, no overhead.

use std::time::Duration;

use clipd::engine::synthetic::Pace;

/// How long each arrival would take, in the order of arrival: a free server takes all that waits, up to a batch.
pub(crate) fn latencies(arrivals: &[Duration], pace: Pace, max_batch: usize) -> Vec<Duration> {
    let mut latencies = Vec::with_capacity(arrivals.len());
    let mut free = Duration::ZERO;
    while let Some(first) = arrivals.get(latencies.len()) {
        let waiting = &arrivals[latencies.len()..];
        let start = free.max(*first);
        let rows = waiting.iter().take(max_batch).take_while(|arrival| **arrival <= start).count();
        free = start + pace.per_batch + pace.per_row * rows as u32;
        latencies.extend(waiting[..rows].iter().map(|arrival| free - *arrival));
    }
    latencies
}
