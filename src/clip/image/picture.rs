//! A decoded picture in the mode it was stored in.

use std::borrow::Cow;

/// All its rows, and those of its columns that were asked for.
pub(super) struct Picture<'a> {
    pub(super) mode: Mode,
    /// Row by row, without padding.
    pub(super) samples: Cow<'a, [u8]>,
}

/// What the samples of a pixel are. Pillow's names: L, LA, RGB, RGBA, CMYK, and P or 1.
pub(super) enum Mode {
    Grey,
    GreyAlpha,
    Rgb,
    Rgba,
    /// Ink, 0 for none.
    Cmyk,
    /// One index per pixel. There is nothing between two indices, so Pillow resizes these to the
    /// nearest pixel; black-and-white counts as two colours.
    Indexed(Box<Palette>),
}

pub(super) type Palette = [[u8; 3]; 256];

/// The file's colours; an index beyond them shows what it shows in Pillow, black.
pub(super) fn palette(colours: &[[u8; 3]]) -> Palette {
    let mut palette = [[0; 3]; 256];
    palette.iter_mut().zip(colours).for_each(|(entry, colour)| *entry = *colour);
    palette
}

/// Colours that are the shades of grey in order, and so no palette to Pillow.
pub(super) fn are_shades(colours: &[[u8; 3]]) -> bool {
    colours.iter().zip(0..=u8::MAX).all(|(colour, shade)| *colour == [shade; 3])
}

pub(super) fn black_and_white() -> Palette {
    palette(&[[0; 3], [255; 3]])
}

impl Mode {
    /// Samples, that is bytes, per pixel.
    pub(super) fn channels(&self) -> usize {
        match self {
            Mode::Grey | Mode::Indexed(_) => 1,
            Mode::GreyAlpha => 2,
            Mode::Rgb => 3,
            Mode::Rgba | Mode::Cmyk => 4,
        }
    }

    /// The colour of one pixel; alpha is dropped, not blended, as Pillow's `convert("RGB")` does.
    pub(super) fn rgb(&self, pixel: &[u8]) -> [u8; 3] {
        match self {
            Mode::Grey | Mode::GreyAlpha => [pixel[0]; 3],
            Mode::Rgb | Mode::Rgba => [pixel[0], pixel[1], pixel[2]],
            // Pillow's `cmyk2rgb`.
            Mode::Cmyk => {
                let white = 255 - pixel[3];
                [0, 1, 2].map(|ink| white - multiply(pixel[ink], white))
            }
            Mode::Indexed(palette) => palette[usize::from(pixel[0])],
        }
    }
}

/// `colour * share / 255`, rounded (Pillow's `MULDIV255`).
pub(super) fn multiply(colour: u8, share: u8) -> u8 {
    let product = u32::from(colour) * u32::from(share) + 128;
    ((product + (product >> 8)) >> 8) as u8
}
