//! Flags that suit this machine, from what its engine did.
//!
//! Pure. It recommends what was measured, and leaves a default alone where the difference may be noise.

use serde::Serialize;

use super::bank::Layout;
use super::ceiling::{Ceiling, Point};
use super::text::number;

/// Batches that are smaller answer sooner; a rate this much below the best is worth it.
const NEARLY_THE_BEST: f64 = 0.97;

/// Flags of `serve`, each with its reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Recommendation {
    pub(super) flags: String,
    pub(super) reasons: Vec<String>,
}

/// The layout that is best for images, which cost the most (or for texts, if only these were measured), and
/// the smallest batches that are nearly the best for every modality: the flag holds for all of them.
pub(super) fn recommend(ceiling: &Ceiling) -> Option<Recommendation> {
    let mut reasons = Vec::new();
    let layout = layout(ceiling, &mut reasons)?;
    let mut size = 0;
    for modality in modalities(ceiling) {
        let points = points(&ceiling.engine, layout, modality);
        let best = best(&points)?;
        let enough = best.rows_per_second.median * NEARLY_THE_BEST;
        let smallest = points.into_iter().find(|point| point.rows_per_second.median >= enough)?;
        size = size.max(smallest.batch_size);
        let beside = if smallest.batch_size == best.batch_size {
            "the most".to_owned()
        } else {
            format!("nearly as much as {} of {}", rate(best), best.batch_size)
        };
        reasons.push(format!(
            "{modality}s: {} in batches of {}, {beside}",
            rate(smallest),
            smallest.batch_size
        ));
    }
    let Layout { workers, threads } = layout;
    let mut flags = format!("--workers-per-device {workers} --threads {threads} --max-batch-size {size}");
    if in_8_bits_is_better(ceiling, layout, &mut reasons) {
        flags += " --device openvino --precision int8";
    }
    Some(Recommendation { flags, reasons })
}

/// For the modality that costs the most, where the model is calibrated.
fn in_8_bits_is_better(ceiling: &Ceiling, layout: Layout, reasons: &mut Vec<String>) -> bool {
    let Some(modality) = modalities(ceiling).first().copied() else { return false };
    let served = best(&points(&ceiling.engine, layout, modality));
    let Some((rounded, served)) = best(&points(&ceiling.in_8_bits, layout, modality)).zip(served) else {
        return false;
    };
    let better = is_better(rounded, served);
    reasons.push(format!(
        "{modality}s: {} in 8 bits, {:+.0} %{}",
        rate(rounded),
        gain(rounded, served) * 100.0,
        if better { "; how close that comes, calibrate told" } else { ", which is not enough to change" },
    ));
    better
}

/// That of the server, unless another is better for sure.
fn layout(ceiling: &Ceiling, reasons: &mut Vec<String>) -> Option<Layout> {
    let modality = *modalities(ceiling).first()?;
    let mut chosen = best(&points(&ceiling.engine, ceiling.layout, modality))?;
    let layouts = distinct(ceiling.engine.iter().map(|point| point.layout));
    for layout in layouts.into_iter().filter(|layout| *layout != ceiling.layout) {
        let other = best(&points(&ceiling.engine, layout, modality))?;
        let better = is_better(other, chosen);
        reasons.push(format!(
            "{modality}s: {} with {}, {:+.0} % compared with {}{}",
            rate(other),
            name(layout),
            gain(other, chosen) * 100.0,
            name(chosen.layout),
            if better { "" } else { ", which is not enough to change" },
        ));
        if better {
            chosen = other;
        }
    }
    Some(chosen.layout)
}

fn gain(other: &Point, chosen: &Point) -> f64 {
    other.rows_per_second.median / chosen.rows_per_second.median - 1.0
}

/// By more than noise: its slowest round beats the fastest of the other.
fn is_better(other: &Point, chosen: &Point) -> bool {
    let is_sure = other.rows_per_second.min > chosen.rows_per_second.max;
    is_sure && gain(other, chosen) > 1.0 - NEARLY_THE_BEST
}

/// In the order of the measurement, images first.
fn modalities(ceiling: &Ceiling) -> Vec<&'static str> {
    distinct(ceiling.engine.iter().map(|point| point.modality))
}

fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut distinct = Vec::new();
    for value in values {
        if !distinct.contains(&value) {
            distinct.push(value);
        }
    }
    distinct
}

