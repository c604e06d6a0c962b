//! The scheduler thread: turns commands and worker reports into scheduler calls, and actions into effects.

use std::collections::HashMap;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, select};
use metrics::Gauge;
use tokio::sync::watch;

use super::staging::{Assignment, Work};
use super::worker::Report;
use super::{Command, JobError, Payload, Shared, Submission, Workers};
use crate::modality::Modality;
use crate::scheduler::cost::{CostModel, Measurement};
use crate::scheduler::workers::{DeviceId, WorkerCounts};
use crate::scheduler::{Action, Batch, CloseReason, DropReason, Job, JobId, Scheduler};
use crate::telemetry::metrics::Metrics;

pub(super) struct Shell {
    scheduler: Scheduler,
    pending: HashMap<JobId, Payload>,
    /// The device of each worker.
    seats: Vec<DeviceId>,
    /// One per worker; `None` once the worker is lost.
    lines: Vec<Option<Line>>,
    shared: Arc<Shared>,
    workers: watch::Sender<Workers>,
    draining: bool,
    metrics: Metrics,
    queue_rows: [Gauge; 2],
    /// For each device, one for each point of its cost model.
    predicted: Vec<Vec<Gauge>>,
    /// Cost models have learned what was not published yet.
    has_learned: bool,
}

/// The way to a worker.
pub(super) struct Line {
    /// For an idle one.
    pub(super) work: Sender<Work>,
    /// For a busy one: to the thread beside it.
    pub(super) staging: Sender<Assignment>,
}

impl Shell {
    pub(super) fn new(
        scheduler: Scheduler,
        shared: Arc<Shared>,
        seats: Vec<DeviceId>,
        lines: Vec<Line>,
        workers: watch::Sender<Workers>,
    ) -> Shell {
        let metrics = shared.metrics.clone();
        for modality in Modality::ALL {
            CloseReason::ALL
                .iter()
                .for_each(|reason| metrics.batches(modality, reason.as_str()).increment(0));
        }
        let shell = Shell {
            scheduler,
            pending: HashMap::new(),
            seats,
            lines: lines.into_iter().map(Some).collect(),
            workers,
            draining: false,
            queue_rows: Modality::ALL.map(|modality| metrics.queue_rows(modality)),
            metrics,
            predicted: vec![Vec::new(); shared.devices.len()],
            shared,
            has_learned: false,
        };
        shell.publish_workers(|_| ());
        shell
    }

    /// Runs until drained. Dropping `self` ends the worker threads.
    pub(super) fn run(mut self, commands: &Receiver<Command>, reports: &Receiver<Report>) {
        while !(self.draining && self.scheduler.is_quiet()) {
            self.wait(commands, reports);
            // Everything that has arrived is admitted before anything is decided, so that rows submitted
            // together can run together.
            while let Ok(report) = reports.try_recv() {
                self.on_report(report);
            }
            for command in commands.try_iter().take(super::COMMANDS) {
                self.on_command(command);
            }
            while let Some(action) = self.scheduler.poll(self.shared.clock.now()) {
                self.perform(action);
            }
            self.publish_queue();
            // After what runs next was decided: nobody waits for it.
            if std::mem::take(&mut self.has_learned) {
                self.publish_costs();
            }
        }
        // Commands that arrived too late are answered like those that arrive during the drain.
        for command in commands.try_iter() {
            self.on_command(command);
        }
    }

    /// Sleeps until a command, a report, or the scheduler's next wake-up.
    fn wait(&mut self, commands: &Receiver<Command>, reports: &Receiver<Report>) {
        let timer = match self.scheduler.next_wakeup().and_then(|at| self.shared.clock.instant(at)) {
            Some(instant) => crossbeam_channel::at(instant),
            None => crossbeam_channel::never(),
        };
        select! {
            recv(reports) -> report => if let Ok(report) = report { self.on_report(report) },
            recv(commands) -> command => match command {
                Ok(command) => self.on_command(command),
                // Every handle is gone: nobody can submit any more.
                Err(_) => self.drain(),
            },
            recv(timer) -> _ => {}
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Submit(submissions) => self.submit(submissions),
            Command::Cancel(id) => {
                if self.scheduler.cancel(id) {
                    self.pending.remove(&id);
                    self.shared.outcomes.cancelled.increment(1);
                }
            }
            Command::Drain => self.drain(),
        }
    }

