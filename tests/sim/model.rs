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
/// How late the timer is that closes the next batch of a busy worker.
const TIMER: Duration = Duration::from_micros(100);

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
    /// Seconds from closing a batch to having it ready; `None`: nothing is staged.
    lead: Option<f64>,
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
    Busy(Busy),
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy {
    /// Of the batch.
    pub(crate) number: usize,
    /// It is predicted to be done then.
    pub(crate) until: Timestamp,
    /// From then on the next batch may close.
    closes: Option<Timestamp>,
    /// What the next batch is predicted to take, once it is closed.
    pub(crate) staged: Option<Duration>,
}

/// The worker that a batch may be closed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    pub(crate) worker: WorkerId,
    pub(crate) device: DeviceId,
    /// When the batch is predicted to start.
    pub(crate) start: Timestamp,
    pub(crate) staged: bool,
}

/// What the scheduler owes at a certain instant though nothing happens then.
#[derive(Clone, Copy)]
pub(crate) enum Duty {
    Expire(JobId),
    /// The oldest job has waited for `max_queue_delay`.
    EndDelay(Modality),
    /// A batch that starts later misses a deadline.
    StartSafely(Modality),
    /// A busy worker's next batch has to be put together.
    Stage(Modality),
}

impl fmt::Display for Duty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Duty::Expire(id) => write!(f, "{id:?} expires"),
            Duty::EndDelay(modality) => write!(f, "the delay of {modality:?} ends"),
            Duty::StartSafely(modality) => write!(f, "{modality:?} has its latest safe start"),
            Duty::Stage(modality) => write!(f, "{modality:?} has to be staged"),
        }
    }
}

