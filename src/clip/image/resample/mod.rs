//! Pillow's resampling of 8-bit pictures, bit for bit: `Resample.c` and the scaling half of
//! `Geometry.c` in Pillow 13.
//!
//! Why not a resampling crate: the order of the two passes and the precision of the weights show
//! in the result. Pillow rounds and clips to 8 bits between the passes, goes horizontally first
//! except where [`is_vertical_first`], and has weights of 22 bits. The faster crates always go
//! vertically first and have weights of 14 bits.
//!
//! Source rows are visited once, eight at a time: they are stretched horizontally, and of the last few stretched rows
//! one output row after the other is made. No intermediate picture exists, and rows and columns that do not reach the
//! crop are never read.
//!
//! Both passes are the same operation, [`Kernel::weigh`], of thirty-two samples at a time: in the horizontal pass a
//! column of eight source rows, with up to four samples per pixel; in the vertical pass a stretch of one row.

mod kernel;
mod windows;

use std::array;
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use pulp::{NullaryFnOnce, x86::V3};

#[cfg(target_arch = "x86_64")]
use kernel::Avx2;
use kernel::{Kernel, LANES, Portable, ROWS};
use windows::Windows;

use super::placement::{Axis, Placement};

/// Most weights plus horizontally stretched pixels of one picture. Ordinary pictures need under a
/// million; 2^25 lets the longest JPEG (65,535 pixels) into a 512-pixel model in any shape, and
/// holds the weights to 128 MiB. Only needle-shaped PNGs in the longest and squash modes exceed it.
const MAX_COST: u64 = 1 << 25;

/// Pillow accumulates the position of the nearest pixel, rounding error included. So far out no
/// crop of a picture that Pillow could resize begins.
const MAX_ACCUMULATED: u64 = 1 << 24;

/// Rows of a picture that hold some of its columns.
pub(super) struct Raster<'a> {
    pub(super) samples: &'a [u8],
    pub(super) columns: Range<usize>,
}

impl Raster<'_> {
    /// The samples of some pixels of a row, `channels` of each.
    pub(super) fn pixels(&self, y: usize, columns: &Range<usize>, channels: usize) -> &[u8] {
        let row = &self.samples[y * self.columns.len() * channels..][..self.columns.len() * channels];
        &row[(columns.start - self.columns.start) * channels..(columns.end - self.columns.start) * channels]
    }
}

/// Whether the time and memory of [`resample`] are in proportion to the picture.
pub(super) fn is_bounded(placement: &Placement) -> bool {
    let Placement { horizontal, vertical, interpolation } = placement;
    let weights = |axis: &Axis| u64::from(axis.kept) * windows::longest(axis, *interpolation);
    let stretched = if is_vertical_first(placement) {
        // In proportion to the picture.
        0
    } else {
        u64::from(horizontal.kept) * weights(vertical).min(u64::from(vertical.source))
    };
    weights(horizontal) + weights(vertical) + stretched <= MAX_COST
}

/// The source columns that [`resample`] reads.
pub(super) fn columns(placement: &Placement) -> Range<usize> {
    let Placement { horizontal, interpolation, .. } = placement;
    let reach = windows::reach(horizontal, *interpolation);
    if is_vertical_first(placement) {
        windows::reach(&Axis::unchanged(horizontal.source, &reach), *interpolation)
    } else {
        reach
    }
}

/// Whether Pillow makes the vertical pass first: where a picture loses more than twice as many
/// rows as columns. Found by experiment with Pillow 13.0; versions before 13 never do it.
fn is_vertical_first(placement: &Placement) -> bool {
    let lost = |axis: &Axis| i128::from(axis.source) - i128::from(axis.resized);
    let rows = lost(&placement.vertical);
    rows > 0 && rows > 2 * lost(&placement.horizontal)
}

/// Resizes a picture of `C` samples per pixel and gives the rows that are kept, cut to what is kept of them.
///
/// `prepare` turns a source pixel, the first `C` of four samples, into what is resized, for example by multiplying
/// alpha in.
pub(super) fn resample<const C: usize>(
    source: &Raster<'_>,
    placement: &Placement,
    prepare: impl Fn(&mut [u8; 4]),
    emit: impl FnMut(&mut [[u8; C]]),
) {
    if !is_vertical_first(placement) {
        return Pass { source, placement, prepare, emit }.on_this_processor();
    }
    let Placement { horizontal, vertical, interpolation } = *placement;
    let columns = windows::reach(&horizontal, interpolation);
    let rows =
        Placement { horizontal: Axis::unchanged(horizontal.source, &columns), vertical, interpolation };
    let mut flattened = Vec::with_capacity(columns.len() * vertical.kept as usize * C);
    let collect = |row: &mut [[u8; C]]| flattened.extend_from_slice(row.as_flattened());
    Pass { source, placement: &rows, prepare, emit: collect }.on_this_processor();
    let source = &Raster { samples: &flattened, columns };
    let rows = Axis::unchanged(vertical.kept, &(0..vertical.kept as usize));
    let placement = &Placement { horizontal, vertical: rows, interpolation };
    Pass { source, placement, prepare: |_: &mut [u8; 4]| (), emit }.on_this_processor();
}

