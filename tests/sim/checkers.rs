//! What the scheduler promises about single decisions, one named check each. `fairness` has the promises about
//! many decisions.
//!
//! A check compares a decision, or a state between decisions, with the model. It permits every behaviour that
//! the scheduler's documentation permits, so a better policy within the promises passes.

use clipd::clock::Timestamp;
use clipd::modality::Modality;
use clipd::scheduler::{Batch, DropReason, Job, JobId, Rejection, Scheduler};

use crate::composition;
use crate::model::{Fate, Model, Opening};
use crate::prospects;

#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) checker: &'static str,
    pub(crate) message: String,
}

pub(crate) type Verdict = Result<(), Violation>;

pub(crate) fn ensure(holds: bool, checker: &'static str, message: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(Violation { checker, message: message() }) }
}

/// Admission is all or none, refused for a true reason, and never refused without one.
pub(crate) fn admission(
    model: &Model,
    now: Timestamp,
    jobs: &[Job],
    answer: Result<(), Rejection>,
) -> Verdict {
    let room = |modality: Modality| {
        let new = jobs.iter().filter(|job| job.modality == modality).count();
        new == 0 || model.queue(modality).len() + new <= model.settings.max_queue_size
    };
    let counts = model.worker_counts();
    let justified = match answer {
        Ok(()) => {
            let open = !model.draining && counts.ready > 0 && Modality::ALL.into_iter().all(room);
            open && prospects::all(model, now, jobs).all(|prospect| !prospect.is_hopeless())
        }
        Err(Rejection::Draining) => model.draining,
        Err(Rejection::NoWorker) => model.all_lost(),
        Err(Rejection::Starting) => counts.ready == 0 && counts.starting > 0,
        Err(Rejection::QueueFull { .. }) => !Modality::ALL.into_iter().all(room),
        Err(Rejection::TooLate { .. }) => {
            prospects::all(model, now, jobs).any(|prospect| prospect.is_doubtful())
        }
    };
    ensure(justified, "admission", || {
        let queued = Modality::ALL.map(|modality| model.queue(modality).len());
        format!(
            "{} jobs got {answer:?}; waiting {queued:?} of {}, {counts:?}, draining: {}",
            jobs.len(),
            model.settings.max_queue_size,
            model.draining
        )
    })
}

/// Only a queued job can be cancelled, and it always can.
pub(crate) fn cancellation(model: &Model, id: JobId, cancelled: bool) -> Verdict {
    let fate = model.fate(id);
    ensure(cancelled == (fate == Some(Fate::Queued)), "cancellation", || {
        format!("cancel({id:?}) returned {cancelled}; the job is {fate:?}")
    })
}

/// A job is dropped once, when its deadline has come or every worker is lost.
pub(crate) fn dropped(model: &Model, now: Timestamp, id: JobId, reason: DropReason) -> Verdict {
    let fate = model.fate(id);
    ensure(fate == Some(Fate::Queued), "one outcome", || {
        format!("{id:?} was dropped as {reason:?} but is {fate:?}")
    })?;
    let expired = model.all_waiting().any(|each| each.job.id == id && model.hopeless_at(&each.job) <= now);
    let justified = match reason {
        DropReason::Expired => expired,
        DropReason::NoWorker => model.all_lost(),
    };
    ensure(justified, "drop reason", || format!("{id:?} was dropped as {reason:?} at {now:?}"))
}

