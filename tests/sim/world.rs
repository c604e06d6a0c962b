//! Runs one schedule: drives the scheduler as `batcher`'s shell does, in virtual time, with simulated workers.
//!
//! It sleeps exactly until the next event or the scheduler's next wake-up and never polls in between, so a
//! wake-up that is missing is missed. It judges nothing itself: every decision goes through the checkers.

use std::collections::BTreeMap;
use std::time::Duration;

use clipd::clock::Timestamp;
use clipd::scheduler::cost::Measurement;
use clipd::scheduler::workers::WorkerId;
use clipd::scheduler::{Action, Batch, CloseReason, DropReason, Job, JobId, Rejection, Scheduler};

use crate::checkers::{self, Verdict, ensure};
use crate::fairness::{Bounds, Contest, Patience, Share};
use crate::model::{Fate, Model, Opening, Waiting, Worker};
use crate::rng::Rng;
use crate::tally::Tally;
use crate::workload::{Event, Pace, Victim, Workload};

/// More steps than any schedule takes: a few hundred events, a few thousand jobs, each with a few wake-ups.
const MAX_STEPS: usize = 100_000;

pub(crate) struct World {
    workload: Workload,
    rng: Rng,
    now: Timestamp,
    /// In the order in which things happen; the number separates those of one instant.
    agenda: BTreeMap<(Timestamp, usize), Due>,
    /// Number of the next entry of the agenda, or of the next batch.
    serial: usize,
    scheduler: Scheduler,
    model: Model,
    /// Of each worker.
    staged: Vec<Option<Staged>>,
    share: Share,
    patience: Patience,
    pub(crate) tally: Tally,
    /// One line for everything that happened, if asked for.
    log: Option<Vec<String>>,
}

enum Due {
    Outside(Event),
    Finished { worker: WorkerId, batch: usize, ran: Measurement, lead: Option<Duration> },
}

