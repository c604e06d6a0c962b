//! Pillow's resampling of 8-bit pictures, bit for bit: `Resample.c` and the scaling half of
//! `Geometry.c` in Pillow 13.
//!
//! Why not a resampling crate: the order of the two passes and the precision of the weights show
//! in the result. Pillow rounds and clips to 8 bits between the passes, goes horizontally first
//! except where [`is_vertical_first`], and has weights of 22 bits. The faster crates always go
//! vertically first and have weights of 14 bits.
//!
//! Source rows are visited once: each is stretched horizontally into one scratch row, and added
//! to the sums of the few output rows whose window it is in. No intermediate picture exists, and
//! rows and columns that do not reach the crop are never read.
//!
//! Pixels are four numbers, whatever their mode, so that compilers find vectors.

use std::array;
use std::ops::Range;

use pulp::{Arch, NullaryFnOnce};

use super::placement::{Axis, Placement};
use crate::clip::spec::Interpolation;

/// Weights are fixed point with this many fractional bits: 32 less 8 for the sample and 2 for the
/// sign and the overshoot of a filter with negative lobes.
const FRACTION_BITS: u32 = 32 - 8 - 2;
const ONE_HALF: i32 = 1 << (FRACTION_BITS - 1);

/// Most weights plus horizontally stretched pixels of one picture. Ordinary pictures need under a
/// million; 2^25 lets the longest JPEG (65,535 pixels) into a 512-pixel model in any shape, and
/// holds the weights to 128 MiB. Only needle-shaped PNGs in the longest and squash modes exceed it.
const MAX_COST: u64 = 1 << 25;

/// Pillow accumulates the position of the nearest pixel, rounding error included. So far out no
/// crop of a picture that Pillow could resize begins.
const MAX_ACCUMULATED: u64 = 1 << 24;

/// Whether the time and memory of [`resample`] are in proportion to the picture.
pub(super) fn is_bounded(placement: &Placement) -> bool {
    let Placement { horizontal, vertical, interpolation } = placement;
    let weights = |axis: &Axis| u64::from(axis.kept) * window_len(axis, *interpolation);
    let stretched = if is_vertical_first(placement) {
        // In proportion to the picture.
        0
    } else {
        u64::from(horizontal.kept) * weights(vertical).min(u64::from(vertical.source))
    };
    weights(horizontal) + weights(vertical) + stretched <= MAX_COST
}

/// Whether Pillow makes the vertical pass first: where a picture loses more than twice as many
/// rows as columns. Found by experiment with Pillow 13.0; versions before 13 never do it.
fn is_vertical_first(placement: &Placement) -> bool {
    let lost = |axis: &Axis| i128::from(axis.source) - i128::from(axis.resized);
    let rows = lost(&placement.vertical);
    rows > 0 && rows > 2 * lost(&placement.horizontal)
}

/// Resizes a picture of `C` samples per pixel and cuts out what is kept.
///
/// `prepare` turns a stretch of source pixels into what is resized, for example by multiplying
/// alpha in.
pub(super) fn resample<const C: usize>(
    samples: &[u8],
    placement: &Placement,
    prepare: impl Fn(&mut [[u8; C]]),
) -> Vec<u8> {
    if !is_vertical_first(placement) {
        return dispatched(samples, placement, &prepare);
    }
    let Placement { horizontal, vertical, interpolation } = *placement;
    let rows = Placement { horizontal: Axis::unchanged(horizontal.source), vertical, interpolation };
    let columns = Placement { horizontal, vertical: Axis::unchanged(vertical.kept), interpolation };
    let flattened = dispatched(samples, &rows, &prepare);
    dispatched(&flattened, &columns, &|_: &mut [[u8; C]]| ())
}

/// [`horizontal_first`], compiled for each generation of vector instructions; which of them runs is decided here.
fn dispatched<const C: usize, P: Fn(&mut [[u8; C]])>(
    samples: &[u8],
    placement: &Placement,
    prepare: &P,
) -> Vec<u8> {
    struct Pass<'a, const C: usize, P> {
        samples: &'a [u8],
        placement: &'a Placement,
        prepare: &'a P,
    }

    impl<const C: usize, P: Fn(&mut [[u8; C]])> NullaryFnOnce for Pass<'_, C, P> {
        type Output = Vec<u8>;

        // Only what is inlined here is compiled anew.
        #[inline(always)]
        fn call(self) -> Vec<u8> {
            horizontal_first(self.samples, self.placement, self.prepare)
        }
    }

    Arch::new().dispatch(Pass { samples, placement, prepare })
}

