//! Flags that suit this machine, from what its engine did.
//!
//! Pure. It recommends what was measured, and leaves a default alone where the difference may be noise.

use serde::Serialize;

use super::bank::Layout;
use super::ceiling::{Ceiling, Point};

/// Batches that are smaller answer sooner; a rate this much below the best is worth it.
const NEARLY_THE_BEST: f64 = 0.97;

/// Flags of `serve`, each with its reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Recommendation {
    pub(super) flags: String,
    pub(super) reasons: Vec<String>,
}

/// By images, which cost the most; by texts where only these were measured.
pub(super) fn recommend(ceiling: &Ceiling) -> Option<Recommendation> {
    let first = ceiling.engine.first()?;
    let modality = first.modality;
    let of_layout = |layout: Layout| -> Vec<&Point> {
        ceiling.engine.iter().filter(|point| point.layout == layout && point.modality == modality).collect()
    };
    let mut layouts: Vec<Layout> = Vec::new();
    for point in &ceiling.engine {
        if !layouts.contains(&point.layout) {
            layouts.push(point.layout);
        }
    }
    let mut chosen = best(&of_layout(ceiling.layout))?;
    let mut reasons = Vec::new();
    for layout in layouts.into_iter().filter(|layout| *layout != ceiling.layout) {
        let other = best(&of_layout(layout))?;
        let difference = other.rows_per_second.median / chosen.rows_per_second.median - 1.0;
        // Faster for sure: its slowest round beats the fastest of the other.
        let better =
            other.rows_per_second.min > chosen.rows_per_second.max && difference > 1.0 - NEARLY_THE_BEST;
        reasons.push(format!(
            "{} gives {:+.0} % {modality}s/s compared with {}{}",
            name(layout),
            difference * 100.0,
            name(chosen.layout),
            if better { "" } else { ", which is not enough to change" },
        ));
        if better {
            chosen = other;
        }
    }
    let enough = chosen.rows_per_second.median * NEARLY_THE_BEST;
    let points = of_layout(chosen.layout);
    let batch = points.into_iter().find(|point| point.rows_per_second.median >= enough)?;
    reasons.push(format!(
        "batches of {} give {:.0} {modality}s/s in {:.1} ms; the best, {}, gives {:.0} in {:.1} ms",
        batch.batch_size,
        batch.rows_per_second.median,
        batch.batch_seconds.median * 1e3,
        chosen.batch_size,
        chosen.rows_per_second.median,
        chosen.batch_seconds.median * 1e3,
    ));
    let Layout { workers, threads } = chosen.layout;
    let flags = format!("--workers {workers} --threads {threads} --max-batch-size {}", batch.batch_size);
    Some(Recommendation { flags, reasons })
}

fn best<'a>(points: &[&'a Point]) -> Option<&'a Point> {
    points.iter().copied().max_by(|a, b| a.rows_per_second.median.total_cmp(&b.rows_per_second.median))
}

fn name(layout: Layout) -> String {
    format!("{} x {}", layout.workers, layout.threads)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::super::ceiling::Spread;
    use super::*;

    fn layout(workers: usize, threads: usize) -> Layout {
        let count = |number| NonZeroUsize::new(number).unwrap();
        Layout { workers: count(workers), threads: count(threads) }
    }

    /// Rates of batches of 1, 2, 4, ..., give or take 1 %.
    fn points(layout: Layout, rates: &[f64]) -> Vec<Point> {
        let spread = |value: f64| Spread { median: value, min: value * 0.99, max: value * 1.01 };
        let point = |(power, rate): (usize, &f64)| Point {
            layout,
            modality: "image",
            batch_size: 1 << power,
            rows_per_second: spread(*rate),
            batch_seconds: spread((1 << power) as f64 / rate),
            cpu_seconds_per_row: spread(2.0 / rate),
        };
        rates.iter().enumerate().map(point).collect()
    }

    fn check(wide: &[f64], narrow: &[f64], expected: &str) {
        let engine = [points(layout(1, 4), wide), points(layout(4, 1), narrow)].concat();
        let cores = NonZeroUsize::new(4).unwrap();
        let ceiling = Ceiling { cores, rounds: 3, layout: layout(1, 4), engine, workloads: Vec::new() };
        let recommendation = recommend(&ceiling).unwrap();
        assert_eq!(recommendation.flags, expected, "{:?}", recommendation.reasons);
    }

    #[test]
    fn the_smallest_batch_that_is_nearly_the_best() {
        check(&[50.0, 90.0, 98.0, 100.0, 99.0], &[50.0], "--workers 1 --threads 4 --max-batch-size 4");
        check(&[100.0, 80.0, 70.0], &[50.0], "--workers 1 --threads 4 --max-batch-size 1");
        check(&[10.0, 20.0, 40.0], &[30.0], "--workers 1 --threads 4 --max-batch-size 4");
    }

    #[test]
    fn another_layout_if_it_is_better_for_sure() {
        check(&[90.0, 100.0], &[100.0, 120.0], "--workers 4 --threads 1 --max-batch-size 2");
        check(&[90.0, 100.0], &[90.0, 101.5], "--workers 1 --threads 4 --max-batch-size 2");
    }

    #[test]
    fn nothing_measured_nothing_recommended() {
        let cores = NonZeroUsize::MIN;
        let (engine, workloads) = (Vec::new(), Vec::new());
        let ceiling = Ceiling { cores, rounds: 3, layout: layout(1, 1), engine, workloads };
        assert_eq!(recommend(&ceiling), None);
    }
}
