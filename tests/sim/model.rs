//! A second account of what waits and who works, kept from the outside by plain lists and linear scans.
//!
//! It follows the scheduler's decisions and never makes one: which of the permitted decisions is taken, it
//! leaves to the scheduler, and `checkers` decides what is permitted. It shares the cost model with the
//! scheduler, and nothing else.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use clipd::class::Class;
use clipd::clock::Timestamp;
use clipd::modality::Modality;
use clipd::scheduler::cost::CostModel;
use clipd::scheduler::workers::{WorkerCounts, WorkerId};
use clipd::scheduler::{CloseReason, Job, JobId, Settings};

use crate::service::MAX_TOKENS;

pub(crate) struct Model {
    pub(crate) settings: Settings,
    pub(crate) cost: CostModel,
    /// Derived from the cost model, as are the next: they are asked for at every step.
    best_images: usize,
    /// Indexed by `Modality::index`.
    shortest_run: [Duration; 2],
    pub(crate) workers: Vec<Worker>,
    pub(crate) draining: bool,
    /// Most urgent first; indexed by `Modality::index`.
    queues: [Vec<Waiting>; 2],
    /// Of every job that was admitted.
    fates: HashMap<JobId, Fate>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) job: Job,
    pub(crate) arrival: Timestamp,
    /// The client's deadline, or arrival plus the target of the class, whichever is earlier.
    pub(crate) effective: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Queued,
    Dispatched,
    Expired,
    NoWorker,
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Worker {
    Starting,
    Idle,
    /// With the batch of this number, predicted to be done then.
    Busy {
        number: usize,
        until: Timestamp,
    },
    Lost,
}

/// What the scheduler owes at a certain instant though nothing happens then.
#[derive(Clone, Copy)]
pub(crate) enum Duty {
    Expire(JobId),
    /// The oldest job has waited for `max_queue_delay`.
    EndDelay(Modality),
    /// A batch that starts later misses a deadline.
    StartSafely(Modality),
}

impl fmt::Display for Duty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Duty::Expire(id) => write!(f, "{id:?} expires"),
            Duty::EndDelay(modality) => write!(f, "the delay of {modality:?} ends"),
            Duty::StartSafely(modality) => write!(f, "{modality:?} has its latest safe start"),
        }
    }
}

impl Model {
    pub(crate) fn new(settings: Settings, workers: usize) -> Model {
        Model {
            best_images: settings.max_batch_size.get(),
            settings,
            cost: CostModel::default(),
            shortest_run: [Duration::ZERO; 2],
            workers: vec![Worker::Starting; workers],
            draining: false,
            queues: [Vec::new(), Vec::new()],
            fates: HashMap::new(),
        }
    }

    pub(crate) fn set_cost(&mut self, cost: CostModel) {
        self.best_images = cost.best_images(self.settings.max_batch_size.get(), self.longest_run());
        self.shortest_run = Modality::ALL.map(|modality| cost.predict(modality, 1, 1).mul_f64(0.9));
        self.cost = cost;
    }

    pub(crate) fn admit(&mut self, now: Timestamp, jobs: &[Job]) {
        let mut seen = [0; 2];
        for job in jobs {
            let target = match job.class {
                Class::Interactive => self.settings.interactive_target,
                Class::Bulk => self.settings.bulk_target,
            };
            // Due batch by batch.
            let full = self.full_batch(job.modality);
            let turn = (seen[job.modality.index()] / full) as u32;
            seen[job.modality.index()] += 1;
            let interval =
                self.cost.predict(job.modality, full, job.tokens) / self.worker_counts().ready as u32;
            let due = now.saturating_add(target).saturating_add(interval * turn);
            let effective = job.deadline.min(due);
            let queue = &mut self.queues[job.modality.index()];
            let place = queue.partition_point(|each| (each.effective, each.job.id) < (effective, job.id));
            queue.insert(place, Waiting { job: *job, arrival: now, effective });
            self.fates.insert(job.id, Fate::Queued);
        }
    }

    /// A queued job leaves its queue.
    pub(crate) fn settle(&mut self, id: JobId, fate: Fate) -> Option<Waiting> {
        let known = self.fates.get_mut(&id).filter(|known| **known == Fate::Queued)?;
        *known = fate;
        let queue = self.queues.iter_mut().find(|queue| queue.iter().any(|each| each.job.id == id))?;
        let place = queue.iter().position(|each| each.job.id == id)?;
        Some(queue.remove(place))
    }

    pub(crate) fn fate(&self, id: JobId) -> Option<Fate> {
        self.fates.get(&id).copied()
    }

    /// Some job of that fate, the `rank`-th by id, counted round and round.
    pub(crate) fn some_job(&self, fate: Fate, rank: usize) -> Option<JobId> {
        let mut ids: Vec<JobId> =
            self.fates.iter().filter(|(_, each)| **each == fate).map(|(id, _)| *id).collect();
        ids.sort();
        ids.get(rank.checked_rem(ids.len())?).copied()
    }

    pub(crate) fn queue(&self, modality: Modality) -> &[Waiting] {
        &self.queues[modality.index()]
    }

