//! How far what enters a layer reaches, and how much of that each channel's factor takes off.

use crate::model::calibration::Rounding;

/// Levels of a signed byte on either side of zero.
const LEVELS: f64 = 127.0;

/// How much of the reach of a channel may go into its weights: 0, all stays, to 1, all channels reach as far. The best
/// is taken.
const STRENGTHS: usize = 10;

/// A channel that hardly reaches anywhere counts as reaching this share of the farthest.
const LEAST: f64 = 1e-4;

/// What was seen of a tensor, by channel.
pub(super) struct Extremes {
    highest: Vec<f32>,
    lowest: Vec<f32>,
    /// Sums of squares.
    squares: Vec<f64>,
    count: u64,
    /// Nothing but whole numbers were seen.
    whole: bool,
}

impl Extremes {
    pub(super) fn new(channels: usize) -> Extremes {
        let zeros = vec![0.0; channels];
        Extremes {
            highest: zeros.clone(),
            lowest: zeros,
            squares: vec![0.0; channels],
            count: 0,
            whole: true,
        }
    }

    /// Zero always counts as seen.
    pub(super) fn see(&mut self, values: &[f32]) {
        let channels = self.highest.len();
        let mut squares = vec![0.0_f32; channels];
        for token in values.chunks_exact(channels) {
            let ends = self.highest.iter_mut().zip(&mut self.lowest).zip(&mut squares);
            for (((highest, lowest), square), &value) in ends.zip(token) {
                *highest = highest.max(value);
                *lowest = lowest.min(value);
                *square += value * value;
            }
        }
        self.squares.iter_mut().zip(squares).for_each(|(sum, square)| *sum += f64::from(square));
        self.count += (values.len() / channels) as u64;
        self.whole = self.whole && values.iter().all(|value| value.fract() == 0.0);
    }

    /// Whether all that was seen are integers of a signed byte, such as centred pixels. They stay what they are.
    pub(super) fn are_bytes(&self) -> bool {
        let [low, high] = self.reach(&[]);
        self.whole && low >= f32::from(i8::MIN) && high <= f32::from(i8::MAX)
    }

    /// The lowest and the highest value, with these factors divided out.
    pub(super) fn reach(&self, factors: &[i8]) -> [f32; 2] {
        let factor = |channel: usize| factors.get(channel).map_or(1.0, |log| Rounding::factor(*log));
        let lowest = self.lowest.iter().enumerate().map(|(channel, low)| low / factor(channel));
        let highest = self.highest.iter().enumerate().map(|(channel, high)| high / factor(channel));
        [lowest.fold(0.0, f32::min), highest.fold(0.0, f32::max)]
    }

