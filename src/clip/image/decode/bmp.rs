//! BMP, as Pillow's `BmpImagePlugin` reads it: few colours stay a palette, unless they are the shades of grey.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Cursor;

use image::codecs::bmp::BmpDecoder;
use image::{ColorType, ImageDecoder};

use super::Opened;
use crate::clip::image::error::ImageError;
use crate::clip::image::picture::{Mode, Picture, are_shades, palette};
use crate::clip::image::{ImageFormat, ImageHeader};

pub(super) struct Bmp<'a> {
    bytes: &'a [u8],
    decoder: BmpDecoder<Cursor<&'a [u8]>>,
}

impl<'a> Bmp<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let decoder = BmpDecoder::new(Cursor::new(bytes)).map_err(refused)?;
        Ok(Self { bytes, decoder })
    }
}

impl Opened for Bmp<'_> {
    fn header(&self) -> ImageHeader {
        let (width, height) = self.decoder.dimensions();
        ImageHeader { format: ImageFormat::Bmp, width, height }
    }

    fn decode(self: Box<Self>) -> Result<Picture<'static>, ImageError> {
        let (width, height) = self.decoder.dimensions();
        let mode = match self.decoder.color_type() {
            ColorType::Rgba8 => Mode::Rgba,
            _ => Mode::Rgb,
        };
        let colours = self.decoder.get_palette().map(<[[u8; 3]]>::to_vec);
        let mut samples = vec![0; width as usize * height as usize * mode.channels()];
        self.decoder.read_image(&mut samples).map_err(refused)?;
        Ok(match colours {
            // The decoder's own way to give indices knows those of 8 bits only.
            Some(colours) if matches!(mode, Mode::Rgb) => indexed(&samples, &colours, used(self.bytes)),
            _ => Picture { mode, samples: Cow::Owned(samples) },
        })
    }
}

/// The picture before its colours were looked up. `used` is the number of colours that the header announces.
fn indexed(samples: &[u8], colours: &[[u8; 3]], used: usize) -> Picture<'static> {
    let (pixels, _) = samples.as_chunks::<3>();
    if are_shades(&colours[..used.min(colours.len())]) {
        let samples = pixels.iter().map(|pixel| pixel[0]).collect();
        return Picture { mode: Mode::Grey, samples: Cow::Owned(samples) };
    }
    // Of equal colours any will do. A colour that is not among them cannot be: it was looked up there.
    let places: HashMap<[u8; 3], u8> = colours.iter().copied().zip(0..=u8::MAX).collect();
    let samples = pixels.iter().map(|pixel| places.get(pixel).copied().unwrap_or_default()).collect();
    Picture { mode: Mode::Indexed(Box::new(palette(colours))), samples: Cow::Owned(samples) }
}

/// Number of colours: a field of the header, or all that the bits of a pixel can tell apart if it is 0 or the
/// header an old one (`BITMAPCOREHEADER`, 12 bytes) without it.
fn used(bytes: &[u8]) -> usize {
    let word = |at: usize| bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes);
    let half = |at: usize| bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes);
    let core = word(14) == Some(12);
    let bits = half(if core { 24 } else { 28 }).unwrap_or(8).min(8);
    match word(46) {
        Some(used) if !core && used > 0 => used as usize,
        _ => 1 << bits,
    }
}

fn refused(error: image::ImageError) -> ImageError {
    match error {
        image::ImageError::Unsupported(error) => {
            ImageError::UnsupportedVariant { format: ImageFormat::Bmp, reason: error.to_string() }
        }
        error => ImageError::Undecodable { format: ImageFormat::Bmp, reason: error.to_string() },
    }
}
