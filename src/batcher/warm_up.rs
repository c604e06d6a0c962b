//! The first batches of a worker: every kind that serves as a point of the cost model.
//!
//! The first use of a shape is slow, and the scheduler learns what a batch costs. Where an engine has buckets, these
//! are the points, and all of them are warm before the worker is ready.

use std::time::Duration;

use super::Options;
use super::worker::{Lost, caught};
use crate::clip::row::{ImageRow, TokenRow};
use crate::clock::Clock;
use crate::engine::buckets::{Buckets, doubling};
use crate::engine::input::Input;
use crate::engine::{Batch, Engine};
use crate::modality::Modality;
use crate::scheduler::cost::Measurement;

/// Tokens of a caption of a few words: beside the longest texts, the other point of the cost model.
const SHORT_TEXT: usize = 8;

/// A batch that takes longer is run once.
const LONG_RUN: Duration = Duration::from_millis(250);

/// A batch is timed so often at most, and not again once these runs have taken [`TIMED`] together. The fastest counts:
/// other programs, and a device that wakes up, only ever slow a run down.
const RUNS: usize = 5;
const TIMED: Duration = Duration::from_millis(50);

pub(super) struct WarmUp {
    max_batch_size: usize,
    context_length: usize,
    image_row_bytes: usize,
    clock: Clock,
}

impl WarmUp {
    pub(super) fn new(options: &Options) -> WarmUp {
        WarmUp {
            max_batch_size: options.settings.max_batch_size.get(),
            context_length: options.context_length,
            image_row_bytes: options.image_row_bytes,
            clock: options.clock,
        }
    }

    /// Runs batches of zeros of rising size.
    pub(super) fn run(&self, engine: &mut dyn Engine, input: &mut Input) -> Result<Vec<Measurement>, Lost> {
        let lengths = vec![self.context_length.min(SHORT_TEXT), self.context_length];
        let points = || Buckets { rows: doubling(self.max_batch_size), lengths };
        let buckets = engine.buckets().cloned().unwrap_or_else(points);
        let mut measurements = Vec::new();
        for batch in self.batches(&buckets) {
            input.fill(&batch)?;
            let (modality, rows, tokens) = (input.modality(), input.rows(), input.longest());
            let elapsed = measure(at_least(&measurements, modality, rows, tokens), || {
                let start = self.clock.now();
                caught(|| engine.run(input))??;
                Ok(self.clock.now().since(start))
            })?;
            measurements.push(Measurement { modality, rows, tokens, elapsed });
        }
        Ok(measurements)
    }

    fn batches(&self, buckets: &Buckets) -> impl Iterator<Item = Batch> {
        let images = buckets.rows.iter().map(|rows| {
            let row = ImageRow(vec![0; self.image_row_bytes].into());
            Batch::Images(vec![row; *rows])
        });
        let texts = buckets.rows.iter().flat_map(|rows| {
            buckets.lengths.iter().map(|length| {
                let row = TokenRow(vec![0; *length].into());
                Batch::Texts(vec![row; *rows])
            })
        });
        images.chain(texts)
    }
}

/// What a batch takes, from what less work has taken: more work takes no less.
fn at_least(measurements: &[Measurement], modality: Modality, rows: usize, tokens: u32) -> Duration {
    let less = |each: &&Measurement| each.modality == modality && each.rows <= rows && each.tokens <= tokens;
    measurements.iter().filter(less).map(|each| each.elapsed).max().unwrap_or_default()
}

/// What `run` takes, which runs a batch and times it. The first run of a shape pays for allocation, compilation and
/// recording, on a GPU a hundred times what the next takes. So it counts only where the batch takes long anyway.
fn measure(at_least: Duration, mut run: impl FnMut() -> Result<Duration, Lost>) -> Result<Duration, Lost> {
    let first = run()?;
    if at_least >= LONG_RUN {
        return Ok(first);
    }
    let mut fastest = Duration::MAX;
    let mut timed = Duration::ZERO;
    for _ in 0..RUNS {
        let elapsed = run()?;
        fastest = fastest.min(elapsed);
        timed += elapsed;
        if timed >= TIMED {
            break;
        }
    }
    Ok(fastest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Duration = Duration::from_secs(2);

    /// What a batch is taken to take whose runs take so many milliseconds, and how many runs that needs.
    fn measured(at_least: Duration, milliseconds: &[u64]) -> (Duration, usize) {
        let mut runs = 0;
        let elapsed = measure(at_least, || {
            runs += 1;
            Ok(Duration::from_millis(milliseconds[runs - 1]))
        });
        (elapsed.unwrap_or_else(|Lost(error)| panic!("{error}")), runs)
    }

    #[test]
    fn a_first_run_that_records_and_runs_that_are_disturbed_do_not_count() {
        let fastest = Duration::from_millis(3);
        assert_eq!(measured(Duration::ZERO, &[400, 5, 4, 3, 9, 4]), (fastest, 1 + RUNS));
        assert_eq!(measured(fastest, &[900, 3, 60]), (fastest, 3), "no more than fifty milliseconds");
    }

    #[test]
    fn a_long_run_is_not_repeated() {
        assert_eq!(measured(SLOW, &[3000]), (Duration::from_secs(3), 1));
        assert_eq!(measured(Duration::ZERO, &[2500, 2000]), (SLOW, 2), "nothing was known of it");
    }

    #[test]
    fn less_work_says_what_more_takes_at_least() {
        let measurement = |modality, rows, tokens, seconds| Measurement {
            modality,
            rows,
            tokens,
            elapsed: Duration::from_secs(seconds),
        };
        let known = [
            measurement(Modality::Image, 1, 0, 7),
            measurement(Modality::Text, 1, 8, 1),
            measurement(Modality::Text, 1, 77, 2),
            measurement(Modality::Text, 2, 8, 1),
        ];
        assert_eq!(at_least(&known, Modality::Text, 2, 77), SLOW);
        assert_eq!(at_least(&known, Modality::Text, 4, 8), Duration::from_secs(1));
        assert_eq!(at_least(&[], Modality::Image, 1, 0), Duration::ZERO);
    }
}
