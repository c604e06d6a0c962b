//! What the scheduler promises about many decisions: modalities share device time, and no job starves.
//!
//! Both bounds are derived from start-time fair queueing, whose tags they never look at.

use std::collections::HashMap;
use std::time::Duration;

use clipd::clock::Timestamp;
use clipd::modality::Modality;
use clipd::scheduler::JobId;

use crate::checkers::{Verdict, Violation, ensure};
use crate::model::{Fate, Model, Opening};
use crate::service::{MAX_TOKENS, Service};

/// Who could have been dispatched when a batch was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contest {
    /// One modality only.
    Alone,
    /// Both, and the share decided.
    Even,
    /// Both, and a deadline decided.
    Urgent,
}

impl Contest {
    pub(crate) fn at(model: &Model, opening: &Opening) -> Contest {
        if !Modality::ALL.into_iter().all(|modality| model.is_ready(modality, opening)) {
            Contest::Alone
        } else if Modality::ALL.into_iter().any(|modality| model.is_urgent(modality, opening)) {
            Contest::Urgent
        } else {
            Contest::Even
        }
    }
}

/// While both modalities are ready and no deadline is urgent, the predicted device time handed to one exceeds
/// that handed to the other by at most one batch of each.
///
/// Derivation. A modality has a tag that rises by the cost c of each of its batches; the lower tag goes first,
/// and one that was not ready catches up to the tag of the batch dispatched last. So the tags of A and B
/// differ by at most a batch: -c(B) <= tag(A) - tag(B) <= c(A), as A is served only when its tag is not the
/// higher. While both are ready, device time alone moves the tags. So A is served only while its lead over B is
/// at most some threshold, B while it is at least that, and the lead stays within c(A) + c(B).
///
/// A deadline overrides this. What it takes counts, so it is paid back while both are ready; what was not paid
/// back then, the *debt*, moves the threshold of later times, until all is done and forgotten.
#[derive(Default)]
pub(crate) struct Share {
    /// Device time handed to images less that to texts since both became ready, in nanoseconds.
    lead: i128,
    /// Highest lead after images had their share.
    highest: i128,
    /// Lowest lead after texts had their share.
    lowest: i128,
    /// Cost of the most expensive batch so far, indexed by `Modality::index`.
    largest: [Duration; 2],
    debt: Duration,
}

impl Share {
    pub(crate) fn dispatched(&mut self, contest: Contest, modality: Modality, cost: Duration) -> Verdict {
        let largest = &mut self.largest[modality.index()];
        *largest = cost.max(*largest);
        self.lead += match modality {
            Modality::Image => nanos(cost),
            Modality::Text => -nanos(cost),
        };
        match (contest, modality) {
            (Contest::Alone, _) => self.restart(),
            (Contest::Urgent, _) => self.debt += cost,
            (Contest::Even, Modality::Image) => self.highest = self.lead.max(self.highest),
            (Contest::Even, Modality::Text) => self.lowest = self.lead.min(self.lowest),
        }
        let bound = nanos(self.largest[0] + self.largest[1]);
        ensure(self.highest - self.lowest <= bound, "even share", || {
            format!(
                "device time of images less that of texts, in ns: {} after {modality:?} was served, once {} \
                 after images and {} after texts; the bound is {bound}",
                self.lead, self.highest, self.lowest
            )
        })
    }

    /// To be called after every event, and when there is nothing to decide.
    pub(crate) fn settled(&mut self, model: &Model) {
        if model.is_quiet() {
            self.debt = Duration::ZERO;
        }
        if Modality::ALL.into_iter().any(|modality| model.queue(modality).is_empty()) {
            self.restart();
        }
    }

    pub(crate) fn debt(&self) -> Duration {
        self.debt
    }

    /// The threshold is not known, but within a batch of each, and the debt, of zero.
    fn restart(&mut self) {
        (self.lead, self.highest, self.lowest) = (0, -nanos(self.debt), nanos(self.debt));
    }
}

fn nanos(duration: Duration) -> i128 {
    duration.as_nanos() as i128
}

