//! Bounds on when jobs that arrive could be done, whatever the policy, to judge admission by deadline.
//!
//! They are wide on purpose: how well admission predicts is measured elsewhere; here it must not be absurd.

use std::time::Duration;

use clipd::class::Class;
use clipd::clock::Timestamp;
use clipd::modality::Modality;
use clipd::scheduler::Job;

use crate::model::{Model, Worker};
use crate::service::MAX_TOKENS;

/// Share of the time left that admission uses.
const USABLE: f64 = 0.8;

/// Jobs of one modality that arrived together.
pub(crate) struct Prospect<'a> {
    model: &'a Model,
    now: Timestamp,
    modality: Modality,
    jobs: Vec<&'a Job>,
}

pub(crate) fn all<'a>(
    model: &'a Model,
    now: Timestamp,
    jobs: &'a [Job],
) -> impl Iterator<Item = Prospect<'a>> {
    Modality::ALL
        .into_iter()
        .map(move |modality| Prospect {
            model,
            now,
            modality,
            jobs: jobs.iter().filter(|job| job.modality == modality).collect(),
        })
        .filter(|prospect| !prospect.jobs.is_empty())
}

impl Prospect<'_> {
    /// It should have been refused.
    pub(crate) fn is_hopeless(&self) -> bool {
        !self.is_free() && self.soonest().mul_f64(0.9) > self.usable()
    }

    /// It may have been refused.
    pub(crate) fn is_doubtful(&self) -> bool {
        !self.is_free() && self.latest().mul_f64(1.1) > self.usable()
    }

    /// Nothing waits and a worker is idle.
    fn is_free(&self) -> bool {
        self.model.queue(self.modality).is_empty() && self.model.any_idle()
    }

    fn usable(&self) -> Duration {
        let deadline = self.jobs.iter().map(|job| job.deadline).min().unwrap_or_default();
        deadline.since(self.now).mul_f64(USABLE)
    }

    /// If all workers did nothing else, at the best batch size.
    fn soonest(&self) -> Duration {
        let bulk = self.jobs.iter().any(|job| job.class == Class::Bulk);
        let queue = self.model.queue(self.modality);
        let before = queue.iter().filter(|each| bulk || each.job.class == Class::Interactive).count();
        // A learned curve may fall; it is a straight line between the shortest and the longest texts.
        let lengths = if self.modality == Modality::Image { [0, 0] } else { [1, MAX_TOKENS] };
        let per_row = lengths.into_iter().flat_map(|tokens| self.per_row(self.modality, tokens));
        let best = per_row.min().unwrap_or_default();
        best.mul_f64((before + self.jobs.len()) as f64 / self.model.worker_counts().ready.max(1) as f64)
    }

    /// If everything that waits and runs came before, at the worst batch size, on one worker.
    fn latest(&self) -> Duration {
        // Admission takes texts to be as long as those that wait: before they are tokenized it cannot know.
        let longest = self.model.all_waiting().map(|each| each.job.tokens).max().unwrap_or(0);
        let dearest =
            |job: &Job| self.per_row(job.modality, job.tokens.max(longest)).max().unwrap_or_default();
        let running = self.model.workers.iter().map(|worker| match worker {
            Worker::Busy(busy) => busy.until.since(self.now) + busy.staged.unwrap_or_default(),
            Worker::Starting | Worker::Idle | Worker::Lost => Duration::ZERO,
        });
        let waiting = self.model.all_waiting().map(|each| dearest(&each.job));
        running.chain(waiting).chain(self.jobs.iter().map(|job| dearest(job))).sum()
    }

    /// Time per row by device and batch size.
    fn per_row(&self, modality: Modality, tokens: u32) -> impl Iterator<Item = Duration> {
        let sizes = 1..=self.model.settings.max_batch_size[modality].get();
        self.model.ready_devices().flat_map(move |device| {
            let cost = self.model.cost(device);
            sizes.clone().map(move |rows| cost.predict(modality, rows, tokens).div_f64(rows as f64))
        })
    }
}