/// What a busy worker runs next.
struct Staged {
    predicted: Duration,
    /// How long it will run.
    ran: Measurement,
    lead: Duration,
    /// When it has been put together.
    ready: Timestamp,
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let mut workload = Workload::draw(&mut rng);
        let events = std::mem::take(&mut workload.events);
        let site = &workload.site;
        let agenda: BTreeMap<_, _> = events
            .into_iter()
            .enumerate()
            .map(|(number, (at, event))| ((at, number), Due::Outside(event)))
            .collect();
        World {
            now: Timestamp::default(),
            serial: agenda.len(),
            agenda,
            scheduler: Scheduler::new(site.settings.clone(), &site.devices),
            model: Model::new(site.settings.clone(), site.devices.clone()),
            staged: site.devices.iter().map(|_| None).collect(),
            share: Share::default(),
            patience: Patience::default(),
            tally: Tally::default(),
            log: None,
            workload,
            rng,
        }
    }

    pub(crate) fn with_log(seed: u64) -> World {
        let world = World::new(seed);
        let site = &world.workload.site;
        let first = format!("{:?}, workers on {:?}", site.settings, site.devices);
        World { log: Some(vec![first]), ..world }
    }

    pub(crate) fn log(&self) -> &[String] {
        self.log.as_deref().unwrap_or_default()
    }

    /// Until nothing will happen any more.
    pub(crate) fn run(&mut self) -> Verdict {
        for _ in 0..MAX_STEPS {
            let event = self.agenda.first_key_value().map(|((at, _), _)| *at);
            let wakeup = self.scheduler.next_wakeup();
            let wake = event.into_iter().chain(wakeup).min().unwrap_or(Timestamp::MAX);
            checkers::asleep(&self.model, wake)?;
            if wake == Timestamp::MAX {
                return checkers::finished(&self.model);
            }
            if event.is_none_or(|at| wake < at) {
                self.tally.count("wake-ups by timer");
            }
            self.sleep_until(wake);
            self.deliver()?;
            self.poll()?;
            self.settle()?;
        }
        ensure(false, "an end", || format!("no end after {MAX_STEPS} steps"))
    }

    /// The clock stands still where the next event is due already.
    fn sleep_until(&mut self, wake: Timestamp) {
        if wake > self.now {
            let late = self.workload.lateness.mul_f64(self.rng.unit());
            self.now = wake.saturating_add(late);
        }
    }

    /// Delivers what is due: all of it, or the first.
    fn deliver(&mut self) -> Verdict {
        while let Some(entry) = self.agenda.first_entry()
            && entry.key().0 <= self.now
        {
            let due = entry.remove();
            self.on_due(due)?;
            self.share.settled(&self.model);
            if self.workload.pace == Pace::OneByOne {
                break;
            }
        }
        Ok(())
    }

    fn on_due(&mut self, due: Due) -> Verdict {
        self.tally.count("events");
        match due {
            Due::Outside(Event::Submit(jobs)) => self.submit(&jobs)?,
            Due::Outside(Event::Cancel(victim)) => self.cancel(victim)?,
            Due::Outside(Event::Ready(worker)) => self.ready(worker),
            Due::Outside(Event::Lost(worker)) => self.lose(worker),
            Due::Outside(Event::Drain) => {
                self.note(|| "drain".to_owned());
                self.scheduler.begin_drain();
                self.model.draining = true;
            }
            Due::Finished { worker, batch, ran, lead } => self.finish(worker, batch, &ran, lead),
        }
        Ok(())
    }

    fn submit(&mut self, jobs: &[Job]) -> Verdict {
        let answer = self.scheduler.submit(self.now, jobs);
        self.note(|| format!("submit {jobs:?} -> {answer:?}"));
        checkers::admission(&self.model, self.now, jobs, answer)?;
        match answer {
            Ok(()) => {
                self.tally.add("admitted jobs", jobs.len());
                self.model.admit(self.now, jobs);
            }
            Err(Rejection::QueueFull { .. }) => self.tally.count("rejected: queue full"),
            Err(Rejection::TooLate { .. }) => self.tally.count("rejected: too late"),
            Err(Rejection::Starting) => self.tally.count("rejected: starting"),
            Err(Rejection::Draining) => self.tally.count("rejected: draining"),
            Err(Rejection::NoWorker) => self.tally.count("rejected: no worker"),
        }
        Ok(())
    }

    fn cancel(&mut self, victim: Victim) -> Verdict {
        let rank = self.rng.count(0..=999);
        let (name, id) = match victim {
            Victim::Queued => ("cancelled: queued", self.model.some_job(Fate::Queued, rank)),
            Victim::Started => ("cancelled: started", self.model.some_job(Fate::Dispatched, rank)),
            Victim::Unknown => ("cancelled: unknown", Some(JobId(u64::MAX))),
        };
        let Some(id) = id else { return Ok(()) };
        let cancelled = self.scheduler.cancel(id);
        self.note(|| format!("cancel {id:?} -> {cancelled}"));
        self.tally.count(name);
        checkers::cancellation(&self.model, id, cancelled)?;
        self.model.settle(id, Fate::Cancelled);
        Ok(())
    }

    fn ready(&mut self, worker: WorkerId) {
        if self.model.workers[worker.0] == Worker::Starting {
            self.note(|| format!("{worker:?} ready"));
            let (device, max) = (self.model.device(worker), self.model.settings.max_batch_size);
            let cost = self.workload.site.service.cost(device, max);
            self.scheduler.set_cost(device, cost.clone());
            self.model.set_cost(device, cost);
            if self.workload.site.staging.is_some() {
                self.scheduler.enable_staging(device);
                self.model.enable_staging(device);
            }
            self.scheduler.worker_idle(worker);
            self.model.workers[worker.0] = Worker::Idle;
        }
    }

    fn lose(&mut self, worker: WorkerId) {
        self.note(|| format!("{worker:?} lost"));
        match self.model.workers[worker.0] {
            Worker::Idle => self.tally.count("workers lost idle"),
            Worker::Busy(_) => self.tally.count("workers lost busy"),
            Worker::Starting | Worker::Lost => {}
        }
        self.scheduler.worker_lost(worker);
        self.model.workers[worker.0] = Worker::Lost;
        self.staged[worker.0] = None;
        self.patience.restart();
    }

    /// A worker that was lost does not finish.
    fn finish(&mut self, worker: WorkerId, batch: usize, ran: &Measurement, lead: Option<Duration>) {
        if matches!(self.model.workers[worker.0], Worker::Busy(busy) if busy.number == batch) {
            self.note(|| format!("{worker:?} finished"));
            let device = self.model.device(worker);
            if let Some(lead) = lead {
                self.scheduler.observe_lead(device, lead);
                self.model.observe_lead(device, lead);
            }
            if self.workload.learning {
                self.scheduler.observe(device, ran);
                self.model.observe(device, ran);
            }
            self.scheduler.batch_done(self.now, worker);
            self.model.workers[worker.0] = Worker::Idle;
            if let Some(staged) = self.staged[worker.0].take() {
                let waits = staged.ready.since(self.now);
                self.start(worker, staged.predicted, waits, staged.ran, Some(staged.lead));
            }
        }
    }

    fn poll(&mut self) -> Verdict {
        while let Some(action) = self.scheduler.poll(self.now) {
            self.note(|| format!("{action:?}"));
            match action {
                Action::Dispatch(batch) => self.dispatch(&batch)?,
                Action::Drop(id, reason) => {
                    checkers::dropped(&self.model, self.now, id, reason)?;
                    let (name, fate) = match reason {
                        DropReason::Expired => ("dropped: expired", Fate::Expired),
                        DropReason::NoWorker => ("dropped: no worker", Fate::NoWorker),
                    };
                    self.tally.count(name);
                    self.model.settle(id, fate);
                }
            }
        }
        Ok(())
    }

    fn dispatch(&mut self, batch: &Batch) -> Verdict {
        checkers::dispatched(&self.model, self.now, batch)?;
        let device = self.model.device(batch.worker);
        let opening = self.model.opening(self.now).expect("there is one, or nothing could be dispatched");
        let contest = Contest::at(&self.model, &Opening { worker: batch.worker, device, ..opening });
        let jobs: Vec<Waiting> =
            batch.jobs.iter().filter_map(|id| self.model.settle(*id, Fate::Dispatched)).collect();
        let cost = self.model.predict(device, batch.modality, &jobs);
        self.share.dispatched(contest, batch.modality, cost)?;
        if contest == Contest::Urgent {
            self.patience.restart();
        }
        self.tally_batch(batch, contest);
        self.hand_over(batch, &jobs, cost);
        Ok(())
    }

    /// The worker runs the batch, or has it put together; or it turns out that nobody waits for it any more.
    fn hand_over(&mut self, batch: &Batch, jobs: &[Waiting], predicted: Duration) {
        let Batch { worker, modality, staged, .. } = *batch;
        if self.rng.chance(self.workload.abandoned) {
            self.tally.count("abandoned batches");
            self.scheduler.batch_abandoned(worker);
            return;
        }
        let tokens = jobs.iter().map(|each| each.job.tokens).max().unwrap_or(0);
        let expected = Measurement { modality, rows: jobs.len(), tokens, elapsed: predicted };
        let service = &self.workload.site.service;
        let elapsed = service.run_time(&mut self.rng, self.model.device(worker), &expected);
        let ran = Measurement { elapsed, ..expected };
        if !staged {
            return self.start(worker, predicted, Duration::ZERO, ran, None);
        }
        self.tally.count("staged batches");
        let lead = self.workload.site.staging.unwrap_or_default().mul_f64(self.rng.unit());
        if let Worker::Busy(busy) = &mut self.model.workers[worker.0] {
            busy.staged = Some(predicted);
        }
        let ready = self.now.saturating_add(lead);
        self.staged[worker.0] = Some(Staged { predicted, ran, lead, ready });
    }

    /// The run begins once the batch has been put together, though the scheduler knows of the worker only.
    fn start(
        &mut self,
        worker: WorkerId,
        predicted: Duration,
        waits: Duration,
        ran: Measurement,
        lead: Option<Duration>,
    ) {
        self.serial += 1;
        self.model.start(worker, self.now, self.serial, ran.modality, predicted);
        let end = Due::Finished { worker, batch: self.serial, ran, lead };
        self.agenda.insert((self.now.saturating_add(waits + ran.elapsed), self.serial), end);
    }

    fn settle(&mut self) -> Verdict {
        checkers::settled(&self.model, self.now, &self.scheduler)?;
        self.share.settled(&self.model);
        let site = &self.workload.site;
        let overhead = self.workload.lateness + site.service.grain + site.staging.unwrap_or_default();
        let bounds = Bounds { service: &self.workload.site.service, overhead, debt: self.share.debt() };
        // What a batch costs may change while a job waits; only predictions that stay have a bound.
        let overdue = match self.workload.learning {
            true => 0,
            false => self.patience.settled(self.now, &self.model, &bounds)?,
        };
        self.tally.add("overdue jobs", overdue);
        Ok(())
    }

    fn tally_batch(&mut self, batch: &Batch, contest: Contest) {
        self.tally.count("batches");
        self.tally.count(match batch.close_reason {
            CloseReason::BestSize => "closed: best size",
            CloseReason::Idle => "closed: idle",
            CloseReason::Deadline => "closed: deadline",
            CloseReason::Delay => "closed: delay",
            CloseReason::Drain => "closed: drain",
        });
        self.tally.count(match contest {
            Contest::Alone => "contest: alone",
            Contest::Even => "contest: even",
            Contest::Urgent => "contest: urgent",
        });
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(format!("{:?} {}", self.now.since(Timestamp::default()), line()));
        }
    }
}
