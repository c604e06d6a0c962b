//! From a decoded picture to the model's input: resize in the picture's mode, place, convert.

use std::ops::Range;

use super::picture::{Mode, Picture, multiply};
use super::placement::Placement;
use super::resample::{self, Raster, nearest, resample};
use crate::clip::row::ImageRow;
use crate::clip::spec::ImageSpec;

/// The columns of a picture that reach the input.
pub(super) fn columns(placement: &Placement) -> Range<usize> {
    if placement.keeps_size() { placement.horizontal.kept_pixels() } else { resample::columns(placement) }
}

/// `decoded` are the columns that the picture has.
pub(super) fn fit(
    picture: &Picture<'_>,
    decoded: Range<usize>,
    placement: &Placement,
    spec: &ImageSpec,
) -> ImageRow {
    let mode = &picture.mode;
    let source = Raster { samples: &picture.samples, columns: decoded };
    let mut input = Input::new(mode, placement, spec);
    match mode {
        mode if placement.keeps_size() => {
            for y in placement.vertical.kept_pixels() {
                let columns = placement.horizontal.kept_pixels();
                input.push(source.pixels(y, &columns, mode.channels()));
            }
        }
        Mode::Indexed(_) => nearest(&source, placement, |row| input.push(row.as_flattened())),
        Mode::Grey => resample::<1>(&source, placement, |_| (), |row| input.push(row.as_flattened())),
        Mode::Rgb => resample::<3>(&source, placement, |_| (), |row| input.push(row.as_flattened())),
        Mode::Cmyk => resample::<4>(&source, placement, |_| (), |row| input.push(row.as_flattened())),
        Mode::GreyAlpha => without_alpha::<2>(&source, placement, |row| input.push(row)),
        Mode::Rgba => without_alpha::<4>(&source, placement, |row| input.push(row)),
    }
    ImageRow(input.pixels.into())
}

/// Resizes colours weighted by their alpha, so that invisible pixels do not bleed in. The last of
/// the `C` channels is alpha.
fn without_alpha<const C: usize>(source: &Raster<'_>, placement: &Placement, mut emit: impl FnMut(&[u8])) {
    let weigh = |pixel: &mut [u8; 4]| {
        let alpha = pixel[C - 1];
        pixel[..C - 1].iter_mut().for_each(|c| *c = multiply(*c, alpha));
    };
    resample::<C>(source, placement, weigh, |row| {
        for pixel in row.iter_mut() {
            let alpha = pixel[C - 1];
            pixel[..C - 1].iter_mut().for_each(|c| *c = divide(*c, alpha));
        }
        emit(row.as_flattened());
    });
}

/// The inverse, rounded down; a pixel without alpha keeps what it has (Pillow's `rgba2rgbA`).
fn divide(colour: u8, alpha: u8) -> u8 {
    (u32::from(colour) * 255).checked_div(u32::from(alpha)).map_or(colour, |colour| colour.min(255) as u8)
}

/// The model's input while it is filled from above, as RGB. Margins are zero in the picture's mode: black, or the
/// first colour of a palette.
struct Input<'a> {
    mode: &'a Mode,
    pixels: Vec<u8>,
    /// Where the next row of the picture goes, and how far it is from one to the next.
    next: Range<usize>,
    stride: usize,
}

impl<'a> Input<'a> {
    fn new(mode: &'a Mode, placement: &Placement, spec: &ImageSpec) -> Self {
        let Placement { horizontal, vertical, .. } = placement;
        let mut pixels = vec![0; spec.row_bytes()];
        let margin = mode.rgb(&[0; 4]);
        if margin != [0; 3] {
            pixels.as_chunks_mut().0.fill(margin);
        }
        let stride = spec.width as usize * 3;
        let start = vertical.margin as usize * stride + horizontal.margin as usize * 3;
        Self { mode, pixels, next: start..start + horizontal.kept as usize * 3, stride }
    }

    /// The next row of the picture, in its mode.
    fn push(&mut self, row: &[u8]) {
        let pixels = &mut self.pixels[self.next.clone()];
        self.next = self.next.start + self.stride..self.next.end + self.stride;
        if let Mode::Rgb = self.mode {
            return pixels.copy_from_slice(row);
        }
        for (pixel, samples) in
            pixels.as_chunks_mut().0.iter_mut().zip(row.chunks_exact(self.mode.channels()))
        {
            *pixel = self.mode.rgb(samples);
        }
    }
}