impl Model {
    pub(crate) fn new(settings: Settings, seats: Vec<DeviceId>) -> Model {
        let cold = Device { best_images: settings.max_batch_size.image.get(), ..Device::default() };
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

    /// What its first worker measured.
    pub(crate) fn set_cost(&mut self, device: DeviceId, cost: CostModel) {
        if *self.cost(device) == CostModel::default() {
            self.put_cost(device, cost);
        }
    }

    fn put_cost(&mut self, device: DeviceId, cost: CostModel) {
        self.devices[device.0] = Device {
            lead: self.devices[device.0].lead,
            best_images: cost.best_images(self.settings.max_batch_size.image.get(), self.longest_run()),
            shortest_run: Modality::ALL.map(|modality| cost.predict(modality, 1, 1).mul_f64(0.9)),
            cost,
        };
    }

    pub(crate) fn enable_staging(&mut self, device: DeviceId) {
        self.devices[device.0].lead.get_or_insert(0.0);
    }

    pub(crate) fn observe_lead(&mut self, device: DeviceId, took: Duration) {
        if let Some(lead) = &mut self.devices[device.0].lead {
            *lead += 0.1 * (took.as_secs_f64() - *lead);
        }
    }

    /// The worker starts a batch of `modality` that is predicted to run so long.
    pub(crate) fn start(
        &mut self,
        worker: WorkerId,
        now: Timestamp,
        number: usize,
        modality: Modality,
        run: Duration,
    ) {
        let device = self.device(worker);
        let until = now.saturating_add(run);
        let early = run.mul_f64(self.cost(device).error(modality)) + TIMER;
        let lead = self.devices[device.0].lead.map(Duration::from_secs_f64);
        let closes = lead.map(|lead| until.saturating_sub(lead).saturating_sub(early));
        self.workers[worker.0] = Worker::Busy(Busy { number, until, closes, staged: None });
    }

    /// Learns from its own batches what `CostModel` learns from them.
    pub(crate) fn observe(&mut self, device: DeviceId, ran: &Measurement) {
        let mut cost = self.cost(device).clone();
        cost.observe(ran);
        self.put_cost(device, cost);
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
        workers.filter(|(worker, _)| matches!(worker, Worker::Idle | Worker::Busy(_))).map(|(_, seat)| *seat)
    }

    /// The worker who gets what is ready at `now`: an idle one, or the first whose next batch may close.
    pub(crate) fn opening(&self, now: Timestamp) -> Option<Opening> {
        let idle = self.workers.iter().position(|worker| *worker == Worker::Idle).map(WorkerId);
        if let Some(worker) = idle {
            return Some(Opening { worker, device: self.device(worker), start: now, staged: false });
        }
        let (closes, opening) = self.first_closing()?;
        (closes <= now).then(|| Opening { start: now.max(opening.start), ..opening })
    }

    fn first_closing(&self) -> Option<(Timestamp, Opening)> {
        let closing = |(index, worker): (usize, &Worker)| match worker {
            Worker::Busy(Busy { until, closes: Some(closes), staged: None, .. }) => {
                let (worker, device) = (WorkerId(index), self.seats[index]);
                Some((*closes, Opening { worker, device, start: *until, staged: true }))
            }
            _ => None,
        };
        self.workers.iter().enumerate().filter_map(closing).min_by_key(|(closes, _)| *closes)
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

    pub(crate) fn is_idle(&self, worker: WorkerId) -> bool {
        self.workers.get(worker.0) == Some(&Worker::Idle)
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
            && !self.workers.iter().any(|worker| matches!(worker, Worker::Busy(_)))
    }

    pub(crate) fn worker_counts(&self) -> WorkerCounts {
        let mut counts = WorkerCounts::default();
        for worker in &self.workers {
            match worker {
                Worker::Starting => counts.starting += 1,
                Worker::Idle | Worker::Busy(_) => counts.ready += 1,
                Worker::Lost => counts.lost += 1,
            }
        }
        counts
    }

    /// The jobs of a queue that a batch may do in time.
    pub(crate) fn live(&self, modality: Modality, opening: &Opening) -> Vec<Waiting> {
        let live = |each: &&Waiting| self.hopeless_at(&each.job) > opening.start;
        self.queue(modality).iter().filter(live).copied().collect()
    }

    /// Everything that would justify closing a batch of `modality` for a worker; nothing if it has to wait.
    pub(crate) fn reasons_to_close(&self, modality: Modality, opening: &Opening) -> Vec<CloseReason> {
        let live = self.live(modality, opening).len();
        let Some(company) = self.company_until(modality).filter(|_| live > 0) else { return Vec::new() };
        [
            (CloseReason::BestSize, live >= self.full_batch(opening.device, modality)),
            (CloseReason::Drain, self.draining),
            (CloseReason::Idle, self.settings.max_queue_delay.is_zero()),
            (CloseReason::Delay, company <= opening.start),
            (CloseReason::Deadline, self.is_urgent(modality, opening)),
        ]
        .into_iter()
        .filter_map(|(reason, holds)| holds.then_some(reason))
        .collect()
    }

    pub(crate) fn is_ready(&self, modality: Modality, opening: &Opening) -> bool {
        !self.reasons_to_close(modality, opening).is_empty()
    }

    /// A job of the modality would miss its deadline if its batch started later.
    pub(crate) fn is_urgent(&self, modality: Modality, opening: &Opening) -> bool {
        let latest = self.latest_start(modality, opening.device, &self.live(modality, opening));
        latest.is_some_and(|latest| latest <= opening.start)
    }

    /// The next instant at which the scheduler owes a decision though nothing happens.
    pub(crate) fn next_duty(&self) -> Option<(Timestamp, Duty)> {
        let expiries =
            self.all_waiting().map(|each| (self.hopeless_at(&each.job), Duty::Expire(each.job.id)));
        let closings = Modality::ALL.into_iter().flat_map(|modality| {
            let idle = self.workers.iter().position(|worker| *worker == Worker::Idle);
            let latest = |idle: usize| self.latest_start(modality, self.seats[idle], self.queue(modality));
            let staging = self.first_closing().filter(|(_, opening)| self.is_ready(modality, opening));
            [
                self.company_until(modality)
                    .filter(|_| idle.is_some())
                    .map(|at| (at, Duty::EndDelay(modality))),
                idle.and_then(latest).map(|at| (at, Duty::StartSafely(modality))),
                staging.filter(|_| idle.is_none()).map(|(at, _)| (at, Duty::Stage(modality))),
            ]
        });
        expiries.chain(closings.flatten()).min_by_key(|(at, _)| *at)
    }

    /// When the job that has waited longest stops waiting for company.
    fn company_until(&self, modality: Modality) -> Option<Timestamp> {
        let first = self.queue(modality).iter().map(|each| each.arrival).min()?;
        Some(first.saturating_add(self.settings.max_queue_delay))
    }

    /// The start at which the next batch, were it as long as the longest row, ends with the earliest deadline of
    /// `live`.
    fn latest_start(&self, modality: Modality, device: DeviceId, live: &[Waiting]) -> Option<Timestamp> {
        let queue = self.queue(modality);
        let deadline = live.iter().map(|each| each.job.deadline).min()?;
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
            Modality::Text => self.settings.max_batch_size.text.get(),
        }
    }

    /// Texts of the greatest length that may run together.
    pub(crate) fn longest_texts(&self, device: DeviceId) -> usize {
        let allowed = |rows: &usize| {
            *rows * MAX_TOKENS as usize <= self.settings.max_batch_tokens.get()
                && self.cost(device).predict(Modality::Text, *rows, MAX_TOKENS) <= self.longest_run()
        };
        (2..=self.settings.max_batch_size.text.get()).take_while(allowed).last().unwrap_or(1)
    }

    /// Batches of more than a row are predicted to run no longer.
    pub(crate) fn longest_run(&self) -> Duration {
        self.settings.interactive_target
    }

    pub(crate) fn predict(&self, device: DeviceId, modality: Modality, jobs: &[Waiting]) -> Duration {
        let longest = jobs.iter().map(|each| each.job.tokens).max().unwrap_or(0);
        self.cost(device).predict(modality, jobs.len(), longest)
    }
}
