//! Decides which queued jobs run together, on which worker, and when.
//!
//! A pure state machine: time is an argument, decisions are returned, and so is the next wake-up.
//! It has no threads, channels, clock or logs, and never sees a payload; `batcher` is the shell around it.
//!
//! A job is one row. Requests of many rows become many jobs, so batches fill exactly and a large
//! request never blocks a small one; admission is still all or none for the jobs submitted together.
//!
//! Rows are refused that are predicted not to be done in time ([`outlook`]).
//!
//! Within a modality the earliest *effective deadline* goes first: the client's deadline, or arrival
//! plus the target of the job's class, whichever is earlier. A batch is the most urgent images, as many as
//! run best, or the most urgent text and those of like length ([`batch`]). Between modalities device
//! time is shared evenly ([`share`]), unless a deadline leaves no slack. Batches grow while all workers are busy;
//! with the default `max_queue_delay` of zero an idle worker takes what is there. Where engines have two inputs, the
//! next batch closes a little before the current one ends ([`staging`]).
//!
//! # How it is driven
//!
//! In a loop of three steps. What has happened is reported: [`submit`](Scheduler::submit),
//! [`cancel`](Scheduler::cancel), [`batch_done`](Scheduler::batch_done), [`worker_lost`](Scheduler::worker_lost) and
//! the like. Then [`poll`](Scheduler::poll) says what to do, until it returns `None`. Then there is nothing to do until
//! the next event or the [`next_wakeup`](Scheduler::next_wakeup), which is asked for anew each time. Here with a worker
//! whose first batch takes longer than predicted:
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::num::NonZeroUsize;
//! use std::time::Duration;
//!
//! use clipd::class::Class;
//! use clipd::clock::Timestamp;
//! use clipd::modality::{ByModality, Modality};
//! use clipd::scheduler::cost::{CostModel, Measurement, Sizes};
//! use clipd::scheduler::workers::{DeviceId, WorkerId};
//! use clipd::scheduler::{Action, Job, JobId, Scheduler, Settings};
//!
//! enum Event {
//!     Submitted(Job),
//!     Done(WorkerId, Measurement),
//! }
//!
//! let ms = Duration::from_millis;
//! let at = |millis| Timestamp::default().saturating_add(ms(millis));
//! let (modality, tokens, class) = (Modality::Image, 0, Class::Interactive);
//! let ran = |rows, millis| Measurement { modality, rows, tokens, elapsed: ms(millis) };
//! let submitted = |id, deadline| Event::Submitted(Job { id: JobId(id), modality, tokens, class, deadline });
//!
//! let mut scheduler = Scheduler::new(
//!     Settings {
//!         max_batch_size: ByModality::both(NonZeroUsize::new(4).unwrap()),
//!         max_batch_tokens: NonZeroUsize::MAX,
//!         max_queue_delay: Duration::ZERO,
//!         max_queue_size: 100,
//!         interactive_target: ms(500),
//!         bulk_target: ms(5_000),
//!     },
//!     &[DeviceId(0)],
//! );
//! // The only worker has measured one image and four, and is ready.
//! scheduler.set_cost(DeviceId(0), CostModel::new(Sizes::Any, &[ran(1, 10), ran(4, 25)]));
//! scheduler.worker_idle(WorkerId(0));
//!
//! let mut events = BTreeMap::from([
//!     (at(0), submitted(1, at(1_000))),
//!     (at(2), submitted(2, at(1_000))),
//!     (at(3), submitted(3, at(38))),
//!     (at(4), submitted(4, at(1_000))),
//! ]);
//! let (mut now, mut done) = (at(0), Vec::new());
//! loop {
//!     // What has happened; all of it before anything is decided, so that rows that came together run together.
//!     while let Some(event) = events.first_entry() && *event.key() <= now {
//!         match event.remove() {
//!             Event::Submitted(job) => scheduler.submit(now, &[job]).unwrap(),
//!             Event::Done(worker, batch) => {
//!                 scheduler.observe(DeviceId(0), &batch);
//!                 scheduler.batch_done(now, worker);
//!             }
//!         }
//!     }
//!     // What to do.
//!     while let Some(action) = scheduler.poll(now) {
//!         done.push(match action {
//!             Action::Dispatch(batch) => {
//!                 let end = Event::Done(batch.worker, ran(batch.jobs.len(), 30));
//!                 events.insert(now.saturating_add(ms(30)), end);
//!                 (now, "run", batch.jobs)
//!             }
//!             Action::Drop(job, _) => (now, "expired", vec![job]),
//!         });
//!     }
//!     // Nothing until then.
//!     let event = events.first_key_value().map(|(at, _)| *at);
//!     let Some(next) = event.into_iter().chain(scheduler.next_wakeup()).min() else { break };
//!     now = next;
//! }
//! assert_eq!(
//!     done,
//!     [
//!         (at(0), "run", vec![JobId(1)]),
//!         // The worker is still busy, and no batch takes less than 9 ms.
//!         (at(29), "expired", vec![JobId(3)]),
//!         (at(30), "run", vec![JobId(2), JobId(4)]),
//!     ]
//! );
//! assert!(scheduler.is_quiet());
//! ```
//!
//! What comes in an order that cannot be, as a batch that is done twice, is a bug of the caller, and debug assertions
//! say so ([`workers`] has the table).

