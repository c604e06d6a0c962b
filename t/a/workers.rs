//! The only record of worker state.

use std::num::NonZeroUsize;

use crate::clock::Timestamp;

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
    /// Predicted to be free then.
    Busy(Timestamp),
    Lost,
}

impl Workers {
    pub(super) fn starting(count: NonZeroUsize) -> Workers {
        Workers(vec![Worker::Starting; count.get()])
    }

    pub(super) fn set_idle(&mut self, worker: WorkerId) {
        self.0[worker.0] = Worker::Idle;
    }

    pub(super) fn set_busy(&mut self, worker: WorkerId, until: Timestamp) {
        self.0[worker.0] = Worker::Busy(until);
    }

    pub(super) fn set_lost(&mut self, worker: WorkerId) {
        self.0[worker.0] = Worker::Lost;
    }

    /// The idle worker with the lowest number: under light load the same one stays warm.
    pub(super) fn idle(&self) -> Option<WorkerId> {
        self.0.iter().position(|worker| *worker == Worker::Idle).map(WorkerId)
    }

    pub(super) fn any_busy(&self) -> bool {
        self.0.iter().any(|worker| matches!(worker, Worker::Busy(_)))
    }

    /// When the first worker is predicted to be free; `None`: one is idle, or none is ready.
    pub(super) fn first_free(&self) -> Option<Timestamp> {
        let until = |worker: &Worker| match worker {
            Worker::Busy(until) => Some(*until),
            Worker::Starting | Worker::Idle | Worker::Lost => None,
        };
        if self.idle().is_some() { None } else { self.0.iter().filter_map(until).min() }
    }

    pub(super) fn all_lost(&self) -> bool {
        self.0.iter().all(|worker| *worker == Worker::Lost)
    }

    pub(super) fn counts(&self) -> WorkerCounts {
        let mut counts = WorkerCounts::default();
        for worker in &self.0 {
            match worker {
                Worker::Starting => counts.starting += 1,
                Worker::Idle | Worker::Busy(_) => counts.ready += 1,
                Worker::Lost => counts.lost += 1,
            }
        }
        counts
    }
}
