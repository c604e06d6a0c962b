//! A decoded picture in the mode it was stored in.

use std::borrow::Cow;

/// Its size is the header's.
pub(super) struct Picture<'a> {
    pub(super) mode: Mode,
    /// Row by row, without padding.
    pub(super) samples: Cow<'a, [u8]>,
}

/// What the samples of a pixel are. Pillow's names: L, LA, RGB, RGBA, and P or 1.
pub(super) enum Mode {
    Grey,
    GreyAlpha,
    Rgb,
    Rgba,
    /// One index per pixel. There is nothing between two indices, so Pillow resizes these to the
    /// nearest pixel; black-and-white counts as two colours.
    Indexed(Box<Palette>),
}

pub(super) type Palette = [[u8; 3]; 256];

impl Mode {
    /// Samples, that is bytes, per pixel.
    pub(super) fn channels(&self) -> usize {
        match self {
            Mode::Grey | Mode::Indexed(_) => 1,
            Mode::GreyAlpha => 2,
            Mode::Rgb => 3,
            Mode::Rgba => 4,
        }
    }

    /// The colour of one pixel; alpha is dropped, not blended, as Pillow's `convert("RGB")` does.
    pub(super) fn rgb(&self, pixel: &[u8]) -> [u8; 3] {
        match self {
            Mode::Grey | Mode::GreyAlpha => [pixel[0]; 3],
            Mode::Rgb | Mode::Rgba => [pixel[0], pixel[1], pixel[2]],
            Mode::Indexed(palette) => palette[usize::from(pixel[0])],
        }
    }
}
