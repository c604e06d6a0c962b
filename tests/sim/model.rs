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
use clipd::scheduler::cost::{CostModel, Measurement};
use clipd::scheduler::workers::{DeviceId, WorkerCounts, WorkerId};
use clipd::scheduler::{CloseReason, Job, JobId, Settings};

use crate::service::MAX_TOKENS;

/// What a batch takes beside its run.
pub(crate) const HAND_OVER: Duration = Duration::from_micros(50);

pub(crate) struct Model {
    pub(crate) settings: Settings,
    /// Indexed by `DeviceId`.
    devices: Vec<Device>,
    /// The device of each worker.
    seats: Vec<DeviceId>,
    pub(crate) workers: Vec<Worker>,
    pub(crate) draining: bool,
    /// Most urgent first; indexed by `Modality::index`.
    queues: [Vec<Waiting>; 2],
    /// Of every job that was admitted.
    fates: HashMap<JobId, Fate>,
}

#[derive(Clone, Default)]
struct Device {
    cost: CostModel,
    /// Derived from the cost model, as are the next: they are asked for at every step.
    best_images: usize,
    /// Indexed by `Modality::index`.
    shortest_run: [Duration; 2],
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
    pub(crate) fn new(settings: Settings, seats: Vec<DeviceId>) -> Model {
        let cold = Device { best_images: settings.max_batch_size.get(), ..Device::default() };
        Model {
            settings,
            devices: vec![cold; seats.len()],
            workers: vec![Worker::Starting; seats.len()],
            seats,
            draining: false,
            queues: [Vec::new(), Vec::new()],
            fates: HashMap::new(),
        }
    }

    pub(crate) fn set_cost(&mut self, device: DeviceId, cost: CostModel) {
        self.devices[device.0] = Device {
            best_images: cost.best_images(self.settings.max_batch_size.get(), self.longest_run()),
            shortest_run: Modality::ALL.map(|modality| cost.predict(modality, 1, 1).mul_f64(0.9)),
            cost,
        };
    }

    /// Learns from its own batches what `CostModel` learns from them.
    pub(crate) fn observe(&mut self, device: DeviceId, ran: &Measurement) {
        let mut cost = self.cost(device).clone();
        cost.observe(ran);
        self.set_cost(device, cost);
    }

    pub(crate) fn cost(&self, device: DeviceId) -> &CostModel {
        &self.devices[device.0].cost
    }

    pub(crate) fn device(&self, worker: WorkerId) -> DeviceId {
        self.seats[worker.0]
    }

    /// Those of which a worker is warm, one for each such worker.
    pub(crate) fn ready_devices(&self) -> impl Iterator<Item = DeviceId> {
        let workers = self.workers.iter().zip(&self.seats);
        workers
            .filter(|(worker, _)| matches!(worker, Worker::Idle | Worker::Busy { .. }))
            .map(|(_, seat)| *seat)
    }

    /// That of the idle worker who takes what is ready.
    pub(crate) fn offered(&self) -> Option<DeviceId> {
        self.workers.iter().position(|worker| *worker == Worker::Idle).map(|worker| self.seats[worker])
    }

