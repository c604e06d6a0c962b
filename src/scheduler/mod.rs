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
//! with the default `max_queue_delay` of zero an idle worker takes what is there.
//!
//! Drive it so: call `submit`, `cancel`, `worker_idle`, `worker_lost` as events arrive, then `poll` until
//! it returns `None`, then sleep until the next event or `next_wakeup`.

mod batch;
pub mod cost;
mod decision;
mod device;
pub mod outlook;
mod queue;
mod share;
#[cfg(test)]
mod tests;
pub mod workers;

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::class::Class;
use crate::clock::Timestamp;
use crate::modality::Modality;
use cost::{CostModel, Measurement};
pub use decision::{Action, Batch, CloseReason, DropReason, Rejection};
use device::Device;
use outlook::arrivals;
use queue::Queue;
use share::Share;
use workers::{DeviceId, WorkerCounts, WorkerId, Workers};

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
    /// The job is dropped if it has not started by then.
    pub deadline: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Most rows of a batch.
    pub max_batch_size: NonZeroUsize,
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

/// A run is done within this many times its prediction, but for rare exceptions: the latest safe start allows it.
const LIKELY: f64 = 1.1;

/// No run is done within less than this share of its prediction: a job is not given up before.
const SURELY: f64 = 0.9;

/// A worker for a modality.
struct Offer {
    worker: WorkerId,
    modality: Modality,
    close_reason: CloseReason,
}

