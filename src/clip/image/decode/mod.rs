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
pub(super) enum Opened<'a> {
    Jpeg(jpeg::Jpeg<'a>),
    Png(png::Png<'a>),
    WebP(webp::WebP<'a>),
}

impl<'a> Opened<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, ImageError> {
        match format(bytes).ok_or(ImageError::UnknownFormat)? {
            ImageFormat::Jpeg => jpeg::Jpeg::open(bytes).map(Opened::Jpeg),
            ImageFormat::Png => png::Png::open(bytes).map(Opened::Png),
            ImageFormat::WebP => webp::WebP::open(bytes).map(Opened::WebP),
        }
    }

    pub(super) fn header(&self) -> ImageHeader {
        let (format, (width, height)) = match self {
            Opened::Jpeg(jpeg) => (ImageFormat::Jpeg, jpeg.size()),
            Opened::Png(png) => (ImageFormat::Png, png.size()),
            Opened::WebP(webp) => (ImageFormat::WebP, webp.size()),
        };
        ImageHeader { format, width, height }
    }

    pub(super) fn decode(self) -> Result<Picture<'static>, ImageError> {
        match self {
            Opened::Jpeg(jpeg) => jpeg.decode(),
            Opened::Png(png) => png.decode(),
            Opened::WebP(webp) => webp.decode(),
        }
    }
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
