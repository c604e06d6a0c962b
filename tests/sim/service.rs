//! How long the simulated workers really run, and what their warm-up reports.
//!
//! The truth is a straight line over the work of a batch, times noise. The report may be wrong by a factor
//! per modality, so that promises which must not depend on a good cost model are tried with a bad one.

use std::num::NonZeroUsize;
use std::time::Duration;

use clipd::modality::{ByModality, Modality};
use clipd::scheduler::cost::{CostModel, Measurement, Sizes};
use clipd::scheduler::workers::DeviceId;

use crate::rng::Rng;

/// CLIP's context length, the longest text row.
pub(crate) const MAX_TOKENS: u32 = 77;

/// Lengths that texts are padded to on devices with buckets, beside the number of rows.
const BUCKETS: [u32; 3] = [8, 24, MAX_TOKENS];

fn doubling(most: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1), |rows| Some(rows * 2)).take_while(move |rows| *rows <= most)
}

fn bucket(tokens: u32) -> u32 {
    BUCKETS.into_iter().find(|bucket| *bucket >= tokens).unwrap_or(MAX_TOKENS)
}

#[derive(Clone, Debug)]
pub(crate) struct Service {
    /// Indexed by `Modality::index`.
    curves: [Curve; 2],
    /// A run takes the true mean times 1 - noise to 1 + noise.
    noise: f64,
    /// Reported run time over true mean, indexed by `Modality::index`.
    skew: [f64; 2],
    /// What a run takes on a device over what it takes on the first, indexed by `DeviceId`.
    slowness: Vec<f64>,
    sizes: Sizes,
    /// Runs last a multiple of this, so that several events fall on one instant. At least a nanosecond.
    pub(crate) grain: Duration,
}

/// Seconds.
#[derive(Clone, Copy, Debug)]
struct Curve {
    per_batch: f64,
    /// Per image, or per padded token of a text batch.
    per_work: f64,
}

impl Service {
    pub(crate) fn draw(rng: &mut Rng, grain: Duration, devices: usize) -> Service {
        let image = Curve { per_batch: rng.magnitude(1e-4, 1e-2), per_work: rng.magnitude(5e-5, 2.5e-2) };
        let text = Curve { per_batch: rng.magnitude(1e-4, 5e-3), per_work: rng.magnitude(1e-6, 1e-4) };
        let noise = if rng.chance(0.5) { rng.between(0.0, 0.5) } else { 0.0 };
        let wrong = rng.chance(0.3);
        let skew = [0, 1].map(|_| if wrong { rng.magnitude(0.25, 4.0) } else { 1.0 });
        let sizes = rng.pick(&[Sizes::Any, Sizes::Any, Sizes::Buckets]);
        let alike = rng.chance(0.3);
        let slower = |device| if device == 0 || alike { 1.0 } else { rng.magnitude(0.2, 5.0) };
        let slowness = (0..devices).map(slower).collect();
        Service { curves: [image, text], noise, skew, slowness, sizes, grain }
    }

    /// Of `batch` on a device; what it says of the time does not count.
    pub(crate) fn run_time(&self, rng: &mut Rng, device: DeviceId, batch: &Measurement) -> Duration {
        let batch = &self.padded(batch);
        let factor = self.slowness[device.0] * rng.between(1.0 - self.noise, 1.0 + self.noise);
        round_up(self.mean(batch.modality, batch.rows, batch.tokens).mul_f64(factor), self.grain)
    }

    /// No run takes longer than this times its predicted cost, plus a grain.
    pub(crate) fn worst_ratio(&self, modality: Modality) -> f64 {
        (1.0 + self.noise) / self.skew[modality.index()]
    }

    /// Batches that a job may wait for beside full ones: what does not fill a bucket is run in smaller ones.
    pub(crate) fn more_batches(&self, max_batch_size: usize) -> f64 {
        match self.sizes {
            Sizes::Any => 0.0,
            Sizes::Buckets => f64::from(max_batch_size.ilog2()),
        }
    }

    /// No run of at most `rows` takes longer.
    pub(crate) fn longest_run(&self, modality: Modality, rows: usize) -> Duration {
        let slowest = self.slowness.iter().copied().fold(0.0, f64::max);
        self.mean(modality, rows, MAX_TOKENS).mul_f64(slowest * (1.0 + self.noise)) + self.grain
    }

    /// As its bucket.
    fn padded(&self, batch: &Measurement) -> Measurement {
        match self.sizes {
            Sizes::Any => *batch,
            Sizes::Buckets => Measurement {
                rows: batch.rows.next_power_of_two(),
                tokens: if batch.modality == Modality::Image { 0 } else { bucket(batch.tokens) },
                ..*batch
            },
        }
    }

    /// What a warm-up measures.
    pub(crate) fn cost(&self, device: DeviceId, max_batch_size: ByModality<NonZeroUsize>) -> CostModel {
        CostModel::new(self.sizes, &self.warm_up(device, max_batch_size))
    }

    /// The corners of what a batch can be, in work; or all buckets.
    fn warm_up(&self, device: DeviceId, max_batch_size: ByModality<NonZeroUsize>) -> Vec<Measurement> {
        let sizes = |modality| match (self.sizes, modality, max_batch_size[modality].get()) {
            (Sizes::Any, Modality::Image, max) => vec![(1, 0), (max, 0)],
            (Sizes::Any, Modality::Text, max) => vec![(1, 1), (max, MAX_TOKENS)],
            (Sizes::Buckets, Modality::Image, max) => doubling(max).map(|rows| (rows, 0)).collect(),
            (Sizes::Buckets, Modality::Text, max) => {
                doubling(max).flat_map(|rows| BUCKETS.map(|tokens| (rows, tokens))).collect()
            }
        };
        let measure = |modality: Modality, (rows, tokens): (usize, u32)| {
            let skew = self.skew[modality.index()] * self.slowness[device.0];
            let elapsed = self.mean(modality, rows, tokens).mul_f64(skew);
            Measurement { modality, rows, tokens, elapsed }
        };
        let all = Modality::ALL.into_iter();
        all.flat_map(|modality| sizes(modality).into_iter().map(move |size| measure(modality, size)))
            .collect()
    }

    /// The true mean on the first device.
    pub(crate) fn mean(&self, modality: Modality, rows: usize, longest: u32) -> Duration {
        let Curve { per_batch, per_work } = self.curves[modality.index()];
        let work = match modality {
            Modality::Image => rows as f64,
            Modality::Text => rows as f64 * f64::from(longest),
        };
        Duration::from_secs_f64(per_batch + per_work * work)
    }
}

/// The next multiple of `grain`.
pub(crate) fn round_up(duration: Duration, grain: Duration) -> Duration {
    let grain = grain.as_nanos().max(1);
    Duration::from_nanos_u128(duration.as_nanos().div_ceil(grain) * grain)
}