    pub(crate) fn admit(&mut self, now: Timestamp, jobs: &[Job]) {
        let mut seen = [0; 2];
        for job in jobs {
            let target = match job.class {
                Class::Interactive => self.settings.interactive_target,
                Class::Bulk => self.settings.bulk_target,
            };
            // Due batch by batch.
            let Some(first) = self.ready_devices().next() else { return };
            let full = self.full_batch(first, job.modality);
            let turn = (seen[job.modality.index()] / full) as u32;
            seen[job.modality.index()] += 1;
            let speed = |device: DeviceId| {
                let rows = self.full_batch(device, job.modality);
                let run = self.cost(device).predict(job.modality, rows, job.tokens);
                rows as f64 / (run + HAND_OVER).as_secs_f64()
            };
            let capacity = self.ready_devices().map(speed).sum::<f64>() / speed(first);
            let interval = self.cost(first).predict(job.modality, full, job.tokens).div_f64(capacity);
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

    /// Of every worker, warm or not.
    pub(crate) fn seats(&self) -> impl Iterator<Item = DeviceId> {
        self.seats.iter().copied()
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

    /// Everything that would justify closing a batch of `modality` at `now` for a device; nothing if it has to wait.
    pub(crate) fn reasons_to_close(
        &self,
        modality: Modality,
        now: Timestamp,
        device: DeviceId,
    ) -> Vec<CloseReason> {
        let queue = self.queue(modality);
        let Some(company) = self.company_until(modality) else { return Vec::new() };
        [
            (CloseReason::Full, queue.len() >= self.full_batch(device, modality)),
            (CloseReason::Drain, self.draining),
            (CloseReason::Idle, self.settings.max_queue_delay.is_zero()),
            (CloseReason::Delay, company <= now),
            (CloseReason::Deadline, self.is_urgent(modality, now, device)),
        ]
        .into_iter()
        .filter_map(|(reason, holds)| holds.then_some(reason))
        .collect()
    }

    pub(crate) fn is_ready(&self, modality: Modality, now: Timestamp, device: DeviceId) -> bool {
        !self.reasons_to_close(modality, now, device).is_empty()
    }

    /// A job of the modality would miss its deadline if its batch started later than `now`.
    pub(crate) fn is_urgent(&self, modality: Modality, now: Timestamp, device: DeviceId) -> bool {
        self.latest_start(modality, device).is_some_and(|start| start <= now)
    }

    /// The next instant at which the scheduler owes a decision though nothing happens.
    pub(crate) fn next_duty(&self) -> Option<(Timestamp, Duty)> {
        let expiries =
            self.all_waiting().map(|each| (self.hopeless_at(&each.job), Duty::Expire(each.job.id)));
        let closings = self.offered().into_iter().flat_map(|device| {
            Modality::ALL.into_iter().flat_map(move |modality| {
                [
                    self.company_until(modality).map(|at| (at, Duty::EndDelay(modality))),
                    self.latest_start(modality, device).map(|at| (at, Duty::StartSafely(modality))),
                ]
            })
        });
        expiries.chain(closings.flatten()).min_by_key(|(at, _)| *at)
    }

    /// When the job that has waited longest stops waiting for company.
    fn company_until(&self, modality: Modality) -> Option<Timestamp> {
        let first = self.queue(modality).iter().map(|each| each.arrival).min()?;
        Some(first.saturating_add(self.settings.max_queue_delay))
    }

    /// The start at which the next batch, were it as long as the longest row, ends with the earliest deadline.
    fn latest_start(&self, modality: Modality, device: DeviceId) -> Option<Timestamp> {
        let queue = self.queue(modality);
        let deadline = queue.iter().map(|each| each.job.deadline).min()?;
        let longest = queue.iter().map(|each| each.job.tokens).max()?;
        let rows = queue.len().min(self.full_batch(device, modality));
        // A tenth longer than predicted.
        Some(deadline.saturating_sub(self.cost(device).predict(modality, rows, longest).mul_f64(1.1)))
    }

    /// From then on the job cannot be done in time, though it ran alone and a tenth faster than predicted.
    pub(crate) fn hopeless_at(&self, job: &Job) -> Timestamp {
        let shortest = |device: DeviceId| self.devices[device.0].shortest_run[job.modality.index()];
        job.deadline.saturating_sub(self.ready_devices().map(shortest).min().unwrap_or_default())
    }

    /// Rows that make a batch worth closing. Whether the number is a good one, `checkers` decides.
    pub(crate) fn full_batch(&self, device: DeviceId, modality: Modality) -> usize {
        match modality {
            Modality::Image => self.devices[device.0].best_images,
            Modality::Text => self.settings.max_batch_size.get(),
        }
    }

    /// Texts of the greatest length that may run together.
    pub(crate) fn longest_texts(&self, device: DeviceId) -> usize {
        let allowed = |rows: &usize| {
            *rows * MAX_TOKENS as usize <= self.settings.max_batch_tokens.get()
                && self.cost(device).predict(Modality::Text, *rows, MAX_TOKENS) <= self.longest_run()
        };
        (2..=self.settings.max_batch_size.get()).take_while(allowed).last().unwrap_or(1)
    }

    /// Batches of more than a row are predicted to run no longer.
    pub(crate) fn longest_run(&self) -> Duration {
        self.settings.interactive_target / 2
    }

    pub(crate) fn predict(&self, device: DeviceId, modality: Modality, jobs: &[Waiting]) -> Duration {
        let longest = jobs.iter().map(|each| each.job.tokens).max().unwrap_or(0);
        self.cost(device).predict(modality, jobs.len(), longest)
    }
}
