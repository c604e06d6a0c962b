//! What the sections share: a batcher with one worker, arrivals, and percentiles.

use std::num::NonZeroUsize;
use std::time::Duration;

use clipd::batcher::{Batcher, OpenEngine, Options, Row};
use clipd::clip::row::{ImageRow, TokenRow};
use clipd::clock::Clock;
use clipd::engine::synthetic::{Pace, SyntheticEngine};
use clipd::modality::ByModality;
use clipd::scheduler::Settings;
use clipd::telemetry::metrics::Metrics;
use tokio::sync::watch;

use crate::rng::Rng;

pub(crate) const MAX_BATCH: usize = 16;
/// Small, so that what is measured is not the copying of pixels.
const ROW_BYTES: usize = 12;
const DIM: usize = 16;

/// A batch of sixteen takes 11 ms: 1,454 rows per second, eleven times what single rows give.
pub(crate) const PACE: Pace =
    Pace { per_batch: Duration::from_millis(3), per_row: Duration::from_micros(500) };

pub(crate) fn settings() -> Settings {
    Settings {
        max_batch_size: ByModality::both(NonZeroUsize::new(MAX_BATCH).expect("it is not zero")),
        max_batch_tokens: NonZeroUsize::MAX,
        max_queue_delay: Duration::ZERO,
        max_queue_size: 10_000,
        interactive_target: Duration::from_millis(500),
        bulk_target: Duration::from_secs(3),
    }
}

pub(crate) fn spinning(clock: Clock, pace: Pace) -> OpenEngine {
    OpenEngine::new("cpu", move || Ok(SyntheticEngine::spinning(DIM, clock, pace)))
}

/// A warm batcher around one engine.
pub(crate) async fn batcher(
    clock: Clock,
    settings: Settings,
    engine: OpenEngine,
    row_bytes: usize,
) -> Batcher {
    let options = Options {
        settings,
        text_lengths: vec![8],
        image_row_bytes: row_bytes,
        clock,
        metrics: Metrics::new(),
        workers: watch::Sender::default(),
    };
    let batcher = Batcher::start(options, vec![engine]).expect("threads start");
    let mut workers = batcher.workers();
    workers.wait_for(|workers| workers.counts.ready == 1).await.expect("the batcher runs");
    batcher
}

pub(crate) async fn spinning_batcher(clock: Clock, settings: Settings) -> Batcher {
    batcher(clock, settings, spinning(clock, PACE), ROW_BYTES).await
}

pub(crate) fn image() -> Row {
    Row::Image(ImageRow(vec![7; ROW_BYTES].into()))
}

pub(crate) fn text() -> Row {
    Row::Text(TokenRow(vec![7; 8].into()))
}

/// Times of arrival from the start of a Poisson process.
pub(crate) fn poisson(rate: f64, seconds: f64, seed: u64) -> Vec<Duration> {
    let mut rng = Rng::new(seed);
    let mut at = Duration::ZERO;
    let next = std::iter::repeat_with(|| {
        at += rng.exponential(Duration::from_secs_f64(1.0 / rate));
        at
    });
    next.take_while(|at| at.as_secs_f64() < seconds).collect()
}

pub(crate) fn mean(times: &[Duration]) -> Duration {
    times.iter().sum::<Duration>() / times.len().max(1) as u32
}

/// Sorts them.
pub(crate) fn percentile(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    times.get((times.len() as f64 * share) as usize).or(times.last()).copied().unwrap_or_default()
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
