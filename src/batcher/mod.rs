//! The shell around the scheduler: one scheduler thread, two threads per worker, channels between them.
//!
//! It holds payloads and reply channels and does what the scheduler decides; it has no policy of its own.
//! A [`Handle`] submits rows and gets a [`Ticket`] for each, which resolves to exactly one outcome.
//! A ticket that is dropped cancels its job: queued work disappears, a batch that already runs ends normally.
//!
//! Where an engine has two inputs, a worker has a second thread, which puts the next batch together while one runs
//! ([`staging`]).
//!
//! Nothing is unbounded: commands go through a bounded channel with `try_send`, a worker has at most one
//! batch beside the one that runs, and so at most two unread reports.

mod answers;
mod lost;
mod open_engine;
mod outcome;
mod shell;
mod staging;
#[cfg(test)]
mod tests;
pub mod ticket;
mod traced;
mod warm_up;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError};
use tokio::sync::{oneshot, watch};

use crate::class::Class;
use crate::clip::row::{ImageRow, TokenRow};
use crate::clock::{Clock, Timestamp};
use crate::engine::Description;
use crate::modality::Modality;
use crate::scheduler::cost::CostModel;
use crate::scheduler::outlook::{Arrival, Outlook};
use crate::scheduler::workers::{DeviceId, WorkerCounts, WorkerId};
use crate::scheduler::{Job, JobId, Rejection, Scheduler, Settings};
use crate::telemetry::metrics::Metrics;
use crate::trace::Span;
use answers::Answer;
pub use open_engine::OpenEngine;
use outcome::Outcomes;
use ticket::Ticket;

/// Commands on their way to the scheduler thread, which empties the channel before it decides anything.
const COMMANDS: usize = 1024;

/// What the batcher needs besides its workers.
pub struct Options {
    pub settings: Settings,
    /// Lengths of token rows that the warm-up runs, rising: the points of the cost model. None: there are no texts.
    pub text_lengths: Vec<usize>,
    /// Bytes of an image row that the warm-up runs.
    pub image_row_bytes: usize,
    pub clock: Clock,
    pub metrics: Metrics,
    /// Hears of every change.
    pub workers: watch::Sender<Workers>,
}

/// One row to embed. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Row {
    Image(ImageRow),
    Text(TokenRow),
}

impl Row {
    pub fn modality(&self) -> Modality {
        match self {
            Row::Image(_) => Modality::Image,
            Row::Text(_) => Modality::Text,
        }
    }

    fn tokens(&self) -> u32 {
        match self {
            Row::Image(_) => 0,
            Row::Text(row) => u32::try_from(row.0.len()).unwrap_or(u32::MAX),
        }
    }
}

/// The result of one job.
#[derive(Debug)]
pub struct Embedded {
    /// `embed_dim` values, not normalised.
    pub values: Vec<f32>,
    /// From submission to the start of the batch.
    pub queue: Duration,
    /// The batch on the device.
    pub inference: Duration,
}

/// Why a job has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    #[error("rejected: {0:?}")]
    Rejected(Rejection),
    #[error("the deadline passed before the job started")]
    Expired,
    #[error("the worker was lost")]
    WorkerLost,
    /// The engine refused the batch; the cause.
    #[error("{0}")]
    Failed(String),
}

/// Workers by state, as last reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workers {
    pub counts: WorkerCounts,
    /// What the first worker that became ready runs, on the devices of all that are.
    pub description: Option<Description>,
    /// Why the last lost worker was lost.
    pub last_error: Option<String>,
}

impl Workers {
    /// Not before there were any.
    pub fn all_lost(&self) -> bool {
        let WorkerCounts { starting, ready, lost } = self.counts;
        lost > 0 && starting + ready == 0
    }
}

/// Submits rows. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    commands: Sender<Command>,
    shared: Arc<Shared>,
}

