//! The first batches of a worker: every kind that serves as a point of the cost model.
//!
//! The first use of a shape is slow, and the scheduler learns what a batch costs. Where an engine has buckets, these
//! are the points, and all of them are warm before the worker is ready.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::Options;
use super::lost::{Lost, caught};
use crate::clip::row::{ImageRow, TokenRow};
use crate::clock::Clock;
use crate::engine::buckets::{Buckets, doubling};
use crate::engine::input::Input;
use crate::engine::{Batch, Engine};
use crate::modality::{ByModality, Modality};
use crate::scheduler::cost::Measurement;

/// A batch that takes longer, as less work has told, is run once.
const LONG_RUN: Duration = Duration::from_millis(250);

/// A batch is timed so often at most, and not again once these runs have taken [`TIMED`] together. The fastest counts:
/// other programs, and a device that wakes up, only ever slow a run down.
const RUNS: usize = 5;
const TIMED: Duration = Duration::from_millis(50);

pub(super) struct WarmUp {
    max_batch_size: ByModality<NonZeroUsize>,
    /// The scheduler makes no batch of several rows that runs longer.
    longest_run: Duration,
    text_lengths: Vec<usize>,
    image_row_bytes: usize,
    clock: Clock,
}

impl WarmUp {
    pub(super) fn new(options: &Options) -> WarmUp {
        WarmUp {
            max_batch_size: options.settings.max_batch_size,
            longest_run: options.settings.interactive_target,
            text_lengths: options.text_lengths.clone(),
            image_row_bytes: options.image_row_bytes,
            clock: options.clock,
        }
    }

    /// Runs batches of zeros of rising size, and times them. Where an engine runs any size, those are left out of
    /// which less has taken longer than any batch may.
    pub(super) fn run(&self, engine: &mut dyn Engine, input: &mut Input) -> Result<Vec<Measurement>, Lost> {
        let mut measurements = Vec::new();
        let every = engine.buckets().is_some();
        for batch in self.batches(&self.buckets(engine)) {
            let (modality, rows) = (batch.modality(), batch.rows());
            let tokens = u32::try_from(batch.longest()).unwrap_or(u32::MAX);
            let at_least = at_least(&measurements, modality, rows, tokens);
            if !every && rows > 1 && at_least > self.longest_run {
                continue;
            }
            input.fill(&batch)?;
            let elapsed = measure(at_least, || {
                let start = self.clock.now();
                caught(|| engine.run(input))??;
                Ok(engine.declared(input).unwrap_or_else(|| self.clock.now().since(start)))
            })?;
            measurements.push(Measurement { modality, rows, tokens, elapsed });
        }
        Ok(measurements)
    }

    /// Runs the same batches once, for another input whose buckets are to be recorded.
    pub(super) fn record(&self, engine: &mut dyn Engine, input: &mut Input) -> Result<(), Lost> {
        self.batches(&self.buckets(engine)).try_for_each(|batch| {
            input.fill(&batch)?;
            caught(|| engine.run(input))??;
            Ok(())
        })
    }

    /// Those of the engine, or else the points of the cost model.
    fn buckets(&self, engine: &dyn Engine) -> Buckets {
        engine.buckets().cloned().unwrap_or_else(|| Buckets {
            rows: ByModality {
                image: doubling(self.max_batch_size.image.get()),
                text: doubling(self.max_batch_size.text.get()),
            },
            lengths: self.text_lengths.clone(),
        })
    }

    fn batches(&self, buckets: &Buckets) -> impl Iterator<Item = Batch> {
        let images = buckets.rows.image.iter().map(|rows| {
            let row = ImageRow(vec![0; self.image_row_bytes].into());
            Batch::Images(vec![row; *rows])
        });
        let texts = buckets.rows.text.iter().flat_map(|rows| {
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
    use ndarray::Array2;

    use super::*;
    use crate::engine::{Description, EngineError};

    const SLOW: Duration = Duration::from_secs(2);
    const THREE: NonZeroUsize = NonZeroUsize::new(3).unwrap();

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

    /// Has buckets, and keeps what it ran.
    struct Recorder {
        buckets: Buckets,
        ran: Vec<(Modality, usize, u32)>,
        description: Description,
    }

    impl Engine for Recorder {
        fn input(&mut self) -> Result<Input, EngineError> {
            Ok(Input::new(None, 0))
        }

        fn run(&mut self, input: &Input) -> Result<Array2<f32>, EngineError> {
            self.ran.push((input.modality(), input.rows(), input.longest()));
            Ok(Array2::zeros([input.rows(), 1]))
        }

        fn buckets(&self) -> Option<&Buckets> {
            Some(&self.buckets)
        }

        fn stages(&self) -> bool {
            true
        }

        fn description(&self) -> &Description {
            &self.description
        }
    }

    #[test]
    fn every_bucket_is_recorded_and_those_of_another_input_only_once() {
        let word = || "recorder".to_owned();
        let mut engine = Recorder {
            buckets: Buckets { rows: ByModality::both(vec![1, 3]), lengths: vec![5, 9] },
            ran: Vec::new(),
            description: Description { device: word(), engine: word(), precision: word() },
        };
        let warm_up = WarmUp {
            max_batch_size: ByModality::both(THREE),
            longest_run: SLOW,
            text_lengths: vec![9],
            image_row_bytes: 12,
            clock: Clock::start(),
        };
        let images = [1, 3].map(|rows| (Modality::Image, rows, 0));
        let texts = [(1, 5), (1, 9), (3, 5), (3, 9)].map(|(rows, tokens)| (Modality::Text, rows, tokens));
        let buckets = [images.as_slice(), &texts].concat();

        let mut input = engine.input().unwrap();
        let measured = warm_up.run(&mut engine, &mut input).unwrap_or_else(|Lost(error)| panic!("{error}"));
        let measured = measured.iter().map(|each| (each.modality, each.rows, each.tokens));
        assert_eq!(measured.collect::<Vec<_>>(), buckets);
        engine.ran.clear();
        warm_up.record(&mut engine, &mut input).unwrap_or_else(|Lost(error)| panic!("{error}"));
        assert_eq!(engine.ran, buckets);
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
