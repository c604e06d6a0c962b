//! When the next batch of a busy worker closes: just in time to be put together while the current one runs.
//!
//! If it closed when the worker is free, the device would idle while the batch is handed over and put together. If it
//! closed as soon as there is anything, it would be frozen early: what arrives later and would still have fitted waits
//! for a whole run more. So it closes at the predicted end of the running batch, less the time from closing a batch
//! to having it ready (the *lead*, which is learned), and less what predictions are usually wrong by.
//!
//! This is for devices whose engines have a second input. An idle worker always goes first.

use std::time::Duration;

use super::workers::{Opening, Workers};
use crate::clock::Timestamp;

/// Share of a new observation in the lead.
const LEARNING_RATE: f64 = 0.1;

/// The shell's timer fires up to this much late: 50 us of slack in Linux's timers, and a wake-up.
const TIMER: Duration = Duration::from_micros(100);

/// How long it takes from closing a batch until it is ready to run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lead {
    seconds: f64,
}

impl Lead {
    pub(super) fn observe(&mut self, took: Duration) {
        self.seconds += LEARNING_RATE * (took.as_secs_f64() - self.seconds);
    }

    /// When the next batch closes where one is predicted to run until `until`, give or take `error`.
    pub(super) fn closes(self, until: Timestamp, error: Duration) -> Timestamp {
        until.saturating_sub(self.time()).saturating_sub(error)
    }

    fn time(self) -> Duration {
        Duration::try_from_secs_f64(self.seconds).unwrap_or_default() + TIMER
    }
}

/// The worker to close a batch for at `now`: an idle one, or the first that will be free.
pub(super) fn opening(workers: &Workers, now: Timestamp) -> Option<Opening> {
    let idle = workers.idle().map(|worker| {
        let device = workers.device(worker);
        Opening { worker, device, start: now, staged: false }
    });
    idle.or_else(|| {
        let (closes, opening) = workers.first_closing()?;
        (closes <= now).then(|| Opening { start: opening.start.max(now), ..opening })
    })
}