    fn drain(&mut self) {
        self.draining = true;
        self.scheduler.begin_drain();
    }

    fn submit(&mut self, submissions: Vec<Submission>) {
        let jobs: Vec<Job> = submissions.iter().map(|submission| submission.job).collect();
        match self.scheduler.submit(self.shared.clock.now(), &jobs) {
            Ok(()) => {
                self.pending.extend(submissions.into_iter().map(|each| (each.job.id, each.payload)));
            }
            Err(rejection) => {
                self.shared.outcomes.rejected.increment(jobs.len() as u64);
                for submission in submissions {
                    // A client that has gone needs no answer; so everywhere below.
                    let _ = submission.payload.answer.reply.send(Err(JobError::Rejected(rejection)));
                }
            }
        }
    }

    fn on_report(&mut self, report: Report) {
        match report {
            Report::Ready { worker, description, sizes, measurements, stages } => {
                let device = self.seats[worker.0];
                self.set_cost(device, CostModel::new(sizes, &measurements));
                if stages {
                    self.scheduler.enable_staging(device);
                }
                self.scheduler.worker_idle(worker);
                self.publish_workers(|workers| {
                    workers.description.get_or_insert(description);
                });
            }
            Report::Done { worker, batch, lead } => {
                let device = self.seats[worker.0];
                if let Some(batch) = batch {
                    self.scheduler.observe(device, &batch);
                    self.has_learned = true;
                }
                if let Some(lead) = lead {
                    self.scheduler.observe_lead(device, lead);
                }
                self.scheduler.batch_done(self.shared.clock.now(), worker);
            }
            Report::Lost { worker, error } => {
                let device = &self.shared.devices[self.seats[worker.0].0];
                tracing::error!(worker = worker.0, device, error, "worker lost");
                self.scheduler.worker_lost(worker);
                self.lines[worker.0] = None;
                self.publish_workers(|workers| workers.last_error = Some(error));
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Dispatch(batch) => self.dispatch(batch),
            Action::Drop(id, reason) => {
                let (error, counter) = match reason {
                    DropReason::Expired => (JobError::Expired, &self.shared.outcomes.expired),
                    DropReason::NoWorker => (JobError::WorkerLost, &self.shared.outcomes.failed),
                };
                counter.increment(1);
                if let Some(payload) = self.pending.remove(&id) {
                    let _ = payload.answer.reply.send(Err(error));
                }
            }
        }
    }

    /// Hands a batch to its worker, without the jobs whose tickets have been dropped meanwhile.
    fn dispatch(&mut self, batch: Batch) {
        let (jobs, abandoned): (Vec<Payload>, Vec<Payload>) = batch
            .jobs
            .iter()
            .filter_map(|id| self.pending.remove(id))
            .partition(|payload| !payload.answer.reply.is_closed());
        self.shared.outcomes.cancelled.increment(abandoned.len() as u64);
        if jobs.is_empty() {
            self.scheduler.batch_abandoned(batch.worker);
            return;
        }
        self.metrics.batches(batch.modality, batch.close_reason.as_str()).increment(1);
        let rows = jobs.len() as u64;
        let Batch { modality, close_reason, .. } = batch;
        let assignment = Assignment { modality, jobs, closed: self.shared.clock.now(), close_reason };
        // It is taken: the scheduler gives nothing to a worker that was reported lost, and knows what each of the
        // others has. If one is lost, its report is on the way, and it answers what it gets until that was read.
        let sent = match &self.lines[batch.worker.0] {
            Some(line) if batch.staged => line.staging.try_send(assignment).is_ok(),
            Some(line) => line.work.try_send(Work::Close(assignment)).is_ok(),
            None => false,
        };
        if !sent {
            // The replies are dropped with the assignment, which tells the callers.
            self.shared.outcomes.failed.increment(rows);
        }
    }

    fn publish_queue(&self) {
        for (gauge, modality) in self.queue_rows.iter().zip(Modality::ALL) {
            gauge.set(self.scheduler.queued(modality) as f64);
        }
        self.publish_outlook();
    }

    fn set_cost(&mut self, device: DeviceId, cost: CostModel) {
        let name = &self.shared.devices[device.0];
        let gauge = |point: Measurement| {
            self.metrics.predicted_duration(name, point.modality, point.rows, point.tokens)
        };
        self.scheduler.set_cost(device, cost);
        // Those of the first worker there, whose points count.
        self.predicted[device.0] = self.scheduler.cost(device).points().map(gauge).collect();
        self.publish_costs();
    }

    fn publish_costs(&self) {
        let costs: Vec<CostModel> =
            (0..self.predicted.len()).map(|device| self.scheduler.cost(DeviceId(device)).clone()).collect();
        for (gauges, cost) in self.predicted.iter().zip(&costs) {
            for (gauge, point) in gauges.iter().zip(cost.points()) {
                gauge.set(point.elapsed.as_secs_f64());
            }
        }
        self.shared.costs.send_replace(costs);
    }

    fn publish_outlook(&self) {
        let outlook = self.scheduler.outlook();
        self.shared.outlook.send_if_modified(|published| std::mem::replace(published, outlook) != outlook);
    }

    /// Those of which a worker is warm.
    fn ready_devices(&self) -> Vec<&str> {
        let devices = self.shared.devices.iter().enumerate();
        let ready = |device: usize| self.scheduler.worker_counts_of(DeviceId(device)).ready > 0;
        devices.filter(|(device, _)| ready(*device)).map(|(_, name)| name.as_str()).collect()
    }

    /// Publishes the scheduler's record of worker states, and what else the event brought.
    fn publish_workers(&self, event: impl FnOnce(&mut Workers)) {
        for (device, name) in self.shared.devices.iter().enumerate() {
            let WorkerCounts { starting, ready, lost } = self.scheduler.worker_counts_of(DeviceId(device));
            for (state, count) in [("starting", starting), ("ready", ready), ("lost", lost)] {
                self.metrics.workers(name, state).set(count as f64);
            }
        }
        let counts = self.scheduler.worker_counts();
        // First: who hears of a ready worker must find it open.
        self.publish_outlook();
        let devices = self.ready_devices().join(",");
        self.workers.send_modify(|workers| {
            workers.counts = counts;
            event(workers);
            if let Some(description) = workers.description.as_mut().filter(|_| counts.ready > 0) {
                description.device = devices;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batcher::tests::{Bench, outcomes, shared, submission};
    use crate::scheduler::workers::WorkerId;

    #[test]
    fn a_batch_for_a_worker_that_is_gone_has_failed() {
        let (shared, seats) = (shared(), vec![DeviceId(0)]);
        let mut scheduler = Scheduler::new(Bench::settings(), &seats);
        scheduler.worker_idle(WorkerId(0));
        let mut shell = Shell::new(scheduler, shared.clone(), seats, Vec::new(), watch::Sender::default());
        shell.lines.push(None);
        let (submissions, mut replies): (Vec<_>, Vec<_>) = [1, 2].map(submission).into_iter().unzip();
        shell.submit(submissions);
        while let Some(action) = shell.scheduler.poll(shared.clock.now()) {
            shell.perform(action);
        }
        assert_eq!(outcomes(&shared.metrics), [0, 0, 0, 0, 2]);
        assert!(replies.iter_mut().all(|reply| reply.try_recv().is_err()), "nobody waits for an answer");
    }
}