    /// Factors for each channel, with which rounding is expected to cost the product with `matrix`, `[channels,
    /// outputs]`, the least; none if that is without any.
    ///
    /// SmoothQuant's `reach^a / weight^(1 - a)` (Xiao et al. 2023), with the `a` of the least expected square of the
    /// error. A step of `d` costs `d^2 / 12`, uniformly distributed noise: of what enters, it is multiplied by the
    /// weights; of the weights, by what enters.
    pub(super) fn factors(&self, matrix: &[Vec<f32>]) -> Vec<i8> {
        let reach: Vec<f64> =
            self.highest.iter().zip(&self.lowest).map(|(high, low)| f64::from(high.max(-low))).collect();
        let weight = matrix.iter().map(|row| row.iter().fold(0.0_f32, |most, value| most.max(value.abs())));
        let (reach, weight) = (at_least(reach), at_least(weight.map(f64::from).collect()));
        let logs = |strength: f64| -> Vec<f64> {
            let log = |(reach, weight): (&f64, &f64)| strength * reach.ln() - (1.0 - strength) * weight.ln();
            let logs: Vec<f64> = reach.iter().zip(&weight).map(log).collect();
            let mean = logs.iter().sum::<f64>() / logs.len() as f64;
            logs.into_iter().map(|log| log - mean).collect()
        };
        let none = vec![0; reach.len()];
        let choices = (0..=STRENGTHS).map(|tenth| {
            let logs = logs(tenth as f64 / STRENGTHS as f64);
            logs.into_iter().map(|log| Rounding::log(log.exp())).collect::<Vec<i8>>()
        });
        let costs = [none].into_iter().chain(choices);
        let costs = costs.map(|factors| (self.expected_error(&reach, matrix, &factors), factors));
        let best = costs.min_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, factors)| factors);
        best.filter(|factors| factors.iter().any(|log| *log != 0)).unwrap_or_default()
    }

    fn expected_error(&self, reach: &[f64], matrix: &[Vec<f32>], factors: &[i8]) -> f64 {
        let factors: Vec<f64> = factors.iter().map(|log| f64::from(Rounding::factor(*log))).collect();
        let farthest = reach.iter().zip(&factors).map(|(reach, factor)| reach / factor).fold(0.0, f64::max);
        let outputs = matrix.first().map_or(0, Vec::len);
        let (mut heaviest, mut energy) = (vec![0.0_f64; outputs], 0.0);
        for (row, factor) in matrix.iter().zip(&factors) {
            for (heaviest, weight) in heaviest.iter_mut().zip(row) {
                let weight = f64::from(*weight) * factor;
                *heaviest = heaviest.max(weight.abs());
                energy += weight * weight;
            }
        }
        let entering = (farthest / LEVELS).powi(2) * energy;
        let power = self.squares.iter().zip(&factors).map(|(squares, factor)| squares / factor.powi(2));
        let power = power.sum::<f64>() / self.count.max(1) as f64;
        let weights = heaviest.iter().map(|most| (most / LEVELS).powi(2)).sum::<f64>() * power;
        (entering + weights) / 12.0
    }
}

/// None of them so near to zero that its logarithm runs away.
fn at_least(values: Vec<f64>) -> Vec<f64> {
    let most = values.iter().copied().fold(0.0, f64::max);
    let least = if most > 0.0 { most * LEAST } else { 1.0 };
    values.into_iter().map(|value| value.max(least)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(channels: usize, values: &[f32]) -> Extremes {
        let mut extremes = Extremes::new(channels);
        extremes.see(values);
        extremes
    }

    #[test]
    fn reach_is_of_all_channels_without_their_factors() {
        let extremes = seen(2, &[1.0, -8.0, 3.0, 4.0]);
        assert_eq!(extremes.reach(&[]), [-8.0, 4.0]);
        // Factors 1 and 4.
        assert_eq!(extremes.reach(&[0, 8]), [-2.0, 3.0]);
        assert_eq!(seen(1, &[5.0]).reach(&[]), [0.0, 5.0]);
    }

    #[test]
    fn an_outlier_goes_into_its_weights() {
        // One channel reaches fifty times as far, and its weights are as much smaller.
        let extremes = seen(3, &[1.0, 50.0, -1.0, -1.0, -50.0, 1.0]);
        let matrix = [vec![0.5, -0.5], vec![0.01, -0.01], vec![-0.5, 0.5]];
        let factors = extremes.factors(&matrix).into_iter().map(Rounding::factor).collect::<Vec<_>>();
        assert!((40.0..60.0).contains(&(factors[1] / factors[0])), "{factors:?}");
        let [low, high] = extremes.reach(&extremes.factors(&matrix));
        assert!((high / (1.0 / factors[0]) - 1.0).abs() < 0.3 && low == -high, "{low} {high}");
    }

    #[test]
    fn channels_that_are_alike_need_no_factors() {
        let extremes = seen(2, &[1.0, -1.0, -1.0, 1.0]);
        assert_eq!(extremes.factors(&[vec![0.5, -0.5], vec![0.5, 0.5]]), Vec::<i8>::new());
        // Nor do channels in which nothing was seen.
        assert_eq!(seen(2, &[0.0, 0.0]).factors(&[vec![0.0], vec![0.0]]), Vec::<i8>::new());
    }

    #[test]
    fn bytes_are_known_as_such() {
        assert!(seen(1, &[-128.0, 0.0, 127.0]).are_bytes());
        assert!(!seen(1, &[-129.0]).are_bytes() && !seen(1, &[0.5]).are_bytes());
    }
}
