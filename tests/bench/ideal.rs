//! The ideal queue: one server, work-conserving, the same batch rule, no overhead.

use std::time::Duration;

use clipd::engine::synthetic::Pace;

/// When each arrival would be done, in the order of arrival: a free server takes all that waits, up to a batch.
pub(crate) fn latencies(
    arrivals: &[Duration],
    pace: Pace,
    max_batch: usize,
    delay: Duration,
) -> Vec<Duration> {
    let mut latencies = Vec::with_capacity(arrivals.len());
    let mut free = Duration::ZERO;
    while let Some(first) = arrivals.get(latencies.len()) {
        let waiting = &arrivals[latencies.len()..];
        // The batch closes when the server is free and it is full or its first row has waited long enough.
        let full = waiting.get(max_batch - 1).copied().unwrap_or(Duration::MAX);
        let start = free.max(full.min(*first + delay));
        let rows = waiting.iter().take(max_batch).take_while(|arrival| **arrival <= start).count();
        free = start + pace.per_batch + pace.per_row * rows as u32;
        latencies.extend(waiting[..rows].iter().map(|arrival| free - *arrival));
    }
    latencies
}
