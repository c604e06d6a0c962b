//! Counts every job exactly once: submitted = completed + expired + cancelled + rejected + failed.

use metrics::Counter;

use crate::telemetry::metrics::Metrics;

pub(super) struct Outcomes {
    pub(super) completed: Counter,
    /// The deadline passed before it started.
    pub(super) expired: Counter,
    /// Its ticket was dropped before it started.
    pub(super) cancelled: Counter,
    pub(super) rejected: Counter,
    /// The engine refused its batch, or its worker was lost.
    pub(super) failed: Counter,
}

impl Outcomes {
    pub(super) fn new(metrics: &Metrics) -> Outcomes {
        Outcomes {
            completed: metrics.jobs("completed"),
            expired: metrics.jobs("expired"),
            cancelled: metrics.jobs("cancelled"),
            rejected: metrics.jobs("rejected"),
            failed: metrics.jobs("failed"),
        }
    }
}
