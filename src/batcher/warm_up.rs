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
use crate::scheduler::cost::Measurement;

/// Tokens of a caption of a few words: beside the longest texts, the other point of the cost model.
const SHORT_TEXT: usize = 8;

/// A warm-up batch that takes longer is not run again.
const LONG_RUN: Duration = Duration::from_millis(250);

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
        self.batches(&buckets)
            .map(|batch| {
                input.fill(&batch)?;
                self.measure(engine, input)
            })
            .collect()
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

    /// Times a batch. The first run of a shape pays for allocation and compilation, so it counts only
    /// where a second one would take long.
    fn measure(&self, engine: &mut dyn Engine, input: &Input) -> Result<Measurement, Lost> {
        let mut timed = || -> Result<Duration, Lost> {
            let start = self.clock.now();
            caught(|| engine.run(input))??;
            Ok(self.clock.now().since(start))
        };
        let first = timed()?;
        let elapsed = if first < LONG_RUN { timed()? } else { first };
        let (modality, rows, tokens) = (input.modality(), input.rows(), input.longest());
        Ok(Measurement { modality, rows, tokens, elapsed })
    }
}
