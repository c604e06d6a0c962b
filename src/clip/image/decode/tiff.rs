//! TIFF: the first picture of a file, in its own mode as Pillow's `TiffImagePlugin` opens it.
//!
//! What is stored plane by plane, turned by an orientation tag, has a palette, or is in floats, signed or CIE
//! numbers is refused: by this module or by the decoder.

use std::borrow::Cow;
use std::io::Cursor;

use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;
use tiff::{ColorType, TiffError};

use super::Opened;
use super::bits::unpack;
use crate::clip::image::error::ImageError;
use crate::clip::image::picture::{Mode, Picture, black_and_white};
use crate::clip::image::{ImageFormat, ImageHeader};

/// Most that one tag may take; those with positions of strips are the longest.
const MAX_TAG_BYTES: usize = 1 << 20;
/// `ExtraSamples`: colours are not multiplied with their alpha.
const UNASSOCIATED_ALPHA: u32 = 2;

pub(super) struct Tiff<'a> {
    decoder: Decoder<Cursor<&'a [u8]>>,
    width: u32,
    height: u32,
    mode: Mode,
    /// Of a sample.
    bits: u8,
}

impl<'a> Tiff<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(refused)?;
        let (width, height) = decoder.dimensions().map_err(refused)?;
        let mut tag = |tag| decoder.find_tag_unsigned::<u32>(tag).map_err(refused);
        let usual = [
            (Tag::Orientation, "it is turned by a tag"),
            (Tag::PlanarConfiguration, "it is stored by planes"),
        ];
        for (name, reason) in usual {
            if tag(name)?.is_some_and(|value| value != 1) {
                return Err(unsupported(reason));
            }
        }
        let (mode, bits) = match decoder.colortype().map_err(refused)? {
            ColorType::Gray(1) => (Mode::Indexed(Box::new(black_and_white())), 1),
            ColorType::Gray(bits @ (2 | 4 | 8 | 16)) => (Mode::Grey, bits),
            ColorType::RGB(bits @ (8 | 16)) => (Mode::Rgb, bits),
            ColorType::RGBA(bits @ (8 | 16)) => {
                let extra = decoder.find_tag_unsigned_vec::<u32>(Tag::ExtraSamples).map_err(refused)?;
                if extra.as_deref() != Some(&[UNASSOCIATED_ALPHA]) {
                    return Err(unsupported("its colours are multiplied with their alpha"));
                }
                (Mode::Rgba, bits)
            }
            ColorType::CMYK(8) => (Mode::Cmyk, 8),
            other => return Err(unsupported(&format!("its pixels are {other:?}"))),
        };
        Ok(Self { decoder, width, height, mode, bits })
    }
}

impl Opened for Tiff<'_> {
    fn header(&self) -> ImageHeader {
        ImageHeader { format: ImageFormat::Tiff, width: self.width, height: self.height }
    }

    fn decode(self: Box<Self>) -> Result<Picture<'static>, ImageError> {
        let Self { decoder, width, height, mode, bits } = *self;
        let row_bits = u64::from(width) * mode.channels() as u64 * u64::from(bits);
        let bytes = (row_bits.div_ceil(8) * u64::from(height)) as usize;
        let mut limits = Limits::default();
        limits.decoding_buffer_size = bytes;
        limits.intermediate_buffer_size = bytes + MAX_TAG_BYTES;
        limits.ifd_value_size = MAX_TAG_BYTES;
        let samples = match decoder.with_limits(limits).read_image().map_err(refused)? {
            DecodingResult::U8(samples) => samples,
            // Of 16 bits the high byte is kept.
            DecodingResult::U16(samples) => samples.into_iter().map(|sample| (sample >> 8) as u8).collect(),
            _ => return Err(unsupported("its samples are not unsigned integers")),
        };
        let samples = if bits < 8 { unpack(&samples, bits, &mode, width as usize) } else { samples };
        let expected = width as usize * height as usize * mode.channels();
        if samples.len() != expected {
            return Err(undecodable(format!("it holds {} samples, not {expected}", samples.len())));
        }
        Ok(Picture { mode, samples: Cow::Owned(samples) })
    }
}

fn refused(error: TiffError) -> ImageError {
    match error {
        TiffError::UnsupportedError(error) => unsupported(&error.to_string()),
        error => undecodable(error.to_string()),
    }
}

fn unsupported(reason: &str) -> ImageError {
    ImageError::UnsupportedVariant { format: ImageFormat::Tiff, reason: reason.to_owned() }
}

fn undecodable(reason: String) -> ImageError {
    ImageError::Undecodable { format: ImageFormat::Tiff, reason }
}
