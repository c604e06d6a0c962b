//! Which jobs run together.
//!
//! Images: the most urgent, as many as run best; if fewer wait, and a device has buckets, all that wait or as many as
//! fill one. Texts: rows of like length, so that little of a batch is padding, since a row is padded to the longest of
//! its batch, and padding costs as much as text. The most urgent row is always taken; the others are those with which
//! the batch computes the most tokens of text per second.

use std::cmp::Reverse;
use std::time::Duration;

use super::cost::CostModel;
use super::workers::Opening;
use super::{Job, Scheduler};
use crate::clock::Timestamp;
use crate::modality::Modality;

/// Texts are grouped by length among this many full batches, the most urgent ones.
const WINDOW: usize = 4;

impl Scheduler {
    /// The jobs that run together next.
    pub(super) fn next_batch(&self, now: Timestamp, modality: Modality, opening: &Opening) -> Vec<Job> {
        let (queue, cost) = (&self.queues[modality.index()], self.cost(opening.device));
        let (rows, hopeless) = (self.full_batch(opening.device, modality), self.hopeless(modality, opening));
        let window = |rows| queue.window(rows, hopeless);
        if modality == Modality::Image {
            let live = queue.live(hopeless);
            return jobs(window(if live < rows { cost.images_now(live) } else { rows }));
        }
        let bounds = Bounds {
            rows,
            tokens: self.settings.max_batch_tokens.get(),
            run: self.longest_run().as_secs_f64(),
        };
        let window = window(WINDOW * rows);
        match window.first() {
            // Nothing that is overdue waits for its like.
            Some((due, _)) if *due <= now => bounds.prefix(jobs(window), cost),
            _ => like_the_first(&jobs(window), cost, bounds),
        }
    }

    /// A batch that runs longer holds up what arrives meanwhile for too long.
    pub(super) fn longest_run(&self) -> Duration {
        self.settings.interactive_target
    }
}

fn jobs(window: Vec<(Timestamp, Job)>) -> Vec<Job> {
    window.into_iter().map(|(_, job)| job).collect()
}

/// What a batch of texts may be.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    rows: usize,
    /// Rows times the longest.
    tokens: usize,
    /// Seconds.
    run: f64,
}

impl Bounds {
    /// The most urgent rows, as many as are allowed together.
    fn prefix(&self, mut window: Vec<Job>, cost: &CostModel) -> Vec<Job> {
        let mut longest = 0;
        let allowed = window.iter().enumerate().take_while(|(before, job)| {
            longest = longest.max(job.tokens);
            self.allow(cost, before + 1, longest)
        });
        let rows = allowed.count();
        window.truncate(rows);
        window
    }

    /// A row alone is always allowed.
    fn allow(&self, cost: &CostModel, rows: usize, longest: u32) -> bool {
        rows == 1
            || rows <= self.rows
                && rows * longest as usize <= self.tokens
                && cost.predict(Modality::Text, rows, longest).as_secs_f64() <= self.run
    }
}

/// Of `window`, the most urgent first: the first, and what runs well together with it. Most urgent first.
fn like_the_first(window: &[Job], cost: &CostModel, bounds: Bounds) -> Vec<Job> {
    // Of equal rows the most urgent come last, so that a run that ends among them takes those.
    let mut by_length: Vec<usize> = (0..window.len()).collect();
    by_length.sort_unstable_by_key(|rank| (window[*rank].tokens, Reverse(*rank)));
    let Some(first) = by_length.iter().position(|rank| *rank == 0) else { return Vec::new() };

    let tokens = |place: usize| window[by_length[place]].tokens;
    let mut best = (0.0, first..=first);
    for end in first..by_length.len() {
        if end + 1 < by_length.len() && tokens(end) == tokens(end + 1) {
            continue;
        }
        let longest = tokens(end);
        let mut useful = 0.0;
        for start in (0..=end).rev() {
            let rows = end - start + 1;
            if !bounds.allow(cost, rows, longest) {
                break;
            }
            useful += f64::from(tokens(start));
            if start <= first {
                // Tokens of text per second.
                let speed = useful / cost.price(Modality::Text, rows, longest);
                if speed > best.0 {
                    best = (speed, start..=end);
                }
            }
        }
    }
    let mut ranks: Vec<usize> = by_length[best.1].to_vec();
    ranks.sort_unstable();
    ranks.into_iter().map(|rank| window[rank]).collect()
}