/// A batch holds the most urgent jobs of one modality, all in time, for a worker that is free or will soon be.
pub(crate) fn dispatched(model: &Model, now: Timestamp, batch: &Batch) -> Verdict {
    let Batch { worker, modality, jobs, close_reason, staged } = batch;
    let opening = model.opening(now).filter(|opening| opening.staged == *staged);
    let Some(opening) = opening.filter(|opening| opening.staged || model.is_idle(*worker)) else {
        return ensure(false, "free worker", || {
            format!("{batch:?} at {now:?}; workers: {:?}", model.workers)
        });
    };
    ensure(!*staged || opening.worker == *worker, "free worker", || {
        format!("{worker:?} got a batch to run next, but {opening:?} is due")
    })?;
    let opening = &Opening { worker: *worker, device: model.device(*worker), ..opening };
    let max = model.settings.max_batch_size[*modality].get();
    ensure((1..=max).contains(&jobs.len()), "batch size", || format!("{} rows of {max}", jobs.len()))?;
    for (place, id) in jobs.iter().enumerate() {
        let fate = model.fate(*id);
        ensure(fate == Some(Fate::Queued) && !jobs[..place].contains(id), "one outcome", || {
            format!("{id:?} was dispatched but is {fate:?}, or is twice in {jobs:?}")
        })?;
    }
    let queue = model.queue(*modality);
    for id in jobs {
        let waiting = queue.iter().find(|each| each.job.id == *id);
        let Some(waiting) = waiting else {
            return ensure(false, "one modality", || format!("{id:?} is not a job of {modality:?}"));
        };
        ensure(model.hopeless_at(&waiting.job) > opening.start, "start before deadline", || {
            format!("{id:?} starts at {:?}, its deadline is {:?}", opening.start, waiting.job.deadline)
        })?;
    }
    composition::check(model, now, batch, opening)?;
    let reasons = model.reasons_to_close(*modality, opening);
    ensure(reasons.contains(close_reason), "close reason", || {
        format!("{modality:?} closed for {close_reason:?} at {now:?}; the reasons are {reasons:?}")
    })?;
    let urgent = |modality| model.is_ready(modality, opening) && model.is_urgent(modality, opening);
    let overtaken = Modality::ALL.into_iter().find(|other| urgent(*other));
    ensure(urgent(*modality) || overtaken.is_none(), "no slack goes first", || {
        format!("{modality:?} has slack at {now:?} and was taken before {overtaken:?}, which has none")
    })
}

/// Between two decisions: the scheduler has done all it owes at `now`, and its counts are right.
pub(crate) fn settled(model: &Model, now: Timestamp, scheduler: &Scheduler) -> Verdict {
    let expired = model.all_waiting().find(|each| model.hopeless_at(&each.job) <= now);
    ensure(expired.is_none(), "expired jobs go", || format!("at {now:?} there still waits {expired:?}"))?;
    let stranded = model.all_waiting().next().filter(|_| model.all_lost());
    ensure(stranded.is_none(), "no worker, no queue", || format!("there still waits {stranded:?}"))?;
    let opening = model.opening(now);
    for modality in Modality::ALL {
        let waiting = model.queue(modality).len();
        let ready = opening.filter(|opening| model.is_ready(modality, opening));
        ensure(ready.is_none(), "nothing ready waits", || {
            format!("{waiting} jobs of {modality:?} wait at {now:?} for {ready:?}")
        })?;
        let queued = scheduler.queued(modality);
        ensure(queued == waiting, "queue lengths", || {
            format!("queued({modality:?}) is {queued}, and {waiting} wait")
        })?;
    }
    let stranger = model.seats().find(|device| scheduler.cost(*device) != model.cost(*device));
    ensure(stranger.is_none(), "own batches alone", || {
        format!("the cost model of {stranger:?} is not what its own batches make of it")
    })?;
    let (counts, expected) = (scheduler.worker_counts(), model.worker_counts());
    ensure(counts == expected, "worker counts", || format!("{counts:?} instead of {expected:?}"))?;
    let (quiet, expected) = (scheduler.is_quiet(), model.is_quiet());
    ensure(quiet == expected, "quiet", || format!("is_quiet() is {quiet}; workers: {:?}", model.workers))?;
    let wakeup = scheduler.next_wakeup();
    ensure(wakeup.is_none_or(|at| at > now), "no spinning", || {
        format!("poll has nothing to say at {now:?} and asks to be woken at {wakeup:?}")
    })
}

/// The scheduler lets its driver sleep until `wake`, or for ever.
pub(crate) fn asleep(model: &Model, wake: Timestamp) -> Verdict {
    match model.next_duty() {
        Some((due, duty)) => {
            ensure(due >= wake, "wake-up", || format!("sleeps until {wake:?} though at {due:?} {duty}"))
        }
        None => Ok(()),
    }
}

/// After the drain, when nothing will happen any more.
pub(crate) fn finished(model: &Model) -> Verdict {
    let left = model.all_waiting().next();
    ensure(left.is_none(), "drain leaves nothing", || format!("at the end there still waits {left:?}"))?;
    ensure(model.is_quiet(), "drain leaves nothing", || format!("workers at the end: {:?}", model.workers))
}
