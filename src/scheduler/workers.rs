//! The only record of worker state, and of which device a worker runs on.
//!
//! ```text
//! warm     starting                -> idle
//! start    idle                    -> busy
//! stage    busy                    -> busy, with a next batch
//! finish   busy                    -> idle
//!          busy, with a next batch -> idle, and that batch is started
//! abandon  busy                    -> idle
//!          busy, with a next batch -> busy
//! lose     all but lost            -> lost
//! ```
//!
//! Anything else is a bug of the scheduler or of its shell. It panics where debug assertions are on; elsewhere it
//! changes nothing, so that what is lost stays lost.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::modality::Modality;

/// Index of a worker, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WorkerId(pub usize);

/// Index of a device, from 0. A device has one worker or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub usize);

/// Number of workers by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerCounts {
    pub starting: usize,
    /// Warm: idle or busy.
    pub ready: usize,
    pub lost: usize,
}

#[derive(Debug)]
pub(super) struct Workers(Vec<Worker>);

#[derive(Clone, Copy, Debug)]
struct Worker {
    device: DeviceId,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Starting,
    Idle,
    Busy(Busy),
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Busy {
    /// Its batch is predicted to be done then.
    until: Timestamp,
    /// From then on its next batch may close; `None`: only once it is idle.
    closes: Option<Timestamp>,
    /// The batch that comes next, if that has been closed.
    staged: Option<Run>,
}

/// What a batch is predicted to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) modality: Modality,
    pub(super) time: Duration,
}

/// A worker that a batch may be closed for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    pub(super) worker: WorkerId,
    pub(super) device: DeviceId,
    /// When the batch is predicted to start.
    pub(super) start: Timestamp,
    /// It starts after the one that runs.
    pub(super) staged: bool,
}

impl Workers {
    /// One for each of `devices`.
    pub(super) fn starting(devices: &[DeviceId]) -> Workers {
        Workers(devices.iter().map(|device| Worker { device: *device, state: State::Starting }).collect())
    }

    /// The worker is warm.
    pub(super) fn warm(&mut self, worker: WorkerId) {
        match &mut self.0[worker.0].state {
            state @ State::Starting => *state = State::Idle,
            state => debug_assert!(false, "{worker:?} becomes ready, but is {state:?}"),
        }
    }

    /// The worker runs a batch. `closes`: see [`Busy`].
    pub(super) fn start(&mut self, worker: WorkerId, until: Timestamp, closes: Option<Timestamp>) {
        match &mut self.0[worker.0].state {
            state @ State::Idle => *state = State::Busy(Busy { until, closes, staged: None }),
            state => debug_assert!(false, "{worker:?} starts a batch, but is {state:?}"),
        }
    }

    /// The worker's next batch was closed.
    pub(super) fn stage(&mut self, worker: WorkerId, run: Run) {
        match &mut self.0[worker.0].state {
            State::Busy(Busy { staged: staged @ None, .. }) => *staged = Some(run),
            state => debug_assert!(false, "{worker:?} is given a next batch, but is {state:?}"),
        }
    }

    /// The worker's batch is done. The one that was staged, if there is any, has to be started.
    pub(super) fn finish(&mut self, worker: WorkerId) -> Option<Run> {
        let state = &mut self.0[worker.0].state;
        let State::Busy(Busy { staged, .. }) = *state else {
            debug_assert!(false, "{worker:?} finishes a batch, but is {state:?}");
            return None;
        };
        *state = State::Idle;
        staged
    }

    /// The batch that the worker was given last will not run.
    pub(super) fn abandon(&mut self, worker: WorkerId) {
        match &mut self.0[worker.0].state {
            State::Busy(Busy { staged: staged @ Some(_), .. }) => *staged = None,
            state @ State::Busy(_) => *state = State::Idle,
            state => debug_assert!(false, "a batch of {worker:?} is abandoned, but it is {state:?}"),
        }
    }

    pub(super) fn lose(&mut self, worker: WorkerId) {
        let state = &mut self.0[worker.0].state;
        debug_assert!(*state != State::Lost, "{worker:?} is lost once more");
        *state = State::Lost;
    }

    pub(super) fn device(&self, worker: WorkerId) -> DeviceId {
        self.0[worker.0].device
    }

    /// The idle worker with the lowest number: under light load the same one stays warm.
    pub(super) fn idle(&self) -> Option<WorkerId> {
        self.0.iter().position(|worker| worker.state == State::Idle).map(WorkerId)
    }

    /// Of the busy workers without a next batch, the one whose next batch closes first, and when that is.
    pub(super) fn first_closing(&self) -> Option<(Timestamp, Opening)> {
        let closing = |(index, worker): (usize, &Worker)| match worker.state {
            State::Busy(Busy { until, closes: Some(closes), staged: None }) => {
                let (worker, device) = (WorkerId(index), worker.device);
                Some((closes, Opening { worker, device, start: until, staged: true }))
            }
            _ => None,
        };
        self.0.iter().enumerate().filter_map(closing).min_by_key(|(closes, _)| *closes)
    }

    pub(super) fn any_busy(&self) -> bool {
        self.0.iter().any(|worker| matches!(worker.state, State::Busy(_)))
    }

    /// When the first worker is predicted to be free, what is staged included; `None`: one is idle, or none is
    /// ready.
    pub(super) fn first_free(&self) -> Option<Timestamp> {
        let until = |worker: &Worker| match worker.state {
            State::Busy(busy) => {
                Some(busy.until.saturating_add(busy.staged.map_or(Duration::ZERO, |run| run.time)))
            }
            State::Starting | State::Idle | State::Lost => None,
        };
        if self.idle().is_some() { None } else { self.0.iter().filter_map(until).min() }
    }

    pub(super) fn all_lost(&self) -> bool {
        self.0.iter().all(|worker| worker.state == State::Lost)
    }

    /// The devices of the workers that are warm, one for each of them.
    pub(super) fn ready(&self) -> impl Iterator<Item = DeviceId> {
        self.0.iter().filter(|worker| worker.is_ready()).map(|worker| worker.device)
    }

    pub(super) fn counts(&self) -> WorkerCounts {
        count(self.0.iter())
    }

    pub(super) fn counts_of(&self, device: DeviceId) -> WorkerCounts {
        count(self.0.iter().filter(|worker| worker.device == device))
    }
}

impl Worker {
    fn is_ready(&self) -> bool {
        matches!(self.state, State::Idle | State::Busy(_))
    }
}

fn count<'a>(workers: impl Iterator<Item = &'a Worker>) -> WorkerCounts {
    let mut counts = WorkerCounts::default();
    for worker in workers {
        match worker.state {
            State::Starting => counts.starting += 1,
            State::Idle | State::Busy(_) => counts.ready += 1,
            State::Lost => counts.lost += 1,
        }
    }
    counts
}