#[derive(Debug)]
pub struct Scheduler {
    settings: Settings,
    /// Indexed by [`DeviceId`].
    devices: Vec<Device>,
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
        let cold = || Device { cost: CostModel::default(), best_images: settings.max_batch_size.get() };
        Scheduler {
            devices: std::iter::repeat_with(cold).take(count).collect(),
            settings,
            queues: [Queue::default(), Queue::default()],
            share: Share::default(),
            workers: Workers::starting(devices),
            draining: false,
        }
    }

    /// Replaces the cost model of a device, as measured by a worker's warm-up.
    pub fn set_cost(&mut self, device: DeviceId, cost: CostModel) {
        self.devices[device.0].cost = cost;
        self.weigh_batch_sizes(device);
    }

    /// Corrects the cost model of a device by a batch that has run there.
    pub fn observe(&mut self, device: DeviceId, batch: &Measurement) {
        self.devices[device.0].cost.observe(batch);
        self.weigh_batch_sizes(device);
    }

    pub fn cost(&self, device: DeviceId) -> &CostModel {
        &self.devices[device.0].cost
    }

    /// Admits all of `jobs`, or none.
    pub fn submit(&mut self, now: Timestamp, jobs: &[Job]) -> Result<(), Rejection> {
        let outlook = self.outlook();
        if let Some(rejection) = arrivals(jobs).find_map(|arrival| outlook.refusal(now, &arrival)) {
            return Err(rejection);
        }
        if self.is_quiet() {
            self.share.level();
        }
        for modality in Modality::ALL {
            let full = self.full_batch(self.reference(), modality);
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
                self.queues[modality.index()].push(now, due, *job);
            }
        }
        Ok(())
    }

    /// Forgets a queued job. A job that has been dispatched or dropped is not affected.
    pub fn cancel(&mut self, job: JobId) -> bool {
        self.queues.iter_mut().any(|queue| queue.remove(job).is_some())
    }

    /// The worker is warm, or has finished its batch.
    pub fn worker_idle(&mut self, worker: WorkerId) {
        self.workers.set_idle(worker);
    }

    /// The worker will never run a batch again.
    pub fn worker_lost(&mut self, worker: WorkerId) {
        self.workers.set_lost(worker);
    }

    /// Admits nothing more; what is queued runs without waiting for company.
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
        let worker = self.workers.idle()?;
        let device = self.workers.device(worker);
        let (modality, close_reason) = self.choose(now, device)?;
        for other in Modality::ALL {
            if self.close_reason(other, now, device).is_none() {
                self.share.catch_up(other, modality);
            }
        }
        Some(Action::Dispatch(self.close(now, Offer { worker, modality, close_reason })))
    }

    /// When `poll` may have something new to say though no event arrives.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        let idle = self.workers.idle().map(|worker| self.workers.device(worker));
        Modality::ALL
            .into_iter()
            .flat_map(|modality| {
                let expires = self.queues[modality.index()].first_deadline();
                let expires = expires.map(|at| at.saturating_sub(self.shortest_run(modality)));
                [expires, idle.and_then(|device| self.closes_at(modality, device))]
            })
            .flatten()
            .min()
    }

    /// The modality to serve now, if any may be closed: one whose slack is used up goes first,
    /// otherwise the one that is behind in device time.
    fn choose(&self, now: Timestamp, device: DeviceId) -> Option<(Modality, CloseReason)> {
        Modality::ALL
            .into_iter()
            .filter_map(|modality| Some((modality, self.close_reason(modality, now, device)?)))
            .min_by_key(|(modality, _)| {
                let urgent = self.latest_start(*modality, device).is_some_and(|start| start <= now);
                (!urgent, self.share.start(*modality))
            })
    }

    /// Why the head of this queue may be dispatched at `now`; `None` if it should wait for company.
    fn close_reason(&self, modality: Modality, now: Timestamp, device: DeviceId) -> Option<CloseReason> {
        let queue = &self.queues[modality.index()];
        let arrival = queue.first_arrival()?;
        if queue.len() >= self.full_batch(device, modality) {
            Some(CloseReason::Full)
        } else if self.draining {
            Some(CloseReason::Drain)
        } else if self.settings.max_queue_delay.is_zero() {
            Some(CloseReason::Idle)
        } else if arrival.saturating_add(self.settings.max_queue_delay) <= now {
            Some(CloseReason::Delay)
        } else if self.latest_start(modality, device)? <= now {
            Some(CloseReason::Deadline)
        } else {
            None
        }
    }

    /// When a queue that waits for company stops waiting.
    fn closes_at(&self, modality: Modality, device: DeviceId) -> Option<Timestamp> {
        let arrival = self.queues[modality.index()].first_arrival()?;
        let delayed = arrival.saturating_add(self.settings.max_queue_delay);
        Some(self.latest_start(modality, device)?.min(delayed))
    }

    /// The latest start at which the batch that could close now still meets its earliest deadline.
    fn latest_start(&self, modality: Modality, device: DeviceId) -> Option<Timestamp> {
        let queue = &self.queues[modality.index()];
        let rows = queue.len().min(self.full_batch(device, modality));
        let run = self.cost(device).predict(modality, rows, queue.longest());
        Some(queue.first_deadline()?.saturating_sub(run.mul_f64(LIKELY)))
    }

    /// Predicted time from one full batch of such jobs to the next.
    fn interval(&self, job: &Job) -> Duration {
        let reference = self.reference();
        let rows = self.full_batch(reference, job.modality);
        self.cost(reference)
            .predict(job.modality, rows, job.tokens)
            .div_f64(self.capacity(job.modality, job.tokens))
    }

    /// Takes the jobs of a batch off the queue.
    fn close(&mut self, now: Timestamp, offer: Offer) -> Batch {
        let Offer { worker, modality, close_reason } = offer;
        let device = self.workers.device(worker);
        let jobs = self.next_batch(now, modality, device);
        let queue = &mut self.queues[modality.index()];
        for job in &jobs {
            queue.remove(job.id);
        }
        let longest = jobs.iter().map(|job| job.tokens).max().unwrap_or(0);
        let run = self.cost(device).predict(modality, jobs.len(), longest);
        self.share.charge(modality, run);
        self.workers.set_busy(worker, now.saturating_add(run));
        Batch { worker, modality, jobs: jobs.into_iter().map(|job| job.id).collect(), close_reason }
    }
}