struct Shared {
    clock: Clock,
    next_id: AtomicU64,
    /// Written by the scheduler thread.
    outlook: watch::Sender<Outlook>,
    /// By device; written by the scheduler thread.
    costs: watch::Sender<Vec<CostModel>>,
    /// Indexed by `DeviceId`.
    devices: Vec<String>,
    outcomes: Outcomes,
    metrics: Metrics,
}

/// The threads of a running batcher.
pub struct Batcher {
    handle: Handle,
    workers: watch::Receiver<Workers>,
    threads: Vec<JoinHandle<()>>,
}

enum Command {
    Submit(Vec<Submission>),
    Cancel(JobId),
    Drain,
}

struct Submission {
    job: Job,
    payload: Payload,
}

/// What the scheduler never sees.
struct Payload {
    row: Row,
    answer: Answer,
}

impl Batcher {
    /// Starts the scheduler thread and one worker thread per entry of `engines`, and returns at once;
    /// jobs are refused as [`Rejection::Starting`] until a worker has warmed up.
    pub fn start(options: Options, engines: Vec<OpenEngine>) -> std::io::Result<Batcher> {
        let (devices, seats) = seats(&engines);
        let scheduler = Scheduler::new(options.settings.clone(), &seats);
        let (commands, inbox) = crossbeam_channel::bounded(COMMANDS);
        let shared = Arc::new(Shared {
            clock: options.clock,
            next_id: AtomicU64::new(0),
            outlook: watch::Sender::new(scheduler.outlook()),
            costs: watch::Sender::new(vec![CostModel::default(); devices.len()]),
            devices,
            outcomes: Outcomes::new(&options.metrics),
            metrics: options.metrics.clone(),
        });
        let (reports, report_inbox) = crossbeam_channel::bounded(2 * engines.len());
        let mut threads = Vec::new();
        let mut spawn = |name: String, run: Box<dyn FnOnce() + Send>| {
            threads.push(std::thread::Builder::new().name(name).spawn(run)?);
            std::io::Result::Ok(())
        };
        let mut lines = Vec::new();
        for (index, open) in engines.into_iter().enumerate() {
            // One for an idle worker, one for what comes next.
            let (work, work_inbox) = crossbeam_channel::bounded(2);
            // A batch that is being put together may already count as running when the next one comes.
            let (staging, assignments) = crossbeam_channel::bounded(2);
            let (give_back, inputs) = crossbeam_channel::bounded(2);
            let clock = options.clock;
            let stager = staging::Stager { assignments, inputs: inputs.clone(), work: work.clone(), clock };
            let worker = worker::Worker {
                id: WorkerId(index),
                shared: shared.clone(),
                warm_up: warm_up::WarmUp::new(&options),
                work: work_inbox,
                give_back,
                inputs,
                reports: reports.clone(),
            };
            lines.push(shell::Line { work, staging });
            spawn(format!("worker-{index}"), Box::new(move || worker.run(open)))?;
            spawn(format!("stager-{index}"), Box::new(move || stager.run()))?;
        }
        let workers = options.workers.subscribe();
        let shell = shell::Shell::new(scheduler, shared.clone(), seats, lines, options.workers);
        spawn("scheduler".into(), Box::new(move || shell.run(&inbox, &report_inbox)))?;
        Ok(Batcher { handle: Handle { commands, shared }, workers, threads })
    }

    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    pub fn workers(&self) -> watch::Receiver<Workers> {
        self.workers.clone()
    }

    /// Refuses new jobs, runs what is queued, and joins all threads. Blocks; call it off the async runtime.
    pub fn drain(self) {
        // The scheduler thread always reads, so a blocking send cannot wait for ever;
        // it fails only when that thread is gone.
        let _ = self.handle.commands.send(Command::Drain);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a batcher thread panicked");
            }
        }
    }
}

