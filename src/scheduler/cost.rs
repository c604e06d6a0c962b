//! Predicts how long a batch runs: tau(modality, rows, tokens), measured at the warm-up, corrected in service.
//!
//! The model is a curve per modality over the work in a batch (rows for images, padded tokens for texts),
//! linear between the measured points. A batch that has run moves the points beside it a little. Each curve knows by
//! how much it is usually wrong: images of one size may be predictable where texts of many shapes are not.
//!
//! Where a device runs batches of certain sizes only (*buckets*), the curve has steps instead: every bucket is a
//! measured point, and what is smaller is padded up to it.

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

/// Which batches a device runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sizes {
    /// Of any size.
    #[default]
    Any,
    /// Of the measured sizes; smaller ones are padded.
    Buckets,
}

/// The default model predicts zero: nothing is known before the first warm-up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CostModel {
    sizes: Sizes,
    /// Indexed by `Modality::index`.
    curves: [Curve; 2],
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Curve {
    /// By rising work, or by rows and then tokens where these are buckets.
    points: Vec<Point>,
    /// See [`CostModel::error`].
    error: f64,
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
    pub fn new(sizes: Sizes, measurements: &[Measurement]) -> CostModel {
        let curves = Modality::ALL.map(|modality| {
            let mut points: Vec<Point> =
                measurements.iter().filter(|each| each.modality == modality).map(Point::new).collect();
            match sizes {
                Sizes::Any => points.sort_by(|a, b| a.work.total_cmp(&b.work)),
                Sizes::Buckets => points.sort_by_key(|point| (point.rows, point.tokens)),
            }
            for index in 0..points.len() {
                sizes.straighten(&mut points, index);
            }
            Curve { points, error: 0.0 }
        });
        CostModel { sizes, curves }
    }

    /// Whether there was a warm-up.
    pub fn is_measured(&self) -> bool {
        self.curves.iter().any(|curve| !curve.points.is_empty())
    }

    /// Predicted run time of a batch of `rows` whose longest row has `tokens`.
    pub fn predict(&self, modality: Modality, rows: usize, tokens: u32) -> Duration {
        let points = &self.curves[modality.index()].points;
        let seconds = self.sizes.interpolate(points, Size::new(modality, rows, tokens));
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)
    }

    /// Learns from a batch in service.
    pub fn observe(&mut self, batch: &Measurement) {
        let (sizes, Curve { points, error }) = (self.sizes, &mut self.curves[batch.modality.index()]);
        let size = Size::new(batch.modality, batch.rows, batch.tokens);
        let predicted = sizes.interpolate(points, size);
        if predicted <= 0.0 {
            return;
        }
        let ratio = (batch.elapsed.as_secs_f64() / predicted).clamp(1.0 / OUTLIER, OUTLIER);
        *error += LEARNING_RATE * ((ratio - 1.0).abs() - *error);
        for (index, nearness) in sizes.neighbours(points, size).into_iter().flatten() {
            points[index].seconds *= 1.0 + LEARNING_RATE * nearness * (ratio - 1.0);
            sizes.straighten(points, index);
        }
    }

    /// The share of a prediction by which runs differ from it, on average.
    pub fn error(&self, modality: Modality) -> f64 {
        self.curves[modality.index()].error
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

    /// How many of `waiting` images run now, if so few wait that they do not make the best batch: all of them, or as
    /// many as fill a smaller bucket, where padding costs more than another batch for the rest.
    pub fn images_now(&self, waiting: usize) -> usize {
        let price = |rows: usize| self.price(Modality::Image, rows, 0);
        match self.bucket_below(waiting) {
            Some(bucket) if price(bucket) + price(waiting - bucket) < price(waiting) => bucket,
            _ => waiting,
        }
    }

    /// The largest bucket of images that fewer than `rows` fill, if `rows` fill none.
    fn bucket_below(&self, rows: usize) -> Option<usize> {
        let points = &self.curves[Modality::Image.index()].points;
        let above = points.partition_point(|point| point.rows < rows);
        let between = self.sizes == Sizes::Buckets && points.get(above).is_none_or(|point| point.rows > rows);
        above.checked_sub(1).filter(|_| between).map(|below| points[below].rows)
    }

    /// Every point of the model as a batch of that size, with what it takes now.
    pub fn points(&self) -> impl Iterator<Item = Measurement> {
        Modality::ALL.into_iter().flat_map(|modality| {
            self.curves[modality.index()].points.iter().map(move |point| Measurement {
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
        let Size { work, .. } = Size::new(modality, rows, tokens);
        Point { work, seconds: elapsed.as_secs_f64(), rows, tokens }
    }
}

/// Of a batch.
#[derive(Clone, Copy)]
struct Size {
    rows: usize,
    tokens: u32,
    work: f64,
}

impl Size {
    fn new(modality: Modality, rows: usize, tokens: u32) -> Size {
        match modality {
            Modality::Image => Size { rows, tokens: 0, work: rows as f64 },
            Modality::Text => Size { rows, tokens, work: rows as f64 * f64::from(tokens) },
        }
    }
}

impl Sizes {
    /// Constant below the first point, linear or in steps between points, and proportional to work beyond the last.
    fn interpolate(self, points: &[Point], size: Size) -> f64 {
        let beyond = points.last().map_or(1.0, |last| (size.work / last.work).max(1.0));
        let near = self.neighbours(points, size).into_iter().flatten();
        near.map(|(index, nearness)| nearness * points[index].seconds).sum::<f64>() * beyond
    }

    /// The points that count for a size, by index, with how much each counts there; this adds up to 1.
    fn neighbours(self, points: &[Point], size: Size) -> [Option<(usize, f64)>; 2] {
        let last = points.len().checked_sub(1);
        if self == Sizes::Buckets {
            let row = points.partition_point(|point| point.rows < size.rows);
            let rows = points.get(row).map_or(0, |point| point.rows);
            let column =
                points[row..].partition_point(|point| point.rows == rows && point.tokens < size.tokens);
            return [last.map(|last| ((row + column).min(last), 1.0)), None];
        }
        let after = points.partition_point(|point| point.work < size.work);
        match (after.checked_sub(1), after < points.len()) {
            (None, false) => [None, None],
            (None, true) => [None, Some((after, 1.0))],
            (Some(last), false) => [Some((last, 1.0)), None],
            (Some(before), true) => {
                let (x0, x1) = (points[before].work, points[after].work);
                let nearness = (size.work - x0) / (x1 - x0);
                [Some((before, 1.0 - nearness)), Some((after, nearness))]
            }
        }
    }

    /// More work never takes less time: what the point at `index` says counts for those that contradict it. Of two
    /// buckets, one is more work if it has neither fewer rows nor fewer tokens.
    fn straighten(self, points: &mut [Point], index: usize) {
        let this = points[index];
        for (other, point) in points.iter_mut().enumerate() {
            let (less, more) = match self {
                Sizes::Any => (other < index, other > index),
                Sizes::Buckets => (
                    point.rows <= this.rows && point.tokens <= this.tokens,
                    point.rows >= this.rows && point.tokens >= this.tokens,
                ),
            };
            if less {
                point.seconds = point.seconds.min(this.seconds);
            } else if more {
                point.seconds = point.seconds.max(this.seconds);
            }
        }
    }
}
