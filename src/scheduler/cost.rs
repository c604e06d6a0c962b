//! Predicts how long a batch runs: tau(modality, rows, tokens), measured at the warm-up, corrected in service.
//!
//! The model is a curve per modality over the work in a batch (rows for images, padded tokens for texts),
//! linear between the measured points. A batch that has run moves the points beside it a little.

use std::time::Duration;

use crate::modality::Modality;

/// Share of a new observation in the point beside it: after some twenty batches the old value is forgotten.
const LEARNING_RATE: f64 = 0.1;

/// An observation counts as at most this many times the prediction, and at least its inverse: one batch that was
/// held up by something else moves a point by a tenth.
const OUTLIER: f64 = 2.0;

/// A batch size within this factor of the best time per row is as good: then the smaller one answers sooner.
const AS_GOOD: f64 = 1.01;

/// What a batch takes beside its run: two channels and the scheduler's decision. Measured; it only matters where
/// a batch runs for less than a few milliseconds.
const HAND_OVER: Duration = Duration::from_micros(50);

/// One batch that has run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measurement {
    pub modality: Modality,
    pub rows: usize,
    /// Length of the longest row; 0 for images.
    pub tokens: u32,
    pub elapsed: Duration,
}

/// The default model predicts zero: nothing is known before the first warm-up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CostModel {
    /// By rising work, indexed by `Modality::index`.
    curves: [Vec<Point>; 2],
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    work: f64,
    seconds: f64,
    /// What was measured here first.
    rows: usize,
    tokens: u32,
}

impl CostModel {
    pub fn new(measurements: &[Measurement]) -> CostModel {
        let curves = Modality::ALL.map(|modality| {
            let mut points: Vec<Point> =
                measurements.iter().filter(|each| each.modality == modality).map(Point::new).collect();
            points.sort_by(|a, b| a.work.total_cmp(&b.work));
            for index in 0..points.len() {
                straighten(&mut points, index);
            }
            points
        });
        CostModel { curves }
    }

    /// Predicted run time of a batch of `rows` whose longest row has `tokens`.
    pub fn predict(&self, modality: Modality, rows: usize, tokens: u32) -> Duration {
        let seconds = interpolate(&self.curves[modality.index()], work(modality, rows, tokens));
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)
    }

    /// Learns from a batch in service.
    pub fn observe(&mut self, batch: &Measurement) {
        let points = &mut self.curves[batch.modality.index()];
        let x = work(batch.modality, batch.rows, batch.tokens);
        let predicted = interpolate(points, x);
        if predicted <= 0.0 {
            return;
        }
        let ratio = (batch.elapsed.as_secs_f64() / predicted).clamp(1.0 / OUTLIER, OUTLIER);
        for (index, nearness) in neighbours(points, x) {
            points[index].seconds *= 1.0 + LEARNING_RATE * nearness * (ratio - 1.0);
            straighten(points, index);
        }
    }

    /// What a batch occupies a worker for: its run, and the way to the worker and back.
    pub(super) fn price(&self, modality: Modality, rows: usize, tokens: u32) -> f64 {
        (self.predict(modality, rows, tokens) + HAND_OVER).as_secs_f64()
    }

    /// The fewest images that give about the most images per second, among 1 to `max_rows` that run no longer
    /// than `longest`. Bigger is not always better: on CPUs a few rows may already be the best.
    pub fn best_images(&self, max_rows: usize, longest: Duration) -> usize {
        let per_row = |rows: usize| self.price(Modality::Image, rows, 0) / rows as f64;
        let bounded = |rows: &usize| *rows == 1 || self.predict(Modality::Image, *rows, 0) <= longest;
        let best = (1..=max_rows).filter(bounded).map(per_row).fold(f64::INFINITY, f64::min);
        (1..=max_rows).filter(bounded).find(|rows| per_row(*rows) <= best * AS_GOOD).unwrap_or(max_rows)
    }

    /// Every point of the model as a batch of that size, with what it takes now.
    pub fn points(&self) -> impl Iterator<Item = Measurement> {
        Modality::ALL.into_iter().flat_map(|modality| {
            self.curves[modality.index()].iter().map(move |point| Measurement {
                modality,
                rows: point.rows,
                tokens: point.tokens,
                elapsed: Duration::try_from_secs_f64(point.seconds).unwrap_or(Duration::ZERO),
            })
        })
    }
}

impl Point {
    fn new(measurement: &Measurement) -> Point {
        let Measurement { modality, rows, tokens, elapsed } = *measurement;
        Point { work: work(modality, rows, tokens), seconds: elapsed.as_secs_f64(), rows, tokens }
    }
}

/// More work never takes less time: what the point at `index` says counts for those that contradict it.
fn straighten(points: &mut [Point], index: usize) {
    let seconds = points[index].seconds;
    for (other, point) in points.iter_mut().enumerate() {
        point.seconds = if other < index { point.seconds.min(seconds) } else { point.seconds.max(seconds) };
    }
}

fn work(modality: Modality, rows: usize, tokens: u32) -> f64 {
    match modality {
        Modality::Image => rows as f64,
        Modality::Text => rows as f64 * f64::from(tokens),
    }
}

/// Constant below the first point, linear between points, and proportional to work beyond the last.
fn interpolate(points: &[Point], x: f64) -> f64 {
    let beyond = points.last().map_or(1.0, |last| (x / last.work).max(1.0));
    let on_curve: f64 = neighbours(points, x).map(|(index, nearness)| nearness * points[index].seconds).sum();
    on_curve * beyond
}

/// The points on both sides of `x`, by index, with how much each counts there; the counts add up to 1.
fn neighbours(points: &[Point], x: f64) -> impl Iterator<Item = (usize, f64)> + use<> {
    let after = points.partition_point(|point| point.work < x);
    let (before, after) = match (after.checked_sub(1), after < points.len()) {
        (None, false) => (None, None),
        (None, true) => (None, Some((after, 1.0))),
        (Some(last), false) => (Some((last, 1.0)), None),
        (Some(before), true) => {
            let (x0, x1) = (points[before].work, points[after].work);
            let nearness = (x - x0) / (x1 - x0);
            (Some((before, 1.0 - nearness)), Some((after, nearness)))
        }
    };
    before.into_iter().chain(after)
}
