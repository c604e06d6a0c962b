//! From a decoded picture to the model's input: resize in the picture's mode, place, convert.

use super::picture::{Mode, Picture, multiply};
use super::placement::Placement;
use super::resample::{nearest, resample};
use crate::clip::row::ImageRow;
use crate::clip::spec::ImageSpec;

pub(super) fn fit(picture: &Picture<'_>, placement: &Placement, spec: &ImageSpec) -> ImageRow {
    let samples = &picture.samples;
    let kept = match &picture.mode {
        mode if placement.keeps_size() => crop(samples, placement, mode.channels()),
        Mode::Indexed(_) => nearest(samples, placement),
        Mode::Grey => resample::<1>(samples, placement, |_| ()),
        Mode::Rgb => resample::<3>(samples, placement, |_| ()),
        Mode::Cmyk => resample::<4>(samples, placement, |_| ()),
        Mode::GreyAlpha => without_alpha::<2>(samples, placement),
        Mode::Rgba => without_alpha::<4>(samples, placement),
    };
    place(&kept, &picture.mode, placement, spec)
}

/// Cuts the kept part out of a picture that already has its size.
fn crop(samples: &[u8], placement: &Placement, channels: usize) -> Vec<u8> {
    let columns = placement.horizontal.kept_pixels();
    let stride = placement.horizontal.source as usize * channels;
    let mut kept = Vec::with_capacity(columns.len() * placement.vertical.kept as usize * channels);
    for y in placement.vertical.kept_pixels() {
        let row = &samples[y * stride..][..stride];
        kept.extend_from_slice(&row[columns.start * channels..columns.end * channels]);
    }
    kept
}

/// Resizes colours weighted by their alpha, so that invisible pixels do not bleed in. The last of
/// the `C` channels is alpha.
fn without_alpha<const C: usize>(samples: &[u8], placement: &Placement) -> Vec<u8> {
    let mut resized = resample::<C>(samples, placement, |pixels| {
        for pixel in pixels {
            let alpha = pixel[C - 1];
            pixel[..C - 1].iter_mut().for_each(|c| *c = multiply(*c, alpha));
        }
    });
    for pixel in resized.as_chunks_mut::<C>().0 {
        let alpha = pixel[C - 1];
        pixel[..C - 1].iter_mut().for_each(|c| *c = divide(*c, alpha));
    }
    resized
}

/// The inverse, rounded down; a pixel without alpha keeps what it has (Pillow's `rgba2rgbA`).
fn divide(colour: u8, alpha: u8) -> u8 {
    (u32::from(colour) * 255).checked_div(u32::from(alpha)).map_or(colour, |colour| colour.min(255) as u8)
}

/// Puts the kept pixels into the model's input and converts them to RGB. Margins are zero in the
/// picture's mode: black, or the first colour of a palette.
fn place(kept: &[u8], mode: &Mode, placement: &Placement, spec: &ImageSpec) -> ImageRow {
    let Placement { horizontal, vertical, .. } = placement;
    let margin = mode.rgb(&[0; 4]);
    let mut input = margin.repeat(spec.row_bytes() / 3);
    let kept_rows = kept.chunks_exact(horizontal.kept as usize * mode.channels());
    let input_rows = input.chunks_exact_mut(spec.width as usize * 3).skip(vertical.margin as usize);
    for (kept_row, input_row) in kept_rows.zip(input_rows) {
        let pixels = input_row.as_chunks_mut::<3>().0;
        let pixels = &mut pixels[horizontal.margin as usize..];
        if let Mode::Rgb = mode {
            pixels[..horizontal.kept as usize].as_flattened_mut().copy_from_slice(kept_row);
            continue;
        }
        for (kept, pixel) in kept_row.chunks_exact(mode.channels()).zip(pixels) {
            *pixel = mode.rgb(kept);
        }
    }
    ImageRow(input.into())
}
