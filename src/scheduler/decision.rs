//! What the scheduler answers: what to do next, and why something is refused.

use std::time::Duration;

use super::JobId;
use super::workers::WorkerId;
use crate::modality::Modality;

/// What the shell must do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    Dispatch(Batch),
    Drop(JobId, DropReason),
}

/// Jobs that run together. Never empty.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    pub worker: WorkerId,
    /// The worker is busy: it puts the batch together meanwhile, and runs it next.
    pub staged: bool,
    pub modality: Modality,
    pub jobs: Vec<JobId>,
    pub close_reason: CloseReason,
}

/// Why a queued job will never start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Its deadline passed.
    Expired,
    /// Every worker is lost.
    NoWorker,
}

/// Why a batch stopped waiting for more jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// As many rows wait as run best together, which may be far fewer than `max_batch_size`.
    BestSize,
    /// A worker was idle, or about to be, and no delay is configured.
    Idle,
    /// A job would miss its deadline if it waited longer.
    Deadline,
    /// A job has waited for `max_queue_delay`.
    Delay,
    /// The server is shutting down.
    Drain,
}

impl CloseReason {
    pub const ALL: [CloseReason; 5] = [
        CloseReason::BestSize,
        CloseReason::Idle,
        CloseReason::Deadline,
        CloseReason::Delay,
        CloseReason::Drain,
    ];

    /// The word used as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            CloseReason::BestSize => "best_size",
            CloseReason::Idle => "idle",
            CloseReason::Deadline => "deadline",
            CloseReason::Delay => "delay",
            CloseReason::Drain => "drain",
        }
    }
}

/// Why none of the jobs submitted together was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The queue has no room for all of them; it is expected to have some after `retry_after`.
    QueueFull { retry_after: Duration },
    /// They are predicted not to be done by their deadline; with `retry_after` more time they would be.
    TooLate { retry_after: Duration },
    /// No worker is warm yet.
    Starting,
    /// `begin_drain` was called.
    Draining,
    /// Every worker is lost.
    NoWorker,
}
