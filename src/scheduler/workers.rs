//! The only record of worker state, and of which device a worker runs on.

use crate::clock::Timestamp;

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
    /// Predicted to be free then.
    Busy(Timestamp),
    Lost,
}

impl Workers {
    /// One for each of `devices`.
    pub(super) fn starting(devices: &[DeviceId]) -> Workers {
        Workers(devices.iter().map(|device| Worker { device: *device, state: State::Starting }).collect())
    }

    pub(super) fn set_idle(&mut self, worker: WorkerId) {
        self.0[worker.0].state = State::Idle;
    }

    pub(super) fn set_busy(&mut self, worker: WorkerId, until: Timestamp) {
        self.0[worker.0].state = State::Busy(until);
    }

    pub(super) fn set_lost(&mut self, worker: WorkerId) {
        self.0[worker.0].state = State::Lost;
    }

    pub(super) fn device(&self, worker: WorkerId) -> DeviceId {
        self.0[worker.0].device
    }

    /// The idle worker with the lowest number: under light load the same one stays warm.
    pub(super) fn idle(&self) -> Option<WorkerId> {
        self.0.iter().position(|worker| worker.state == State::Idle).map(WorkerId)
    }

    pub(super) fn any_busy(&self) -> bool {
        self.0.iter().any(|worker| matches!(worker.state, State::Busy(_)))
    }

    /// When the first worker is predicted to be free; `None`: one is idle, or none is ready.
    pub(super) fn first_free(&self) -> Option<Timestamp> {
        let until = |worker: &Worker| match worker.state {
            State::Busy(until) => Some(until),
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
