//! Predicts how long a batch runs: tau(modality, rows, tokens), from measurements of the warm-up.
//!
//! The model is a curve per modality over the work in a batch (rows for images, padded tokens for texts),
//! linear between the measured points.

use std::time::Duration;

use crate::modality::Modality;

/// One batch of the warm-up.
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    pub modality: Modality,
    pub rows: usize,
    /// Length of the longest row; 0 for images.
    pub tokens: u32,
    pub elapsed: Duration,
}

/// The default model predicts zero: nothing is known before the first warm-up.
#[derive(Clone, Debug, Default)]
pub struct CostModel {
    /// Points (work, time) by rising work, indexed by `Modality::index`.
    curves: [Vec<(f64, f64)>; 2],
}

impl CostModel {
    pub fn new(measurements: &[Measurement]) -> CostModel {
        let curves = Modality::ALL.map(|modality| {
            let mut points: Vec<(f64, f64)> = measurements
                .iter()
                .filter(|measurement| measurement.modality == modality)
                .map(|m| (work(modality, m.rows, m.tokens), m.elapsed.as_secs_f64()))
                .collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            points
        });
        CostModel { curves }
    }

    /// Predicted run time of a batch of `rows` whose longest row has `tokens`.
    pub fn predict(&self, modality: Modality, rows: usize, tokens: u32) -> Duration {
        let seconds = interpolate(&self.curves[modality.index()], work(modality, rows, tokens));
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)
    }
}

fn work(modality: Modality, rows: usize, tokens: u32) -> f64 {
    match modality {
        Modality::Image => rows as f64,
        Modality::Text => rows as f64 * f64::from(tokens),
    }
}

/// Constant below the first point, linear between points, and proportional to work beyond the last.
fn interpolate(points: &[(f64, f64)], x: f64) -> f64 {
    let after = points.partition_point(|(work, _)| *work < x);
    match (after.checked_sub(1).map(|before| points[before]), points.get(after)) {
        (None, None) => 0.0,
        (None, Some(first)) => first.1,
        (Some(last), None) => last.1 * x / last.0,
        (Some((x0, y0)), Some((x1, y1))) => y0 + (y1 - y0) * (x - x0) / (x1 - x0),
    }
}