mod batch;
pub mod cost;
mod decision;
mod devices;
pub mod outlook;
pub mod preparation;
mod queue;
mod share;
mod staging;
#[cfg(test)]
mod tests;
pub mod workers;

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::class::Class;
use crate::clock::Timestamp;
use crate::modality::{ByModality, Modality};
use batch::Bounds;
use cost::{CostModel, Measurement};
pub use decision::{Action, Batch, CloseReason, DropReason, Rejection};
use devices::Devices;
use outlook::{Outlook, arrivals};
use queue::Queue;
use share::Share;
use workers::{DeviceId, Opening, Run, WorkerCounts, WorkerId, Workers};

/// Unique among the jobs of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// One row that waits for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    pub id: JobId,
    pub modality: Modality,
    /// Length of a text row; 0 for an image.
    pub tokens: u32,
    pub class: Class,
    /// The job is dropped once it cannot be done by then, and never starts later.
    pub deadline: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Most rows of a batch.
    pub max_batch_size: ByModality<NonZeroUsize>,
    /// Most tokens of a batch of texts, padding included; a single text may have more.
    pub max_batch_tokens: NonZeroUsize,
    /// Longest time a job waits for company while a worker is idle.
    pub max_queue_delay: Duration,
    /// Most waiting rows per modality.
    pub max_queue_size: usize,
    /// An interactive job counts as due this long after its arrival.
    pub interactive_target: Duration,
    /// A bulk job counts as due this long after its arrival.
    pub bulk_target: Duration,
}

impl Settings {
    /// A batch that runs longer holds up what arrives meanwhile for too long.
    fn longest_run(&self) -> Duration {
        self.interactive_target
    }
}

/// A run is done within this many times its prediction, but for rare exceptions: the latest safe start allows it.
const LIKELY: f64 = 1.1;

/// No run is done within less than this share of its prediction: a job is not given up before.
const SURELY: f64 = 0.9;

/// A worker for a modality.
struct Offer {
    opening: Opening,
    modality: Modality,
    close_reason: CloseReason,
}

#[derive(Debug)]
pub struct Scheduler {
    settings: Settings,
    devices: Devices,
    /// Indexed by `Modality::index`.
    queues: [Queue; 2],
    share: Share,
    workers: Workers,
    draining: bool,
}

impl Scheduler {
    /// One worker for each of `devices`, which are numbered from 0. They start cold: jobs are refused until one of
    /// them has been reported idle.
    pub fn new(settings: Settings, devices: &[DeviceId]) -> Scheduler {
        let count = devices.iter().map(|device| device.0 + 1).max().unwrap_or(0);
        Scheduler {
            devices: Devices::cold(count, &settings),
            settings,
            queues: [Queue::default(), Queue::default()],
            share: Share::default(),
            workers: Workers::starting(devices),
            draining: false,
        }
    }