/// What [`resample`] does, horizontally first.
struct Pass<'a, P, E> {
    source: &'a Raster<'a>,
    placement: &'a Placement,
    prepare: P,
    emit: E,
}

impl<P, E> Pass<'_, P, E> {
    fn on_this_processor<const C: usize>(self)
    where
        P: Fn(&mut [u8; 4]),
        E: FnMut(&mut [[u8; C]]),
    {
        #[cfg(target_arch = "x86_64")]
        if let Some(v3) = V3::try_new() {
            return v3.vectorize(OnAvx2(self, v3));
        }
        self.run(Portable);
    }

    #[inline(always)]
    fn run<const C: usize>(mut self, kernel: impl Kernel)
    where
        P: Fn(&mut [u8; 4]),
        E: FnMut(&mut [[u8; C]]),
    {
        let Placement { horizontal, vertical, interpolation } = *self.placement;
        let columns = Windows::new(&horizontal, interpolation);
        let rows = Windows::new(&vertical, interpolation);
        let (read, last) = (columns.source(), vertical.source as usize - 1);
        let width = columns.len().next_multiple_of(4);
        let row_len = (width * C + 16).div_ceil(LANES);
        let mut resized = vec![[0; LANES]; (columns.len() * C).div_ceil(LANES)];
        // The last ones, as many as an output row may need, and the number of the next.
        let mut stretched = vec![vec![[0; LANES]; row_len]; 2 * rows.longest() + ROWS];
        let mut next = rows.source().start;
        let mut source = vec![[0; LANES]; read.len() + 1];
        let mut turned = vec![[0; LANES]; width];
        for (start, weights) in rows.iter() {
            while next < start + 2 * weights.len() {
                // Below the last row nothing counts.
                let row = |y: usize| self.source.pixels(y.min(last), &read, C);
                kernel.turn::<C>(array::from_fn(|place| row(next + place)), &mut source);
                source.as_flattened_mut().as_chunks_mut().0.iter_mut().for_each(&self.prepare);
                for ((start, weights), samples) in columns.iter().zip(&mut turned) {
                    let pairs = source[start - read.start..].as_chunks().0;
                    *samples = kernel.weigh(weights, pairs.iter().copied());
                }
                stretched.rotate_left(ROWS);
                if let Some(rows) = stretched.last_chunk_mut::<ROWS>() {
                    kernel.turn_back::<C>(&turned, &mut rows.each_mut().map(|row| row.as_flattened_mut()));
                }
                next += ROWS;
            }
            let window = &stretched[stretched.len() - (next - start)..][..2 * weights.len()];
            for (place, samples) in resized.iter_mut().enumerate() {
                let pairs = window.as_chunks().0.iter();
                *samples = kernel.weigh(weights, pairs.map(|[first, second]| [first[place], second[place]]));
            }
            (self.emit)(&mut resized.as_flattened_mut().as_chunks_mut().0[..columns.len()]);
        }
    }
}

/// A [`Pass`] compiled for AVX2, since all of it is inlined into `call`.
#[cfg(target_arch = "x86_64")]
struct OnAvx2<'a, const C: usize, P, E>(Pass<'a, P, E>, V3);

#[cfg(target_arch = "x86_64")]
impl<const C: usize, P: Fn(&mut [u8; 4]), E: FnMut(&mut [[u8; C]])> NullaryFnOnce for OnAvx2<'_, C, P, E> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.0.run(Avx2(self.1));
    }
}

/// Resizes to the nearest pixel, of one sample per pixel, and gives the rows that are kept.
pub(super) fn nearest(source: &Raster<'_>, placement: &Placement, mut emit: impl FnMut(&mut [[u8; 1]])) {
    let columns = nearest_pixels(&placement.horizontal);
    let all = source.columns.clone();
    let mut row = vec![[0]; columns.len()];
    for y in nearest_pixels(&placement.vertical) {
        let samples = source.pixels(y, &all, 1);
        for (pixel, x) in row.iter_mut().zip(&columns) {
            *pixel = [samples[x - all.start]];
        }
        emit(&mut row);
    }
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

#[cfg(test)]
mod tests;
