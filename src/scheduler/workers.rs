//! The only record of worker state.

use std::num::NonZeroUsize;

/// Index of a worker, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WorkerId(pub usize);

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worker {
    Starting,
    Idle,
    Busy,
    Lost,
}

impl Workers {
    pub(super) fn starting(count: NonZeroUsize) -> Workers {
        Workers(vec![Worker::Starting; count.get()])
    }

    pub(super) fn set_idle(&mut self, worker: WorkerId) {
        self.0[worker.0] = Worker::Idle;
    }

    pub(super) fn set_busy(&mut self, worker: WorkerId) {
        self.0[worker.0] = Worker::Busy;
    }

    pub(super) fn set_lost(&mut self, worker: WorkerId) {
        self.0[worker.0] = Worker::Lost;
    }

    /// The idle worker with the lowest number: under light load the same one stays warm.
    pub(super) fn idle(&self) -> Option<WorkerId> {
        self.0.iter().position(|worker| *worker == Worker::Idle).map(WorkerId)
    }

    pub(super) fn any_busy(&self) -> bool {
        self.0.contains(&Worker::Busy)
    }

    pub(super) fn all_lost(&self) -> bool {
        self.0.iter().all(|worker| *worker == Worker::Lost)
    }

    pub(super) fn counts(&self) -> WorkerCounts {
        let count = |states: &[Worker]| self.0.iter().filter(|worker| states.contains(worker)).count();
        WorkerCounts {
            starting: count(&[Worker::Starting]),
            ready: count(&[Worker::Idle, Worker::Busy]),
            lost: count(&[Worker::Lost]),
        }
    }
}
