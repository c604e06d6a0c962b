//! What lines tell beyond the figures: confusions, calibration, and which templates are better than others.

use std::collections::BTreeMap;

use crate::eval::data::{Prompts, Truth, Zeroshot};
use crate::eval::job::Job;
use crate::eval::matrix::{Matrix, Standing};
use crate::eval::task::Line;

/// Bins of probability.
pub(super) const BINS: usize = 10;

/// Pictures that templates are judged by, at most.
pub(super) const SAMPLE: usize = 2000;

/// Pictures of one class that were taken for another: both by their positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Confusion {
    pub(super) right: usize,
    pub(super) taken_for: usize,
    pub(super) count: usize,
}

/// The most frequent first.
pub(super) fn confusions(truth: &[u32], lines: &[Line]) -> Vec<Confusion> {
    let mut counts = BTreeMap::<(usize, usize), usize>::new();
    for line in lines {
        let right = truth[line.query.position()] as usize;
        if right != line.first {
            *counts.entry((right, line.first)).or_default() += 1;
        }
    }
    let confusion = |((right, taken_for), count)| Confusion { right, taken_for, count };
    let mut confusions: Vec<Confusion> = counts.into_iter().map(confusion).collect();
    confusions.sort_by_key(|confusion| std::cmp::Reverse(confusion.count));
    confusions
}

/// Answers of about the same probability.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Bin {
    pub(super) answers: usize,
    pub(super) mean_probability: f64,
    pub(super) share_right: f64,
}

/// By tenths of probability.
pub(super) fn calibration(lines: &[Line]) -> [Bin; BINS] {
    let mut bins = [Bin::default(); BINS];
    for line in lines {
        let bin = &mut bins[((line.score * BINS as f32) as usize).min(BINS - 1)];
        bin.answers += 1;
        bin.mean_probability += f64::from(line.score);
        bin.share_right += f64::from(u8::from(line.rank == 1));
    }
    for bin in bins.iter_mut().filter(|bin| bin.answers > 0) {
        bin.mean_probability /= bin.answers as f64;
        bin.share_right /= bin.answers as f64;
    }
    bins
}

/// The mean distance between probability and share (Guo et al. 2017, "On calibration of modern neural networks",
/// equation 3).
pub(super) fn calibration_error(bins: &[Bin; BINS]) -> f64 {
    let answers: usize = bins.iter().map(|bin| bin.answers).sum();
    let gap = |bin: &Bin| bin.answers as f64 * (bin.mean_probability - bin.share_right).abs();
    bins.iter().map(gap).sum::<f64>() / answers.max(1) as f64
}

/// acc1 of each template alone, the best first. `prompts` has a row for each class and template, class by class.
pub(super) fn templates(job: &Job, prompts: &Matrix, images: &Matrix, kept: &[usize]) -> Vec<(String, f64)> {
    let Job::Zeroshot(Zeroshot { prompts: Prompts::Shared(templates), truth, classes, .. }) = job else {
        return Vec::new();
    };
    if templates.len() < 2 || matches!(truth, Truth::Several(_)) {
        return Vec::new();
    }
    let step = kept.len().div_ceil(SAMPLE).max(1);
    let pictures: Vec<usize> = kept.iter().copied().step_by(step).collect();
    let sample = images.select(&pictures);
    let share = |template: usize| {
        let rows: Vec<usize> = (0..classes.len()).map(|class| class * templates.len() + template).collect();
        let right = sample.scored(&prompts.select(&rows), |row, scores| {
            Standing::of(scores, truth.of(pictures[row])).rank == 1
        });
        right.iter().filter(|right| **right).count() as f64 / pictures.len().max(1) as f64
    };
    let mut shares: Vec<(String, f64)> =
        templates.iter().enumerate().map(|(index, template)| (template.clone(), share(index))).collect();
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::task::Query;

    fn line(picture: usize, first: usize, score: f32, right: bool) -> Line {
        let rank = if right { 1 } else { 2 };
        Line { query: Query::Picture(picture), first, rank, margin: 0.0, score }
    }

    #[test]
    fn confusions_are_counted() {
        let lines =
            [line(0, 1, 0.5, false), line(1, 1, 0.5, true), line(2, 1, 0.5, false), line(3, 0, 0.5, false)];
        let expected =
            [(0, 1, 2), (1, 0, 1)].map(|(right, taken_for, count)| Confusion { right, taken_for, count });
        assert_eq!(confusions(&[0, 1, 0, 1], &lines), expected);
    }

    #[test]
    fn the_gap_between_what_is_said_and_what_is() {
        let lines =
            [line(0, 0, 0.85, true), line(1, 0, 0.85, false), line(2, 0, 1.0, true), line(3, 0, 0.0, false)];
        let bins = calibration(&lines);
        assert_eq!((bins[8].answers, bins[9].answers, bins[0].answers), (2, 1, 1));
        assert_eq!(bins[8].share_right, 0.5);
        assert!((calibration_error(&bins) - 2.0 * 0.35 / 4.0).abs() < 1e-6);
    }
}