    /// The cost model of a device, as measured by the warm-up of its first worker. What other workers measure there is
    /// ignored: they did so while that one may have been serving, which corrects the model better.
    pub fn set_cost(&mut self, device: DeviceId, cost: CostModel) {
        self.devices.set_cost(device, cost);
    }

    /// Corrects the cost model of a device by a batch that has run there.
    pub fn observe(&mut self, device: DeviceId, batch: &Measurement) {
        self.devices.observe(device, batch);
    }

    pub fn cost(&self, device: DeviceId) -> &CostModel {
        self.devices.cost(device)
    }

    /// The workers of a device have a second input: their next batch is put together while one runs.
    pub fn enable_staging(&mut self, device: DeviceId) {
        self.devices.enable_staging(device);
    }

    /// How long a batch of this device took from being closed to being ready.
    pub fn observe_lead(&mut self, device: DeviceId, took: Duration) {
        self.devices.observe_lead(device, took);
    }

    /// What admission decides by.
    pub fn outlook(&self) -> Outlook {
        let closed = if self.draining {
            Some(Rejection::Draining)
        } else if self.workers.all_lost() {
            Some(Rejection::NoWorker)
        } else if self.workers.counts().ready == 0 {
            Some(Rejection::Starting)
        } else {
            None
        };
        let max_queue_size = self.settings.max_queue_size;
        Outlook::new(closed, max_queue_size, &self.queues, &self.devices, &self.workers)
    }

    /// Admits all of `jobs`, or none.
    pub fn submit(&mut self, now: Timestamp, jobs: &[Job]) -> Result<(), Rejection> {
        let outlook = self.outlook();
        if let Some(rejection) = arrivals(jobs).find_map(|arrival| outlook.refusal(now, &arrival)) {
            return Err(rejection);
        }
        debug_assert!(!self.draining, "{} jobs are admitted during the drain", jobs.len());
        if self.is_quiet() {
            self.share.level();
        }
        for modality in Modality::ALL {
            let full = self.devices.full_batch(self.devices.reference(&self.workers), modality);
            let of_modality = jobs.iter().filter(|job| job.modality == modality);
            for (index, job) in of_modality.enumerate() {
                let target = match job.class {
                    Class::Interactive => self.settings.interactive_target,
                    Class::Bulk => self.settings.bulk_target,
                };
                // A large request is due batch by batch, as it can be done, and not all at once: what comes
                // after it does not wait behind the whole of it.
                let turn = self.interval(job).saturating_mul(u32::try_from(index / full).unwrap_or(u32::MAX));
                let due = now.saturating_add(target).saturating_add(turn);
                debug_assert!(!self.is_queued(job.id), "{:?} is submitted once more", job.id);
                self.queues[modality.index()].push(now, due, *job);
            }
        }
        Ok(())
    }

    /// Forgets a queued job. A job that has been dispatched or dropped is not affected.
    pub fn cancel(&mut self, job: JobId) -> bool {
        let waiting = self.waiting();
        let cancelled = self.queues.iter_mut().any(|queue| queue.remove(job).is_some());
        debug_assert!(!self.is_queued(job), "{job:?} is cancelled, but still waits");
        debug_assert_eq!(
            self.waiting() + usize::from(cancelled),
            waiting,
            "jobs waited before {job:?} was cancelled"
        );
        cancelled
    }

    /// The worker, which was starting, is warm and has nothing to run.
    pub fn worker_idle(&mut self, worker: WorkerId) {
        self.workers.warm(worker);
    }

    /// The worker has finished its batch, and starts the staged one if there is one.
    pub fn batch_done(&mut self, now: Timestamp, worker: WorkerId) {
        if let Some(run) = self.workers.finish(worker) {
            self.start_run(worker, now, run);
        }
    }

    /// The batch dispatched to this worker last will not run, since nobody waits for it any more.
    pub fn batch_abandoned(&mut self, worker: WorkerId) {
        self.workers.abandon(worker);
    }

    /// The worker will never run a batch again.
    pub fn worker_lost(&mut self, worker: WorkerId) {
        self.workers.lose(worker);
    }

    /// Admits nothing more; what is queued runs without waiting for company. There is no way back.
    pub fn begin_drain(&mut self) {
        self.draining = true;
    }

