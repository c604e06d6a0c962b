//! Which jobs run together.
//!
//! Images: the most urgent, as many as run best; if fewer wait, and a device has buckets, all that wait or as many as
//! fill one. Texts: rows of like length, so that little of a batch is padding, since a row is padded to the longest of
//! its batch, and padding costs as much as text. The most urgent row is always taken; the others are those with which
//! the batch computes the most tokens of text per second.

use std::cmp::Reverse;
use std::time::Duration;

use super::Job;
use super::cost::CostModel;
use super::queue::Queue;
use crate::clock::Timestamp;
use crate::modality::Modality;

/// Texts are grouped by length among this many full batches, the most urgent ones.
const WINDOW: usize = 4;

/// The images that run together next, where `best` run best together. Those of no later deadline than `hopeless` are
/// left out.
pub(super) fn images(queue: &Queue, hopeless: Timestamp, cost: &CostModel, best: usize) -> Vec<Job> {
    let live = queue.live(hopeless);
    jobs(queue.window(if live < best { cost.images_now(live) } else { best }, hopeless))
}

/// The texts that run together next; again without the hopeless.
pub(super) fn texts(
    queue: &Queue,
    hopeless: Timestamp,
    cost: &CostModel,
    bounds: Bounds,
    now: Timestamp,
) -> Vec<Job> {
    let window = queue.window(WINDOW * bounds.rows, hopeless);
    match window.first() {
        // Nothing that is overdue waits for its like.
        Some((due, _)) if *due <= now => bounds.prefix(jobs(window), cost),
        _ => like_the_first(&jobs(window), cost, bounds),
    }
}

fn jobs(window: Vec<(Timestamp, Job)>) -> Vec<Job> {
    window.into_iter().map(|(_, job)| job).collect()
}

/// What a batch of texts may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) rows: usize,
    /// Rows times the longest.
    pub(super) tokens: usize,
    pub(super) run: Duration,
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
                && cost.predict(Modality::Text, rows, longest) <= self.run
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
