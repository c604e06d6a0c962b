//! Encoded bytes become a [`Picture`], in two steps so that limits can be checked between:
//! opening reads the header, decoding the pixels.
//!
//! The decoders are used directly rather than through the `image` crate, which hides what parity
//! needs: it expands palettes, copies a JPEG before reading it, and fills what is missing of a
//! truncated one with grey.

mod jpeg;
mod png;
mod webp;

use super::error::ImageError;
use super::picture::Picture;
use super::{ImageFormat, ImageHeader};

/// A picture whose header was read.
pub(super) trait Opened {
    fn header(&self) -> ImageHeader;

    fn decode(self: Box<Self>) -> Result<Picture<'static>, ImageError>;
}

pub(super) fn open<'a>(bytes: &'a [u8]) -> Result<Box<dyn Opened + 'a>, ImageError> {
    Ok(match format(bytes).ok_or(ImageError::UnknownFormat)? {
        ImageFormat::Jpeg => Box::new(jpeg::Jpeg::open(bytes)?),
        ImageFormat::Png => Box::new(png::Png::open(bytes)?),
        ImageFormat::WebP => Box::new(webp::WebP::open(bytes)?),
    })
}

/// The format by its first bytes; names and media types lie.
fn format(bytes: &[u8]) -> Option<ImageFormat> {
    match bytes {
        [0xFF, 0xD8, 0xFF, ..] => Some(ImageFormat::Jpeg),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Some(ImageFormat::Png),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(ImageFormat::WebP),
        _ => None,
    }
}