/// A pixel as the horizontal pass takes it: up to four samples, and a multiplication of all at once.
type Lanes = [i32; 4];

/// So many source pixels are taken at a time.
const TAPS: usize = 8;

#[inline(always)]
fn horizontal_first<const C: usize>(
    samples: &[u8],
    placement: &Placement,
    prepare: &impl Fn(&mut [[u8; C]]),
) -> Vec<u8> {
    let columns = Windows::new(&placement.horizontal, placement.interpolation);
    let rows = Windows::new(&placement.vertical, placement.interpolation);
    let source_columns = match &placement.horizontal {
        axis if axis.keeps_size() => axis.kept_pixels(),
        _ => columns.source(),
    };
    let stride = placement.horizontal.source as usize;

    let mut source_row = vec![[0; C]; source_columns.len()];
    let mut lanes = vec![Lanes::default(); source_columns.len() + TAPS];
    let mut stretched = vec![Lanes::default(); columns.windows.len()];
    let mut resized = vec![0; rows.windows.len() * stretched.len() * C];
    // Output rows whose window holds the current source row: windows never move backwards. Only they have sums.
    let mut open = 0..0;
    let most_open = rows.most_open();
    let mut sums = vec![[ONE_HALF; 4]; most_open * stretched.len()];
    for y in rows.source() {
        let start = y * stride;
        let pixels = samples.as_chunks::<C>().0;
        source_row.copy_from_slice(&pixels[start..][source_columns.clone()]);
        prepare(&mut source_row);
        for (lanes, pixel) in lanes.iter_mut().zip(&source_row) {
            *lanes = array::from_fn(|c| pixel.get(c).copied().unwrap_or(0).into());
        }
        if placement.horizontal.keeps_size() {
            stretched.copy_from_slice(&lanes[..source_row.len()]);
        } else {
            stretch_row(&lanes, &columns, source_columns.start, &mut stretched);
        }

        while open.end < rows.windows.len() && rows.windows[open.end].source.start <= y {
            open.end += 1;
        }
        for row in open.clone() {
            let weight = rows.weight(row, y);
            let sums = &mut sums[row % most_open * stretched.len()..][..stretched.len()];
            for (sums, pixel) in sums.iter_mut().zip(&stretched) {
                *sums = array::from_fn(|c| sums[c] + pixel[c] * weight);
            }
            if rows.windows[row].source.end == y + 1 {
                open.start = row + 1;
                let resized = &mut resized.as_chunks_mut::<C>().0[row * stretched.len()..];
                for (pixel, sums) in resized.iter_mut().zip(sums) {
                    let samples = std::mem::replace(sums, [ONE_HALF; 4]).map(to_sample);
                    *pixel = array::from_fn(|c| samples[c] as u8);
                }
            }
        }
    }
    resized
}

/// The horizontal pass over one row; `row` begins at source column `offset`.
#[inline(always)]
fn stretch_row(row: &[Lanes], columns: &Windows, offset: usize, stretched: &mut [Lanes]) {
    for (window, pixel) in columns.windows.iter().zip(stretched) {
        let mut weights = &columns.weights[window.weights.clone()];
        let mut sources = &row[window.source.start - offset..];
        let mut sums = [ONE_HALF; 4];
        while let (Some((source, later)), Some((weight, rest))) =
            (sources.split_first_chunk::<TAPS>(), weights.split_first_chunk::<TAPS>())
        {
            for tap in 0..TAPS {
                sums = array::from_fn(|c| sums[c] + source[tap][c] * weight[tap]);
            }
            (sources, weights) = (later, rest);
        }
        *pixel = sums.map(to_sample);
    }
}

#[inline(always)]
fn to_sample(sum: i32) -> i32 {
    (sum >> FRACTION_BITS).clamp(0, 255)
}

/// For every kept output pixel of one direction, the source pixels it is made of.
struct Windows {
    windows: Vec<Window>,
    weights: Vec<i32>,
}