/// The devices by name, and for each engine the number of its own.
fn seats(engines: &[OpenEngine]) -> (Vec<String>, Vec<DeviceId>) {
    let mut devices: Vec<String> = Vec::new();
    let seat = |engine: &OpenEngine| {
        let known = devices.iter().position(|device| *device == engine.device);
        DeviceId(known.unwrap_or_else(|| {
            devices.push(engine.device.clone());
            devices.len() - 1
        }))
    };
    let seats = engines.iter().map(seat).collect();
    (devices, seats)
}

impl Handle {
    /// Submits `rows` together: all are admitted, or every ticket resolves to the same rejection.
    /// A full command channel rejects at once. `span` is that of the call, if it is traced.
    pub fn submit(
        &self,
        rows: Vec<Row>,
        class: Class,
        deadline: Timestamp,
        span: Option<&Span>,
    ) -> Result<Vec<Ticket>, JobError> {
        let count = rows.len();
        let arrival = self.shared.clock.now();
        let (submissions, tickets): (Vec<_>, Vec<_>) =
            rows.into_iter().map(|row| self.prepare(row, class, deadline, arrival, span)).unzip();
        match self.commands.try_send(Command::Submit(submissions)) {
            Ok(()) => Ok(tickets),
            Err(error) => {
                // The submission comes back with the error: the tickets must not cancel what never was.
                tickets.into_iter().for_each(Ticket::forget);
                self.shared.outcomes.rejected.increment(count as u64);
                Err(JobError::Rejected(match error {
                    TrySendError::Full(_) => Rejection::QueueFull { retry_after: Duration::ZERO },
                    TrySendError::Disconnected(_) => Rejection::Draining,
                }))
            }
        }
    }

    /// Why `arrival` would be refused now. A hint, so that work that would be refused is not prepared;
    /// `submit` decides.
    pub fn refusal(&self, arrival: &Arrival) -> Option<Rejection> {
        self.shared.outlook.borrow().refusal(self.shared.clock.now(), arrival)
    }

    /// How much time `arrival` must have left not to be refused now; again a hint.
    pub fn needed(&self, arrival: &Arrival) -> Duration {
        self.shared.outlook.borrow().needed(self.shared.clock.now(), arrival)
    }

    /// What batches are predicted to take now, by device.
    pub fn costs(&self) -> Vec<(String, CostModel)> {
        self.shared.devices.iter().cloned().zip(self.shared.costs.borrow().iter().cloned()).collect()
    }

    /// Waits until `arrival` would not be refused for lack of time, or for good; again a hint.
    pub async fn time(&self, arrival: &Arrival) {
        let mut outlook = self.shared.outlook.subscribe();
        let too_late = |outlook: &Outlook| {
            let refusal = outlook.refusal(self.shared.clock.now(), arrival);
            matches!(refusal, Some(Rejection::TooLate { .. }))
        };
        // It cannot fail: the sender is ours.
        let _ = outlook.wait_for(|outlook| !too_late(outlook)).await;
    }

    /// Waits until one row more would fit the queue of `modality`; again a hint.
    pub async fn room(&self, modality: Modality) {
        let mut outlook = self.shared.outlook.subscribe();
        // It cannot fail: the sender is ours.
        let _ = outlook.wait_for(|outlook| outlook.has_room(modality, 1)).await;
    }

    fn prepare(
        &self,
        row: Row,
        class: Class,
        deadline: Timestamp,
        arrival: Timestamp,
        span: Option<&Span>,
    ) -> (Submission, Ticket) {
        let id = JobId(self.shared.next_id.fetch_add(1, Ordering::Relaxed));
        let (sender, reply) = oneshot::channel();
        let job = Job { id, modality: row.modality(), tokens: row.tokens(), class, deadline };
        let answer = Answer { arrival, deadline, span: span.cloned(), reply: sender };
        let submission = Submission { job, payload: Payload { row, answer } };
        (submission, Ticket { id, reply, cancel: Some(self.commands.clone()) })
    }
}
