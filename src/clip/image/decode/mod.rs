//! Encoded bytes become a [`Picture`], in two steps so that limits can be checked between:
//! opening reads the header, decoding the pixels.
//!
//! The `image` crate tells formats apart, and decodes BMP. Its other decoders are used directly rather than
//! through it, since it hides what parity needs: it expands palettes, copies a JPEG before reading it, and fills
//! what is missing of a truncated one with grey.

mod bits;
mod bmp;
mod foreign;
mod gif;
mod jpeg;
mod png;
mod tiff;
mod webp;

use std::ops::Range;

use super::ImageHeader;
use super::error::ImageError;
use super::picture::Picture;

/// A picture whose header was read.
pub(super) trait Opened {
    fn header(&self) -> ImageHeader;

    /// Asks for these columns alone. Returns those that [`Opened::decode`] will give: all, where a decoder cannot do
    /// with less.
    fn columns(&mut self, _columns: Range<usize>) -> Range<usize> {
        0..self.header().width as usize
    }

    fn decode(self: Box<Self>) -> Result<Picture<'static>, ImageError>;
}

/// The format is known by its first bytes; names and media types lie.
pub(super) fn open<'a>(bytes: &'a [u8]) -> Result<Box<dyn Opened + 'a>, ImageError> {
    Ok(match image::guess_format(bytes) {
        Ok(image::ImageFormat::Jpeg) => Box::new(jpeg::Jpeg::open(bytes)?),
        Ok(image::ImageFormat::Png) => Box::new(png::Png::open(bytes)?),
        Ok(image::ImageFormat::WebP) => Box::new(webp::WebP::open(bytes)?),
        Ok(image::ImageFormat::Gif) => Box::new(gif::Gif::open(bytes)?),
        Ok(image::ImageFormat::Bmp) => Box::new(bmp::Bmp::open(bytes)?),
        Ok(image::ImageFormat::Tiff) => Box::new(tiff::Tiff::open(bytes)?),
        _ => return Err(foreign::refusal(bytes)),
    })
}