    /// Nothing is queued and no worker is busy.
    pub fn is_quiet(&self) -> bool {
        self.queues.iter().all(Queue::is_empty) && !self.workers.any_busy()
    }

    pub fn worker_counts(&self) -> WorkerCounts {
        self.workers.counts()
    }

    pub fn worker_counts_of(&self, device: DeviceId) -> WorkerCounts {
        self.workers.counts_of(device)
    }

    /// Waiting rows.
    pub fn queued(&self, modality: Modality) -> usize {
        self.queues[modality.index()].len()
    }

    /// Waiting rows of both modalities.
    fn waiting(&self) -> usize {
        self.queues.iter().map(Queue::len).sum()
    }

    fn is_queued(&self, job: JobId) -> bool {
        self.queues.iter().any(|queue| queue.contains(job))
    }

    /// The next thing to do at `now`, or `None` until the next event or wake-up.
    pub fn poll(&mut self, now: Timestamp) -> Option<Action> {
        let all_lost = self.workers.all_lost();
        for modality in Modality::ALL {
            let start_by = now.saturating_add(self.shortest_run(modality));
            let queue = &mut self.queues[modality.index()];
            if let Some(job) = queue.pop_expired(start_by) {
                return Some(Action::Drop(job, DropReason::Expired));
            }
            if all_lost && let Some(job) = queue.pop() {
                return Some(Action::Drop(job.id, DropReason::NoWorker));
            }
        }
        let opening = staging::opening(&self.workers, now)?;
        let (modality, close_reason) = self.choose(&opening)?;
        for other in Modality::ALL {
            if self.close_reason(other, &opening).is_none() {
                self.share.catch_up(other, modality);
            }
        }
        Some(Action::Dispatch(self.close(now, Offer { opening, modality, close_reason })))
    }

