//! Bounds on when jobs that arrive could be done, whatever the policy, to judge admission by deadline.
//!
//! They are wide on purpose: how well admission predicts is measured elsewhere; here it must not be absurd.

use std::time::Duration;

use clipd::class::Class;
use clipd::clock::Timestamp;
use clipd::modality::Modality;
use clipd::scheduler::Job;

use crate::model::{Model, Worker};

/// Share of the time left that admission uses.
const USABLE: f64 = 0.8;

/// Jobs of one modality that arrived together.
pub(crate) struct Prospect {
    /// Nothing waits and a worker is idle.
    free: bool,
    usable: Duration,
    /// If all workers did nothing else, at the best batch size.
    soonest: Duration,
    /// If everything that waits and runs came before, at the worst batch size, on one worker.
    latest: Duration,
}

impl Prospect {
    /// It should have been refused.
    pub(crate) fn is_hopeless(&self) -> bool {
        !self.free && self.soonest.mul_f64(0.9) > self.usable
    }

    /// It may have been refused.
    pub(crate) fn is_doubtful(&self) -> bool {
        !self.free && self.latest.mul_f64(1.1) > self.usable
    }
}

pub(crate) fn all(model: &Model, now: Timestamp, jobs: &[Job]) -> impl Iterator<Item = Prospect> {
    Modality::ALL.into_iter().filter_map(move |modality| {
        let jobs: Vec<&Job> = jobs.iter().filter(|job| job.modality == modality).collect();
        let deadline = jobs.iter().map(|job| job.deadline).min()?;
        let bulk = jobs.iter().any(|job| job.class == Class::Bulk);
        let queue = model.queue(modality);
        let before = queue.iter().filter(|each| bulk || each.job.class == Class::Interactive).count();

        let shortest = if modality == Modality::Image { 0 } else { 1 };
        let per_row = |modality, tokens| {
            (1..=model.settings.max_batch_size.get())
                .map(move |rows| model.cost.predict(modality, rows, tokens).div_f64(rows as f64))
        };
        let workers = model.worker_counts().ready.max(1) as f64;
        // Admission takes texts to be as long as those that wait: before they are tokenized it cannot know.
        let longest = model.all_waiting().map(|each| each.job.tokens).max().unwrap_or(0);
        let dearest = |job: &Job| per_row(job.modality, job.tokens.max(longest)).max().unwrap_or_default();
        let running = model.workers.iter().map(|worker| match worker {
            Worker::Busy { until, .. } => until.since(now),
            Worker::Starting | Worker::Idle | Worker::Lost => Duration::ZERO,
        });
        let waiting = model.all_waiting().map(|each| dearest(&each.job));
        let own = jobs.iter().map(|job| dearest(job));
        Some(Prospect {
            free: queue.is_empty() && model.any_idle(),
            usable: deadline.since(now).mul_f64(USABLE),
            soonest: per_row(modality, shortest).min()?.mul_f64((before + jobs.len()) as f64 / workers),
            latest: running.chain(waiting).chain(own).sum(),
        })
    })
}