/// A job that is *overdue* (its effective deadline and its delay have passed) starts within a bound that
/// depends on what is before it, not on what arrives later.
///
/// Derivation. Let j be overdue with a rows before it. Whatever arrives now is less urgent, so j is in batch
/// number k = a / r + 1 of its modality from now on, where r is the fewest rows of a batch (what is overdue is
/// not grouped by length, but a batch may be bounded by its tokens or its run), and the k - 1 before it take at most
/// (k - 1) C of true time. The other modality gets at most k c + c' + debt of predicted time before that,
/// by the derivation of [`Share`], with c, c' the dearest batches of the own and the other modality; what that
/// is in true time follows from how wrong the cost model is. As j's modality is ready, no worker idles but
/// for late timers and batches that are not put together in time, so m workers get through this in an m-th of the
/// time, after the batches that run now and those that are staged.
///
/// A decision made for a deadline, and the loss of a worker, start the account anew.
#[derive(Default)]
pub(crate) struct Patience {
    starts_by: HashMap<JobId, Timestamp>,
}

impl Patience {
    pub(crate) fn restart(&mut self) {
        self.starts_by.clear();
    }

    /// To be called when there is nothing to decide. Returns how many jobs have become overdue.
    pub(crate) fn settled(
        &mut self,
        now: Timestamp,
        model: &Model,
        bounds: &Bounds,
    ) -> Result<usize, Violation> {
        let mut opened = 0;
        if model.worker_counts().ready == 0 {
            self.restart();
            return Ok(opened);
        }
        self.starts_by.retain(|id, _| model.fate(*id) == Some(Fate::Queued));
        for modality in Modality::ALL {
            // Strictly: a job of the same effective deadline and a smaller id may still arrive at that instant.
            let due = model.queue(modality).iter().take_while(|each| each.effective < now);
            for (before, waiting) in due.enumerate() {
                if waiting.arrival.saturating_add(model.settings.max_queue_delay) > now {
                    continue;
                }
                let starts_by = *self.starts_by.entry(waiting.job.id).or_insert_with(|| {
                    opened += 1;
                    now.saturating_add(bounds.patience(model, modality, before))
                });
                ensure(now <= starts_by, "no starvation", || {
                    format!("at {now:?} there still waits {waiting:?}, which had to start by {starts_by:?}")
                })?;
            }
        }
        Ok(opened)
    }
}

/// What the bound on a job's patience is made of, besides the model.
pub(crate) struct Bounds<'a> {
    pub(crate) service: &'a Service,
    /// The longest time that a worker idles after a batch, by late timers, late batches and the grain of time.
    pub(crate) overhead: Duration,
    pub(crate) debt: Duration,
}

impl Bounds<'_> {
    /// How long a job with `before` rows of its modality before it can have to wait.
    fn patience(&self, model: &Model, modality: Modality, before: usize) -> Duration {
        let max = |modality| model.settings.max_batch_size[modality].get();
        let other = if modality == Modality::Image { Modality::Text } else { Modality::Image };
        let run = |modality| self.service.longest_run(modality, max(modality)) + self.overhead;
        let dearest = |modality| {
            let runs = model
                .ready_devices()
                .map(|device| model.cost(device).predict(modality, max(modality), MAX_TOKENS));
            runs.max().unwrap_or_default()
        };
        let fewest = |device| match modality {
            Modality::Image => model.full_batch(device, modality),
            Modality::Text => model.longest_texts(device),
        };
        let fewest = model.ready_devices().map(fewest).min().unwrap_or(1);
        let batches = (before / fewest + 1) as f64 + self.service.more_batches(max(modality));

        let own = run(modality).mul_f64(batches - 1.0);
        let predicted = dearest(modality).mul_f64(batches) + dearest(other) + self.debt;
        let runs = model.ready_devices().map(|device| model.cost(device).predict(other, 1, 1));
        let cheapest = runs.min().unwrap_or_default();
        // The cheapest batch tells how many there can be, each with its overhead.
        let count = predicted.div_duration_f64(cheapest) + 1.0;
        let others = predicted.mul_f64(self.service.worst_ratio(other)) + self.overhead.mul_f64(count);
        let running = run(modality).max(run(other));
        2 * running + (own + others).div_f64(model.worker_counts().ready as f64)
    }
}