    /// When `poll` may have something new to say though no event arrives.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        let idle = self.workers.idle().map(|worker| self.workers.device(worker));
        let expires = Modality::ALL.into_iter().filter_map(|modality| {
            let deadline = self.queues[modality.index()].first_deadline()?;
            Some(deadline.saturating_sub(self.shortest_run(modality)))
        });
        let closes = |device| Modality::ALL.map(|modality| self.closes_at(modality, device));
        let closes = idle.map(closes).into_iter().flatten().flatten();
        expires.chain(closes).chain(self.staging_closes()).min()
    }

    /// When the next batch of a busy worker closes, if there is something to close and no worker is idle.
    fn staging_closes(&self) -> Option<Timestamp> {
        let (closes, opening) = self.workers.first_closing().filter(|_| self.workers.idle().is_none())?;
        self.choose(&opening).map(|_| closes)
    }

    fn shortest_run(&self, modality: Modality) -> Duration {
        self.devices.shortest_run(&self.workers, modality)
    }

    /// The modality to serve next, if any may be closed: one whose slack is used up goes first,
    /// otherwise the one that is behind in device time.
    fn choose(&self, opening: &Opening) -> Option<(Modality, CloseReason)> {
        Modality::ALL
            .into_iter()
            .filter_map(|modality| Some((modality, self.close_reason(modality, opening)?)))
            .min_by_key(|(modality, _)| {
                let hopeless = self.hopeless(*modality, opening);
                let latest = self.latest_start(*modality, opening.device, hopeless);
                let urgent = latest.is_some_and(|latest| latest <= opening.start);
                (!urgent, self.share.start(*modality))
            })
    }

    /// Why the head of this queue may be dispatched; `None` if it should wait for company.
    fn close_reason(&self, modality: Modality, opening: &Opening) -> Option<CloseReason> {
        let queue = &self.queues[modality.index()];
        let hopeless = self.hopeless(modality, opening);
        let (arrival, live) = (queue.first_arrival()?, queue.live(hopeless));
        if live == 0 {
            None
        } else if live >= self.devices.full_batch(opening.device, modality) {
            Some(CloseReason::BestSize)
        } else if self.draining {
            Some(CloseReason::Drain)
        } else if self.settings.max_queue_delay.is_zero() {
            Some(CloseReason::Idle)
        } else if arrival.saturating_add(self.settings.max_queue_delay) <= opening.start {
            Some(CloseReason::Delay)
        } else if self.latest_start(modality, opening.device, hopeless)? <= opening.start {
            Some(CloseReason::Deadline)
        } else {
            None
        }
    }

    /// Jobs of no later deadline cannot be done in time by a batch that starts then. While a worker is idle, there
    /// are none; others stay in the queue, since a worker may be free earlier than predicted.
    fn hopeless(&self, modality: Modality, opening: &Opening) -> Timestamp {
        opening.start.saturating_add(self.shortest_run(modality))
    }

    /// When a queue that waits for company stops waiting.
    fn closes_at(&self, modality: Modality, device: DeviceId) -> Option<Timestamp> {
        let arrival = self.queues[modality.index()].first_arrival()?;
        let delayed = arrival.saturating_add(self.settings.max_queue_delay);
        Some(self.latest_start(modality, device, Timestamp::default())?.min(delayed))
    }

    /// The latest start at which the batch that could close now still meets its earliest deadline after `hopeless`.
    fn latest_start(&self, modality: Modality, device: DeviceId, hopeless: Timestamp) -> Option<Timestamp> {
        let queue = &self.queues[modality.index()];
        let rows = queue.len().min(self.devices.full_batch(device, modality));
        let run = self.cost(device).predict(modality, rows, queue.longest());
        Some(queue.first_live_deadline(hopeless)?.saturating_sub(run.mul_f64(LIKELY)))
    }

    /// Predicted time from one full batch of such jobs to the next.
    fn interval(&self, job: &Job) -> Duration {
        let (devices, workers) = (&self.devices, &self.workers);
        let reference = devices.reference(workers);
        let rows = devices.full_batch(reference, job.modality);
        let run = devices.cost(reference).predict(job.modality, rows, job.tokens);
        run.div_f64(devices.capacity(workers, job.modality, job.tokens))
    }

    /// The jobs that run together next.
    fn next_batch(&self, now: Timestamp, modality: Modality, opening: &Opening) -> Vec<Job> {
        let (queue, cost) = (&self.queues[modality.index()], self.cost(opening.device));
        let (rows, hopeless) =
            (self.devices.full_batch(opening.device, modality), self.hopeless(modality, opening));
        match modality {
            Modality::Image => batch::images(queue, hopeless, cost, rows),
            Modality::Text => {
                let (tokens, run) = (self.settings.max_batch_tokens.get(), self.settings.longest_run());
                batch::texts(queue, hopeless, cost, Bounds { rows, tokens, run }, now)
            }
        }
    }

    /// Takes the jobs of a batch off the queue.
    fn close(&mut self, now: Timestamp, offer: Offer) -> Batch {
        let Offer { opening, modality, close_reason } = offer;
        let jobs = self.next_batch(now, modality, &opening);
        debug_assert!(!jobs.is_empty(), "a batch of nothing is closed");
        let queue = &mut self.queues[modality.index()];
        let waiting = queue.len();
        for job in &jobs {
            queue.remove(job.id);
        }
        debug_assert_eq!(queue.len() + jobs.len(), waiting, "jobs waited before {} were closed", jobs.len());
        let longest = jobs.iter().map(|job| job.tokens).max().unwrap_or(0);
        let run = Run { modality, time: self.cost(opening.device).predict(modality, jobs.len(), longest) };
        self.share.charge(modality, run.time);
        let Opening { worker, staged, .. } = opening;
        debug_assert_eq!(
            staged,
            self.workers.idle().is_none(),
            "a batch is staged only where no worker is idle"
        );
        if staged {
            self.workers.stage(worker, run);
        } else {
            self.start_run(worker, now, run);
        }
        let jobs = jobs.into_iter().map(|job| job.id).collect();
        Batch { worker, staged, modality, jobs, close_reason }
    }

    fn start_run(&mut self, worker: WorkerId, now: Timestamp, run: Run) {
        let until = now.saturating_add(run.time);
        let closes = self.devices.next_closes(self.workers.device(worker), run, until);
        self.workers.start(worker, until, closes);
    }
}