struct Window {
    source: Range<usize>,
    /// One for each source pixel, and zeros up to a multiple of [`TAPS`].
    weights: Range<usize>,
}

impl Windows {
    fn new(axis: &Axis, interpolation: Interpolation) -> Self {
        let filter = filter(interpolation);
        let scale = f64::from(axis.source) / axis.resized as f64;
        let stretch = scale.max(1.0);
        let support = support(axis, interpolation);
        let mut windows = Vec::with_capacity(axis.kept as usize);
        let mut weights = Vec::new();
        let mut exact = Vec::new();
        for pixel in axis.first..axis.first + u64::from(axis.kept) {
            let center = (pixel as f64 + 0.5) * scale;
            // A conversion to unsigned stops at 0, where Pillow clips.
            let start = (center - support + 0.5) as u32;
            let end = ((center + support + 0.5) as u32).min(axis.source);
            exact.clear();
            exact.extend((start..end).map(|x| filter((f64::from(x) - center + 0.5) / stretch)));
            let sum: f64 = exact.iter().sum();
            let first_weight = weights.len();
            weights.extend(exact.iter().map(|weight| fixed(weight / sum)));
            weights.resize(first_weight + exact.len().next_multiple_of(TAPS), 0);
            windows
                .push(Window { source: start as usize..end as usize, weights: first_weight..weights.len() });
        }
        Self { windows, weights }
    }

    /// The source pixels that are read at all.
    fn source(&self) -> Range<usize> {
        match (self.windows.first(), self.windows.last()) {
            (Some(first), Some(last)) => first.source.start..last.source.end,
            _ => 0..0,
        }
    }

    /// The most windows that have a source pixel in common.
    fn most_open(&self) -> usize {
        let open = |(index, window): (usize, &Window)| {
            self.windows[index..].iter().take_while(|later| later.source.start < window.source.end).count()
        };
        self.windows.iter().enumerate().map(open).max().unwrap_or(0)
    }

    /// How much source pixel `source` counts in output pixel `pixel`, whose window holds it.
    fn weight(&self, pixel: usize, source: usize) -> i32 {
        let window = &self.windows[pixel];
        self.weights[window.weights.start + source - window.source.start]
    }
}

fn fixed(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << FRACTION_BITS);
    // Away from zero by a half, then truncated: not what `round` does for 0.49999999999999994.
    (scaled + 0.5_f64.copysign(scaled)) as i32
}

/// Source pixels on each side of the centre that count: when shrinking, the filter is widened.
fn support(axis: &Axis, interpolation: Interpolation) -> f64 {
    let scale = f64::from(axis.source) / axis.resized as f64;
    let radius = match interpolation {
        Interpolation::Bicubic => 2.0,
        Interpolation::Bilinear => 1.0,
    };
    radius * scale.max(1.0)
}

fn window_len(axis: &Axis, interpolation: Interpolation) -> u64 {
    let len = 2 * support(axis, interpolation).ceil() as u64 + 1;
    len.min(u64::from(axis.source))
}

fn filter(interpolation: Interpolation) -> fn(f64) -> f64 {
    match interpolation {
        Interpolation::Bicubic => bicubic,
        Interpolation::Bilinear => |x| (1.0 - x.abs()).max(0.0),
    }
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

/// Resizes to the nearest pixel and cuts out what is kept, of one sample per pixel.
pub(super) fn nearest(samples: &[u8], placement: &Placement) -> Vec<u8> {
    let columns = nearest_pixels(&placement.horizontal);
    let stride = placement.horizontal.source as usize;
    nearest_pixels(&placement.vertical)
        .into_iter()
        .flat_map(|y| {
            let row = &samples[y * stride..][..stride];
            columns.iter().map(|x| row[*x])
        })
        .collect()
}

/// The source pixel of every kept output pixel.
fn nearest_pixels(axis: &Axis) -> Vec<usize> {
    let step = f64::from(axis.source) / axis.resized as f64;
    let skipped = axis.first.saturating_sub(MAX_ACCUMULATED);
    let mut position = step * 0.5 + step * skipped as f64;
    for _ in skipped..axis.first {
        position += step;
    }
    (0..axis.kept)
        .map(|_| {
            let pixel = (position as usize).min(axis.source as usize - 1);
            position += step;
            pixel
        })
        .collect()
}
