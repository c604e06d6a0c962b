//! Pictures become rows: decode, resize, crop, RGB.
//!
//! It does not normalise (the graph does), apply EXIF orientation (open_clip does not) or fetch
//! anything.
//!
//! The result is that of open_clip 3.3's `image_transform(is_train=False)` on Pillow: the picture
//! is resized in its OWN mode, cropped, and only then becomes RGB. The bytes are Pillow's bytes.
//!
//! Limits are checked against the header, before anything is decoded. Memory is then at most a
//! small multiple of the decoded picture, since only what lands in the crop is resized.
//!
//! ```text
//! bytes ── decode ──> Picture, its own mode ── resample ──> rows that are kept ── fit ──> ImageRow
//!             ^                                    ^
//!             └── columns that the crop needs ─────┴── placement: sizes and offsets
//! ```
//!
//! Deliberate differences from open_clip:
//! - 16-bit grey PNG and TIFF: the high byte is used. Pillow clips at 255, which turns such a picture white.
//! - Damaged and truncated pictures are always refused; Pillow repairs some.

mod decode;
mod effort;
mod error;
mod fit;
mod picture;
mod placement;
mod resample;

pub use error::ImageError;

use std::borrow::Cow;

use bytes::Bytes;
use std::fmt;

use decode::Opened;
use picture::{Mode, Picture};
use placement::Placement;

use super::row::ImageRow;
use super::spec::ImageSpec;

/// Makes rows for one model.
#[derive(Clone, Debug)]
pub struct ImagePreprocessor {
    spec: ImageSpec,
    limits: ImageLimits,
}

/// What a caller may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// Longest encoded picture, in bytes.
    pub max_bytes: usize,
    /// Largest width x height, encoded or raw.
    pub max_pixels: u64,
}

/// What an encoded picture says about itself before it is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageHeader {
    pub format: ImageFormat,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// Encodings that are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImageFormat {
    Jpeg,
    Png,
    WebP,
    Gif,
    Bmp,
    Tiff,
}

impl ImagePreprocessor {
    pub fn new(spec: ImageSpec, limits: ImageLimits) -> Self {
        Self { spec, limits }
    }

    /// Reads the header and checks every limit; nothing is decoded.
    pub fn probe(&self, bytes: &[u8]) -> Result<ImageHeader, ImageError> {
        self.open(bytes).map(|opened| opened.header())
    }

    /// The row of an encoded picture. Of an animation, the first frame.
    pub fn encoded(&self, bytes: &[u8]) -> Result<ImageRow, ImageError> {
        let mut opened = self.open(bytes)?;
        let header = opened.header();
        let placement = self.place(header.width, header.height)?;
        let columns = opened.columns(fit::columns(&placement));
        Ok(fit::fit(&opened.decode()?, columns, &placement, &self.spec))
    }

    /// The row of raw pixels: RGB, 8 bits, row by row, `width * height * 3` bytes.
    pub fn rgb(&self, width: u32, height: u32, pixels: &Bytes) -> Result<ImageRow, ImageError> {
        if let Some(row) = self.ready(width, height, pixels) {
            return Ok(row);
        }
        let placement = self.place(width, height)?;
        let expected = u64::from(width) * u64::from(height) * 3;
        if pixels.len() as u64 != expected {
            return Err(ImageError::RgbLength { width, height, expected, actual: pixels.len() });
        }
        let picture = Picture { mode: Mode::Rgb, samples: Cow::Borrowed(pixels) };
        Ok(fit::fit(&picture, 0..width as usize, &placement, &self.spec))
    }

    /// Raw pixels that are a row as they come: nothing is resized, and nothing is copied.
    fn ready(&self, width: u32, height: u32, pixels: &Bytes) -> Option<ImageRow> {
        let fits = (width, height) == (self.spec.width, self.spec.height);
        let whole = pixels.len() == self.spec.row_bytes();
        (fits && whole && self.place(width, height).is_ok()).then(|| ImageRow(pixels.clone()))
    }

    fn open<'a>(&self, bytes: &'a [u8]) -> Result<Box<dyn Opened + 'a>, ImageError> {
        if bytes.is_empty() {
            return Err(ImageError::Empty);
        }
        if bytes.len() > self.limits.max_bytes {
            return Err(ImageError::TooManyBytes { actual: bytes.len(), limit: self.limits.max_bytes });
        }
        let opened = decode::open(bytes)?;
        let header = opened.header();
        self.place(header.width, header.height)?;
        Ok(opened)
    }

    /// Where the pixels go, if the size is acceptable.
    fn place(&self, width: u32, height: u32) -> Result<Placement, ImageError> {
        if width == 0 || height == 0 {
            return Err(ImageError::ZeroSize);
        }
        let limit = self.limits.max_pixels;
        if u64::from(width) * u64::from(height) > limit {
            return Err(ImageError::TooManyPixels { width, height, limit });
        }
        let placement = Placement::new(&self.spec, width, height);
        if resample::is_bounded(&placement) {
            Ok(placement)
        } else {
            Err(ImageError::TooElongated { width, height })
        }
    }
}

impl ImageFormat {
    pub const ALL: [ImageFormat; 6] = [
        ImageFormat::Jpeg,
        ImageFormat::Png,
        ImageFormat::WebP,
        ImageFormat::Gif,
        ImageFormat::Bmp,
        ImageFormat::Tiff,
    ];

    /// All of them, as in `JPEG, PNG and WebP`.
    pub fn listed(conjunction: &str) -> String {
        let [first @ .., last] = Self::ALL.map(ImageFormat::name);
        format!("{} {conjunction} {last}", first.join(", "))
    }

    pub fn name(self) -> &'static str {
        match self {
            ImageFormat::Jpeg => "JPEG",
            ImageFormat::Png => "PNG",
            ImageFormat::WebP => "WebP",
            ImageFormat::Gif => "GIF",
            ImageFormat::Bmp => "BMP",
            ImageFormat::Tiff => "TIFF",
        }
    }

    /// Of files, in lower case.
    pub fn suffixes(self) -> &'static [&'static str] {
        match self {
            ImageFormat::Jpeg => &["jpg", "jpeg"],
            ImageFormat::Png => &["png"],
            ImageFormat::WebP => &["webp"],
            ImageFormat::Gif => &["gif"],
            ImageFormat::Bmp => &["bmp"],
            ImageFormat::Tiff => &["tif", "tiff"],
        }
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests;
