//! Which source pixels an output pixel is made of, and how much each of them counts: sizes and weights, no pixels.

use std::ops::Range;

use crate::clip::image::placement::Axis;
use crate::clip::spec::Interpolation;

/// Weights are fixed point with this many fractional bits: 32 less 8 for the sample and 2 for the
/// sign and the overshoot of a filter with negative lobes.
pub(super) const FRACTION_BITS: u32 = 32 - 8 - 2;

/// The weights of two source pixels in two parts each, of as few bits as processors can multiply quickly.
#[derive(Clone, Copy, Default)]
pub(super) struct Pair {
    pub(super) low: [i16; 2],
    /// At most 64 for a weight of one, and less than 80 in the sum of two neighbours.
    pub(super) high: [i8; 2],
}

impl Pair {
    /// A weight is its low part plus its high part shifted by so many bits.
    pub(super) const LOW_BITS: u32 = 16;

    fn new(weights: [i32; 2]) -> Self {
        let low = weights.map(|weight| weight as i16);
        let high = [0, 1].map(|place| ((weights[place] - i32::from(low[place])) >> Self::LOW_BITS) as i8);
        Self { low, high }
    }

    pub(super) fn weights(self) -> [i32; 2] {
        [0, 1].map(|place| (i32::from(self.high[place]) << Self::LOW_BITS) + i32::from(self.low[place]))
    }
}

/// For every kept output pixel of one direction, the source pixels it is made of.
pub(super) struct Windows {
    windows: Vec<Window>,
    weights: Vec<Pair>,
}

struct Window {
    source: Range<usize>,
    weights: Range<usize>,
}

impl Windows {
    pub(super) fn new(axis: &Axis, interpolation: Interpolation) -> Self {
        match interpolation {
            Interpolation::Bicubic => Self::filtered(axis, interpolation, bicubic),
            Interpolation::Bilinear => Self::filtered(axis, interpolation, |x| (1.0 - x.abs()).max(0.0)),
        }
    }

    fn filtered(axis: &Axis, interpolation: Interpolation, filter: impl Fn(f64) -> f64) -> Self {
        // Rounded, and then multiplied with, as Pillow does.
        let shrink = 1.0 / scale(axis).max(1.0);
        let mut windows = Vec::with_capacity(axis.kept as usize);
        let mut weights = Vec::new();
        let mut exact = Vec::new();
        for pixel in axis.first..axis.first + u64::from(axis.kept) {
            let Range { start, end } = window(axis, interpolation, pixel);
            let center = center(axis, pixel);
            exact.clear();
            exact.extend((start..end).map(|x| filter((x as f64 - center + 0.5) * shrink)));
            let sum: f64 = exact.iter().sum();
            let first = weights.len();
            let (pairs, odd) = exact.as_chunks();
            weights.extend(
                pairs.iter().map(|pair: &[f64; 2]| Pair::new(pair.map(|weight| fixed(weight / sum)))),
            );
            weights.extend(odd.iter().map(|weight| Pair::new([fixed(weight / sum), 0])));
            windows.push(Window { source: start..end, weights: first..weights.len() });
        }
        Self { windows, weights }
    }

    pub(super) fn len(&self) -> usize {
        self.windows.len()
    }

    /// Where each window begins, and its weights.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &[Pair])> {
        self.windows.iter().map(|window| (window.source.start, &self.weights[window.weights.clone()]))
    }

    /// The most pairs of source pixels of a window.
    pub(super) fn longest(&self) -> usize {
        self.windows.iter().map(|window| window.weights.len()).max().unwrap_or(0)
    }

    /// The source pixels that are read at all.
    pub(super) fn source(&self) -> Range<usize> {
        match (self.windows.first(), self.windows.last()) {
            (Some(first), Some(last)) => first.source.start..last.source.end,
            _ => 0..0,
        }
    }
}

/// The source pixels of all kept output pixels.
pub(super) fn reach(axis: &Axis, interpolation: Interpolation) -> Range<usize> {
    let first = window(axis, interpolation, axis.first);
    let last = window(axis, interpolation, axis.first + u64::from(axis.kept) - 1);
    first.start..last.end
}

/// At most so many source pixels make one output pixel.
pub(super) fn longest(axis: &Axis, interpolation: Interpolation) -> u64 {
    let len = 2 * support(axis, interpolation).ceil() as u64 + 1;
    len.min(u64::from(axis.source))
}

fn window(axis: &Axis, interpolation: Interpolation, pixel: u64) -> Range<usize> {
    let (center, support) = (center(axis, pixel), support(axis, interpolation));
    // A conversion to unsigned stops at 0, where Pillow clips.
    let start = (center - support + 0.5) as u32;
    let end = ((center + support + 0.5) as u32).min(axis.source);
    start as usize..end as usize
}

/// Where the middle of an output pixel lies in the source.
fn center(axis: &Axis, pixel: u64) -> f64 {
    (pixel as f64 + 0.5) * scale(axis)
}

fn scale(axis: &Axis) -> f64 {
    f64::from(axis.source) / axis.resized as f64
}

/// Source pixels on each side of the centre that count: when shrinking, the filter is widened.
fn support(axis: &Axis, interpolation: Interpolation) -> f64 {
    let radius = match interpolation {
        Interpolation::Bicubic => 2.0,
        Interpolation::Bilinear => 1.0,
    };
    radius * scale(axis).max(1.0)
}

fn fixed(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << FRACTION_BITS);
    // Away from zero by a half, then truncated: not what `round` does for 0.49999999999999994.
    (scaled + 0.5_f64.copysign(scaled)) as i32
}

/// Bicubic convolution with a = -0.5 (Keys 1981), Pillow's choice.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests;
