//! How far an operation has come, so that a deadline that passes is counted where it did.

use std::sync::atomic::{AtomicBool, Ordering};

use metrics::Counter;

use crate::telemetry::metrics::Metrics;

/// Of one operation.
#[derive(Default)]
pub(super) struct Progress {
    prepared: AtomicBool,
}

impl Progress {
    /// From here on its rows are in the queue, or with the engine.
    pub(super) fn prepared(&self) {
        self.prepared.store(true, Ordering::Relaxed);
    }
}

/// Operations whose deadline passed, by stage.
pub(super) struct Expirations {
    preprocess: Counter,
    queue: Counter,
    engine: Counter,
}

impl Expirations {
    pub(super) fn new(metrics: &Metrics) -> Expirations {
        Expirations {
            preprocess: metrics.expirations("preprocess"),
            queue: metrics.expirations("queue"),
            engine: metrics.expirations("engine"),
        }
    }

    /// The time for an answer is over.
    pub(super) fn timed_out(&self, progress: &Progress) {
        // What waited in the queue would have been dropped earlier.
        let stage = if progress.prepared.load(Ordering::Relaxed) { &self.engine } else { &self.preprocess };
        stage.increment(1);
    }

    /// A line or the queue dropped an input that would have been too late.
    pub(super) fn dropped(&self, progress: &Progress) {
        let stage = if progress.prepared.load(Ordering::Relaxed) { &self.queue } else { &self.preprocess };
        stage.increment(1);
    }
}
