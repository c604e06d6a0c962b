//! What rounding costs, as measured on what enters a layer: the step of the least squared error.
//!
//! The largest value that was seen is not the best end of the range: a few values that are cut off may cost less than
//! a wider step for all of them.

use crate::model::calibration::Rounding;

/// Shares of the reach that are tried.
const SHARES: [f32; 8] = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3];

/// Below this share of what is above zero, what is below does not deserve half of the integers: as after a GELU.
const ONE_SIDED: f32 = 0.5;

/// Added and taken off again, it leaves a number of up to 2^22 rounded to a whole one, ties to even, without a call.
const ROUNDS: f32 = 12_582_912.0;

/// Of one tensor.
pub(super) struct Errors {
    candidates: Vec<Rounding>,
    /// What an error in a channel costs the product: the squares of its weights.
    costs: Vec<f32>,
    /// What to multiply a channel with.
    inverse: Vec<f32>,
    sums: Vec<f64>,
}

impl Errors {
    /// Of `candidates` with the same factors.
    pub(super) fn new(candidates: Vec<Rounding>, matrix: &[Vec<f32>]) -> Errors {
        let factors = &candidates[0].factors;
        let factor = |channel: usize| factors.get(channel).map_or(1.0, |log| Rounding::factor(*log));
        let square = |(channel, row): (usize, &Vec<f32>)| {
            row.iter().map(|weight| (weight * factor(channel)).powi(2)).sum::<f32>()
        };
        let costs: Vec<f32> = matrix.iter().enumerate().map(square).collect();
        let inverse = (0..costs.len()).map(|channel| factor(channel).recip()).collect();
        let sums = vec![0.0; candidates.len()];
        Errors { candidates, costs, inverse, sums }
    }

    pub(super) fn see(&mut self, values: &[f32]) {
        for (rounding, sum) in self.candidates.iter().zip(&mut self.sums) {
            let [lowest, highest] = rounding.range().map(f32::from);
            let (step, per_step) = (rounding.step, rounding.step.recip());
            // By channel, so that the loop is one of vectors.
            let mut squares = vec![0.0_f32; self.costs.len()];
            for token in values.chunks_exact(self.costs.len()) {
                for ((value, inverse), square) in token.iter().zip(&self.inverse).zip(&mut squares) {
                    let steps = value * inverse * per_step;
                    let rounded = (steps.clamp(lowest, highest) + ROUNDS) - ROUNDS;
                    *square += (rounded - steps) * (rounded - steps);
                }
            }
            let cost = squares.iter().zip(&self.costs).map(|(square, cost)| f64::from(square * cost));
            *sum += cost.sum::<f64>() * f64::from(step).powi(2);
        }
    }

    /// The one that cost the least.
    pub(super) fn best(self) -> Rounding {
        let pairs = self.candidates.into_iter().zip(self.sums);
        let best = pairs.min_by(|(_, a), (_, b)| a.total_cmp(b));
        best.expect("there are candidates").0
    }
}

/// Ways to round what reaches so far with `factors`, as [`super::extremes::Extremes::reach`] has it.
pub(super) fn candidates(reach: [f32; 2], factors: &[i8]) -> Vec<Rounding> {
    SHARES.into_iter().map(|share| rounding(reach, share, factors.to_vec())).collect()
}

/// With which a share of what was seen is within the range. What is below zero is small where the other side is cut.
fn rounding([low, high]: [f32; 2], share: f32, factors: Vec<i8>) -> Rounding {
    let step = |step: f32| if step.is_normal() { step } else { 1.0 };
    if -low < ONE_SIDED * high {
        let step = step((share * high - low) / f32::from(u8::MAX));
        let zero = (-low / step).round().min(f32::from(u8::MAX)) as u8;
        return Rounding { step, zero: Some(zero), factors };
    }
    let farthest = (high / f32::from(i8::MAX)).max(low / f32::from(i8::MIN));
    Rounding { step: step(share * farthest), zero: None, factors }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(reach: [f32; 2], values: &[f32]) -> Rounding {
        let mut errors = Errors::new(candidates(reach, &[]), &[vec![1.0]]);
        errors.see(values);
        errors.best()
    }

    #[test]
    fn a_lone_outlier_is_cut_off_only_if_there_is_enough_to_gain() {
        let spread: Vec<f32> = (0..20_000).map(|index| (index as f32 * 0.618).fract() * 2.0 - 1.0).collect();
        let step = |outlier: f32, beside: usize| {
            let values = [vec![outlier], spread[..beside].to_vec()].concat();
            best([-1.0, outlier], &values).step
        };
        assert_eq!(step(1.0, 20_000), 1.0 / 127.0);
        // What it loses by being cut is less than all others gain; beside a thousand it is more.
        assert_eq!(step(1.1, 20_000), 0.9 * (1.1 / 127.0));
        assert_eq!(step(1.1, 1_000), 1.1 / 127.0);
    }

    #[test]
    fn what_is_nearly_all_above_zero_has_all_integers_there() {
        let Rounding { step, zero, .. } = best([-0.17, 5.0], &[5.0, -0.17, 2.0]);
        assert_eq!((zero, step), (Some(8), 5.17 / 255.0));
        assert_eq!(best([0.0, 5.0], &[5.0]).zero, Some(0));
        assert_eq!(best([-3.0, 5.0], &[5.0]).zero, None);
        // Nothing was seen but zeros.
        assert_eq!(best([0.0, 0.0], &[0.0]).step, 1.0);
    }

    #[test]
    fn signed_bytes_reach_one_further_below_zero() {
        assert_eq!(best([-128.0, 127.0], &[-128.0, 127.0]).step, 1.0);
    }
}