    pub(crate) fn all_waiting(&self) -> impl Iterator<Item = &Waiting> {
        self.queues.iter().flatten()
    }

    pub(crate) fn worker(&self, worker: WorkerId) -> Option<Worker> {
        self.workers.get(worker.0).copied()
    }

    pub(crate) fn any_idle(&self) -> bool {
        self.workers.contains(&Worker::Idle)
    }

    pub(crate) fn all_lost(&self) -> bool {
        self.workers.iter().all(|worker| *worker == Worker::Lost)
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.all_waiting().next().is_none()
            && !self.workers.iter().any(|worker| matches!(worker, Worker::Busy { .. }))
    }

    pub(crate) fn worker_counts(&self) -> WorkerCounts {
        let mut counts = WorkerCounts::default();
        for worker in &self.workers {
            match worker {
                Worker::Starting => counts.starting += 1,
                Worker::Idle | Worker::Busy { .. } => counts.ready += 1,
                Worker::Lost => counts.lost += 1,
            }
        }
        counts
    }

    /// Everything that would justify closing a batch of `modality` at `now`; nothing if it has to wait.
    pub(crate) fn reasons_to_close(&self, modality: Modality, now: Timestamp) -> Vec<CloseReason> {
        let queue = self.queue(modality);
        let Some(company) = self.company_until(modality) else { return Vec::new() };
        [
            (CloseReason::Full, queue.len() >= self.full_batch(modality)),
            (CloseReason::Drain, self.draining),
            (CloseReason::Idle, self.settings.max_queue_delay.is_zero()),
            (CloseReason::Delay, company <= now),
            (CloseReason::Deadline, self.is_urgent(modality, now)),
        ]
        .into_iter()
        .filter_map(|(reason, holds)| holds.then_some(reason))
        .collect()
    }

    pub(crate) fn is_ready(&self, modality: Modality, now: Timestamp) -> bool {
        !self.reasons_to_close(modality, now).is_empty()
    }

    /// A job of the modality would miss its deadline if its batch started later than `now`.
    pub(crate) fn is_urgent(&self, modality: Modality, now: Timestamp) -> bool {
        self.latest_start(modality).is_some_and(|start| start <= now)
    }

    /// The next instant at which the scheduler owes a decision though nothing happens.
    pub(crate) fn next_duty(&self) -> Option<(Timestamp, Duty)> {
        let expiries =
            self.all_waiting().map(|each| (self.hopeless_at(&each.job), Duty::Expire(each.job.id)));
        let idle = self.any_idle();
        let closings = Modality::ALL.into_iter().filter(|_| idle).flat_map(|modality| {
            [
                self.company_until(modality).map(|at| (at, Duty::EndDelay(modality))),
                self.latest_start(modality).map(|at| (at, Duty::StartSafely(modality))),
            ]
        });
        expiries.chain(closings.flatten()).min_by_key(|(at, _)| *at)
    }

    /// When the job that has waited longest stops waiting for company.
    fn company_until(&self, modality: Modality) -> Option<Timestamp> {
        let first = self.queue(modality).iter().map(|each| each.arrival).min()?;
        Some(first.saturating_add(self.settings.max_queue_delay))
    }

    /// The start at which the next batch, were it as long as the longest row, ends with the earliest deadline.
    fn latest_start(&self, modality: Modality) -> Option<Timestamp> {
        let queue = self.queue(modality);
        let deadline = queue.iter().map(|each| each.job.deadline).min()?;
        let longest = queue.iter().map(|each| each.job.tokens).max()?;
        let rows = queue.len().min(self.full_batch(modality));
        // A tenth longer than predicted.
        Some(deadline.saturating_sub(self.cost.predict(modality, rows, longest).mul_f64(1.1)))
    }

    /// From then on the job cannot be done in time, though it ran alone and a tenth faster than predicted.
    pub(crate) fn hopeless_at(&self, job: &Job) -> Timestamp {
        job.deadline.saturating_sub(self.shortest_run[job.modality.index()])
    }

    /// Rows that make a batch worth closing. Whether the number is a good one, `checkers` decides.
    pub(crate) fn full_batch(&self, modality: Modality) -> usize {
        match modality {
            Modality::Image => self.best_images,
            Modality::Text => self.settings.max_batch_size.get(),
        }
    }

    /// Texts of the greatest length that may run together.
    pub(crate) fn longest_texts(&self) -> usize {
        let allowed = |rows: &usize| {
            *rows * MAX_TOKENS as usize <= self.settings.max_batch_tokens.get()
                && self.cost.predict(Modality::Text, *rows, MAX_TOKENS) <= self.longest_run()
        };
        (2..=self.settings.max_batch_size.get()).take_while(allowed).last().unwrap_or(1)
    }

    /// Batches of more than a row are predicted to run no longer.
    pub(crate) fn longest_run(&self) -> Duration {
        self.settings.interactive_target / 2
    }

    pub(crate) fn predict(&self, modality: Modality, jobs: &[Waiting]) -> Duration {
        let longest = jobs.iter().map(|each| each.job.tokens).max().unwrap_or(0);
        self.cost.predict(modality, jobs.len(), longest)
    }
}
