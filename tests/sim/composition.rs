//! What the scheduler promises about the make-up of a batch.

use clipd::clock::Timestamp;
use clipd::modality::Modality;
use clipd::scheduler::workers::DeviceId;
use clipd::scheduler::{Batch, JobId};

use crate::checkers::{Verdict, ensure};
use crate::model::{HAND_OVER, Model, Opening, Waiting};

/// Texts are grouped among this many full batches.
const WINDOW: usize = 4;
/// Sizes whose time per row differs by less are as good; the rest is for rounding.
const AS_GOOD: f64 = 1.01 + 1e-6;

pub(crate) fn check(model: &Model, now: Timestamp, batch: &Batch, opening: &Opening) -> Verdict {
    let live = model.live(batch.modality, opening);
    let (queue, device) = (live.as_slice(), opening.device);
    match (batch.modality, queue.first()) {
        (Modality::Image, _) => {
            most_urgent(queue, batch)?;
            well_sized(model, device, queue.len(), batch.jobs.len())
        }
        (Modality::Text, Some(first)) => {
            let jobs: Vec<&Waiting> = queue.iter().filter(|each| batch.jobs.contains(&each.job.id)).collect();
            within_budget(model, device, &jobs)?;
            if first.effective <= now {
                most_urgent(queue, batch)
            } else {
                grouped(model, device, queue, &jobs)
            }
        }
        (Modality::Text, None) => ensure(false, "one modality", || format!("{batch:?} though no text waits")),
    }
}

fn most_urgent(queue: &[Waiting], batch: &Batch) -> Verdict {
    let urgent: Vec<JobId> = queue.iter().take(batch.jobs.len()).map(|each| each.job.id).collect();
    ensure(batch.jobs == urgent, "most urgent first", || {
        let order: Vec<_> =
            queue.iter().take(urgent.len() + 2).map(|each| (each.job.id, each.effective)).collect();
        format!("dispatched {:?}; the queue by effective deadline begins {order:?}", batch.jobs)
    })
}

/// No other number of images that could have run has clearly more images per second.
fn well_sized(model: &Model, device: DeviceId, waiting: usize, rows: usize) -> Verdict {
    let per_row = |rows: usize| {
        (model.cost(device).predict(Modality::Image, rows, 0) + HAND_OVER).as_secs_f64() / rows as f64
    };
    let bounded = |rows: &usize| {
        *rows == 1 || model.cost(device).predict(Modality::Image, *rows, 0) <= model.longest_run()
    };
    let max = model.settings.max_batch_size.image.get();
    let possible = 1..=max;
    let best = possible.filter(bounded).map(per_row).fold(f64::INFINITY, f64::min);
    // Or all that wait would be padded, and a smaller bucket and the rest cost less.
    let price = |rows: usize| per_row(rows) * rows as f64;
    let split = |rows: usize| price(rows) + price(waiting - rows);
    let spared = rows < waiting && waiting <= max && split(rows) < price(waiting);
    ensure(rows == waiting || per_row(rows) <= best * AS_GOOD || spared, "well sized", || {
        format!("{rows} of {waiting} images run, at {} s each; {best} s is possible", per_row(rows))
    })?;
    // What takes as long as the next bucket is padded to it.
    let (bucket, half) = (waiting.next_power_of_two(), waiting.next_power_of_two() / 2);
    let run = |rows| model.cost(device).predict(Modality::Image, rows, 0);
    let padded = rows == waiting
        && waiting < bucket.min(model.full_batch(device, Modality::Image))
        && run(waiting) == run(bucket);
    ensure(!padded || price(waiting) <= split(half) * (1.0 + 1e-9), "padding pays", || {
        format!("{rows} images run together, and {half} of them and the rest would take less time")
    })?;
    // Fewer than would be best may take longer: a learned curve has bumps.
    ensure(rows == waiting || bounded(&rows), "longest run", || {
        format!("{rows} images run for longer than {:?}", model.longest_run())
    })
}

fn within_budget(model: &Model, device: DeviceId, jobs: &[&Waiting]) -> Verdict {
    let longest = jobs.iter().map(|each| each.job.tokens).max().unwrap_or(0);
    let tokens = jobs.len() * longest as usize;
    let run = model.cost(device).predict(Modality::Text, jobs.len(), longest);
    let within = tokens <= model.settings.max_batch_tokens.get() && run <= model.longest_run();
    ensure(jobs.len() == 1 || within, "token budget", || {
        format!("{} texts of up to {longest} tokens, for {run:?}", jobs.len())
    })
}

/// The most urgent text is among them, and the others pay: no number of texts of its own length computes more
/// tokens per second.
fn grouped(model: &Model, device: DeviceId, queue: &[Waiting], jobs: &[&Waiting]) -> Verdict {
    let Some(first) = queue.first() else { return Ok(()) };
    ensure(jobs.iter().any(|each| each.job.id == first.job.id), "the first goes", || {
        format!("{:?} waits first and was not taken", first.job)
    })?;
    let window = &queue[..queue.len().min(WINDOW * model.settings.max_batch_size.text.get())];
    let outside = jobs.iter().find(|each| !window.iter().any(|other| other.job.id == each.job.id));
    ensure(outside.is_none(), "window", || format!("{outside:?} was taken from far behind"))?;

    let speed = |rows: usize, tokens: usize, longest: u32| {
        tokens as f64 / (model.cost(device).predict(Modality::Text, rows, longest) + HAND_OVER).as_secs_f64()
    };
    let tokens = jobs.iter().map(|each| each.job.tokens as usize).sum();
    let longest = jobs.iter().map(|each| each.job.tokens).max().unwrap_or(0);
    let own = speed(jobs.len(), tokens, longest);
    let length = first.job.tokens;
    let equals: Vec<&Waiting> = window.iter().filter(|each| each.job.tokens == length).collect();
    let alone = (1..=equals.len().min(model.settings.max_batch_size.text.get()))
        .filter(|rows| within_budget(model, device, &equals[..*rows]).is_ok())
        .map(|rows| speed(rows, rows * length as usize, length))
        .fold(0.0, f64::max);
    ensure(own >= alone * (1.0 - 1e-9), "grouping pays", || {
        format!("{own} tokens/s with {jobs:?}, but {alone} with equals of {:?}", first.job)
    })
}
