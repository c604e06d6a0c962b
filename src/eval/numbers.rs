//! Shares, means and what they may be by chance: 95 % intervals, alone and of differences.
//!
//! Pure. Resampling is by Poisson weights (Hanley and MacGibbon 2006, "Creating non-parametric bootstrap samples using
//! Poisson frequencies"): an input's weight in a resample is a function of the two numbers, so nothing is stored, two
//! runs are resampled alike, and a second evaluation says the same.

/// The normal distribution's 97.5th percentile.
const Z: f64 = 1.959_963_984_540_054;

/// Of a bootstrap.
pub(super) const RESAMPLES: u32 = 1000;

/// Both ends of an interval that has the true value in 95 of 100 cases.
pub(super) type Interval = [f64; 2];

/// Of a share: Wilson 1927, "Probable inference, the law of succession, and statistical inference"; equation 4 of
/// Brown, Cai and DasGupta 2001.
pub(super) fn wilson(hits: usize, of: usize) -> Option<Interval> {
    if of == 0 {
        return None;
    }
    let (n, share) = (of as f64, hits as f64 / of as f64);
    let middle = (share + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    Some([(middle - half).max(0.0), (middle + half).min(1.0)])
}

/// Of the difference of two shares of the same inputs, the first less the second: Agresti and Min 2005, "Simple
/// improved confidence intervals for comparing matched proportions": half an input more in each of the four cells.
pub(super) fn matched(only_first: usize, only_second: usize, of: usize) -> Option<Interval> {
    if of == 0 {
        return None;
    }
    let (b, c, n) = (only_first as f64 + 0.5, only_second as f64 + 0.5, of as f64 + 2.0);
    let difference = (b - c) / n;
    let half = Z * ((b + c) / n - difference * difference).max(0.0).sqrt() / n.sqrt();
    Some([difference - half, difference + half])
}

/// How likely it is that two shares which are the same differ so much: McNemar's test, exact and two-sided: twice the
/// binomial tail of the inputs that only one of them hits.
pub(super) fn mcnemar(only_first: usize, only_second: usize) -> f64 {
    let (few, all) = (only_first.min(only_second), only_first + only_second);
    // log of (all over k) / 2^all, from one k to the next.
    let mut log = -(all as f64) * std::f64::consts::LN_2;
    let mut tail = log.exp();
    for k in 1..=few {
        log += ((all - k + 1) as f64 / k as f64).ln();
        tail += log.exp();
    }
    (2.0 * tail).min(1.0)
}

/// How likely it is that an input is in a resample at most 0, 1, 2 ... times: Poisson's distribution of mean 1. That it
/// is more often there than 11 times happens once in a billion.
const AT_MOST: [f64; 12] = {
    let (mut at_most, mut probability, mut count) = ([0.0; 12], 1.0 / std::f64::consts::E, 0);
    while count < at_most.len() {
        at_most[count] = probability + if count == 0 { 0.0 } else { at_most[count - 1] };
        count += 1;
        probability /= count as f64;
    }
    at_most
};

/// How often an input is in a resample.
pub(super) fn weight(resample: u32, input: usize) -> u32 {
    // SplitMix64 (Steele, Lea and Flood 2014) of both numbers.
    let mut x =
        (u64::from(resample) << 40 ^ input as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    let share = ((x ^ x >> 31) >> 11) as f64 / (1_u64 << 53) as f64;
    // Branches on chance would take longer.
    AT_MOST.iter().map(|at_most| u32::from(share >= *at_most)).sum()
}

/// The middle 95 % of what resamples give (Efron and Tibshirani 1993, chapter 13); those without a value are left out.
pub(super) fn percentiles(mut values: Vec<f64>) -> Option<Interval> {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    (!values.is_empty()).then(|| [0.025, 0.975].map(|share| quantile(&values, share)))
}

/// Of values in order, linear between two of them, as numpy's default.
pub(super) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    below + (above - below) * at.fract()
}

/// Summed in numpy's order, so that the last digit is the suite's: eight sums side by side, blocks of 128 at most
/// (`pairwise_sum` of numpy's loops).
pub(super) fn mean(values: &[f64]) -> f64 {
    fn sum(values: &[f64]) -> f64 {
        match values.len() {
            0..8 => values.iter().fold(0.0, |sum, value| sum + value),
            8..=128 => {
                let (eights, rest) = values.as_chunks::<8>();
                let mut sums = eights[0];
                for eight in &eights[1..] {
                    sums.iter_mut().zip(eight).for_each(|(sum, value)| *sum += value);
                }
                let [a, b, c, d, e, f, g, h] = sums;
                rest.iter().fold(((a + b) + (c + d)) + ((e + f) + (g + h)), |sum, value| sum + value)
            }
            length => {
                let (left, right) = values.split_at(length / 2 / 8 * 8);
                sum(left) + sum(right)
            }
        }
    }
    sum(values) / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(value: f64, expected: f64) {
        assert!((value - expected).abs() < 5e-5, "{value} is not {expected}");
    }

    /// By hand, and statsmodels' `proportion_confint(..., method="wilson")`.
    #[test]
    fn intervals_of_shares() {
        let [low, high] = wilson(8, 10).unwrap();
        near(low, 0.4902);
        near(high, 0.9433);
        let [low, high] = wilson(0, 20).unwrap();
        near(low, 0.0);
        near(high, 0.1611);
        assert_eq!(wilson(0, 0), None);
    }

    /// By hand: (132.5 - 107.5) / 1146, and 1.96 standard errors around it.
    #[test]
    fn intervals_of_differences() {
        let [low, high] = matched(132, 107, 1144).unwrap();
        near(low, -0.0047);
        near(high, 0.0483);
        let [low, high] = matched(3, 3, 100).unwrap();
        near(low + high, 0.0);
    }

    /// The sum of the binomial tail, by hand.
    #[test]
    fn the_exact_test() {
        near(mcnemar(1, 5), 2.0 * (1.0 + 6.0) / 64.0);
        near(mcnemar(0, 3), 0.25);
        assert_eq!((mcnemar(4, 4), mcnemar(0, 0)), (1.0, 1.0));
        assert!(mcnemar(2000, 3000) < 1e-40);
    }

    #[test]
    fn weights_are_poissons() {
        let weights: Vec<u32> =
            (0..100).flat_map(|resample| (0..1000).map(move |input| weight(resample, input))).collect();
        let share = |count: u32| {
            weights.iter().filter(|weight| **weight == count).count() as f64 / weights.len() as f64
        };
        for (count, expected) in [(0, 0.3679), (1, 0.3679), (2, 0.1839), (3, 0.0613)] {
            assert!((share(count) - expected).abs() < 0.006, "{count}: {}", share(count));
        }
    }

    #[test]
    fn quantiles_and_means() {
        assert_eq!(quantile(&[0.0, 1.0, 2.0, 4.0], 0.5), 1.5);
        assert_eq!(percentiles(vec![f64::NAN]), None);
        let values: Vec<f64> = (0..1000).map(|value| f64::from(value) / 7.0).collect();
        near(mean(&values), 999.0 / 14.0);
        assert!(mean(&[]).is_nan());
    }
}