fn points<'a>(points: &'a [Point], layout: Layout, modality: &str) -> Vec<&'a Point> {
    let points = points.iter();
    points.filter(|point| point.layout == layout && point.modality == modality).collect()
}

fn best<'a>(points: &[&'a Point]) -> Option<&'a Point> {
    points.iter().copied().max_by(|a, b| a.rows_per_second.median.total_cmp(&b.rows_per_second.median))
}

fn name(layout: Layout) -> String {
    format!("{} x {}", layout.workers, layout.threads)
}

fn rate(point: &Point) -> String {
    format!("{}/s", number(point.rows_per_second.median))
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
    fn sweep(layout: Layout, modality: &'static str, rates: &[f64]) -> Vec<Point> {
        let spread = |value: f64| Spread { median: value, min: value * 0.99, max: value * 1.01 };
        let point = |(power, rate): (usize, &f64)| Point {
            layout,
            modality,
            batch_size: 1 << power,
            rows_per_second: spread(*rate),
            batch_seconds: spread((1 << power) as f64 / rate),
            cpu_seconds_per_row: spread(2.0 / rate),
        };
        rates.iter().enumerate().map(point).collect()
    }

    fn check(wide: &[f64], narrow: &[f64], texts: &[f64], expected: &str) {
        let engine = [
            sweep(layout(1, 4), "image", wide),
            sweep(layout(1, 4), "text", texts),
            sweep(layout(4, 1), "image", narrow),
            sweep(layout(4, 1), "text", texts),
        ];
        let cores = NonZeroUsize::new(4).unwrap();
        let (engine, in_8_bits, workloads) = (engine.concat(), Vec::new(), Vec::new());
        let ceiling = Ceiling { cores, rounds: 3, layout: layout(1, 4), engine, in_8_bits, workloads };
        let recommendation = recommend(&ceiling).unwrap();
        assert_eq!(recommendation.flags, expected, "{:?}", recommendation.reasons);
    }

    #[test]
    fn the_smallest_batch_that_is_nearly_the_best() {
        let check = |images: &[f64], texts: &[f64], expected: &str| {
            check(
                images,
                &[5.0],
                texts,
                &format!("--workers-per-device 1 --threads 4 --max-batch-size {expected}"),
            );
        };
        check(&[50.0, 90.0, 98.0, 100.0, 99.0], &[], "4");
        check(&[100.0, 80.0, 70.0], &[500.0, 400.0], "1");
        check(&[10.0, 20.0, 40.0], &[], "4");
        check(&[100.0, 99.0], &[200.0, 300.0, 400.0, 800.0, 810.0], "8");
    }

    #[test]
    fn another_layout_if_it_is_better_for_sure() {
        check(&[90.0, 100.0], &[100.0, 120.0], &[], "--workers-per-device 4 --threads 1 --max-batch-size 2");
        check(&[90.0, 100.0], &[90.0, 101.5], &[], "--workers-per-device 1 --threads 4 --max-batch-size 2");
    }

    #[test]
    fn eight_bits_if_they_are_better_for_sure() {
        let check = |rounded: &[f64], expected: bool| {
            let engine = sweep(layout(1, 2), "image", &[10.0, 12.0]);
            let in_8_bits = sweep(layout(1, 2), "image", rounded);
            let (cores, workloads) = (NonZeroUsize::MIN, Vec::new());
            let ceiling = Ceiling { cores, rounds: 3, layout: layout(1, 2), engine, in_8_bits, workloads };
            let Recommendation { flags, reasons } = recommend(&ceiling).unwrap();
            assert_eq!(flags.ends_with(" --device openvino --precision int8"), expected, "{reasons:?}");
            assert_eq!(reasons.iter().any(|reason| reason.contains("in 8 bits")), !rounded.is_empty());
        };
        check(&[15.0, 20.0], true);
        check(&[10.0, 12.2], false);
        check(&[], false);
    }

    #[test]
    fn nothing_measured_nothing_recommended() {
        let cores = NonZeroUsize::MIN;
        let (engine, in_8_bits, workloads) = (Vec::new(), Vec::new(), Vec::new());
        let ceiling = Ceiling { cores, rounds: 3, layout: layout(1, 1), engine, in_8_bits, workloads };
        assert_eq!(recommend(&ceiling), None);
    }
}
