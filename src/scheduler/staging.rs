//! When the next batch of a busy worker closes: just in time to be put together while the current one runs.
//!
//! If it closed when the worker is free, the device would idle while the batch is handed over and put together. If it
//! closed as soon as there is anything, it would be frozen early: what arrives later and would still have fitted waits
//! for a whole run more. So it closes at the predicted end of the running batch, less the time from closing a batch
//! to having it ready (the *lead*, which is learned), and less what predictions are usually wrong by.
//!
//! This is for devices whose engines have a second input. An idle worker always goes first.

use std::time::Duration;

use super::Scheduler;
use super::workers::{DeviceId, Opening, Run};
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
    fn observe(&mut self, took: Duration) {
        self.seconds += LEARNING_RATE * (took.as_secs_f64() - self.seconds);
    }

    fn time(self) -> Duration {
        Duration::try_from_secs_f64(self.seconds).unwrap_or_default() + TIMER
    }
}

impl Scheduler {
    /// The workers of a device have a second input: their next batch is put together while one runs.
    pub fn enable_staging(&mut self, device: DeviceId) {
        self.devices[device.0].lead.get_or_insert_default();
    }

    /// How long a batch of this device took from being closed to being ready.
    pub fn observe_lead(&mut self, device: DeviceId, took: Duration) {
        if let Some(lead) = &mut self.devices[device.0].lead {
            lead.observe(took);
        }
    }

    /// The worker to close a batch for at `now`: an idle one, or the first that will be free.
    pub(super) fn opening(&self, now: Timestamp) -> Option<Opening> {
        let idle = self.workers.idle().map(|worker| {
            let device = self.workers.device(worker);
            Opening { worker, device, start: now, staged: false }
        });
        idle.or_else(|| {
            let (closes, opening) = self.workers.first_closing()?;
            (closes <= now).then(|| Opening { start: opening.start.max(now), ..opening })
        })
    }

    /// When the next batch of a busy worker closes, if there is something to close and no worker is idle.
    pub(super) fn staging_closes(&self) -> Option<Timestamp> {
        let (closes, opening) = self.workers.first_closing().filter(|_| self.workers.idle().is_none())?;
        self.choose(&opening).map(|_| closes)
    }

    /// When the next batch of a worker closes whose `run` is predicted to end at `until`.
    pub(super) fn next_closes(&self, device: DeviceId, run: Run, until: Timestamp) -> Option<Timestamp> {
        let lead = self.devices[device.0].lead?;
        let error = run.time.mul_f64(self.cost(device).error(run.modality));
        Some(until.saturating_sub(lead.time()).saturating_sub(error))
    }
}
