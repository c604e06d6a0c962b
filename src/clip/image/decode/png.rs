//! PNG: the mode follows colour type and bit depth as in Pillow's `PngImagePlugin`, and `tRNS` is
//! ignored, since transparency that is not a channel plays no part in a resize.

use std::borrow::Cow;
use std::io::Cursor;

use png::{BitDepth, ColorType, Decoder, DecodingError, Info, Limits, Transformations};

use super::Opened;
use super::bits::unpack;
use crate::clip::image::error::ImageError;
use crate::clip::image::picture::{Mode, Picture, black_and_white, palette};
use crate::clip::image::{ImageFormat, ImageHeader};

/// Most that chunks other than the pixels may take.
const MAX_CHUNK_BYTES: usize = 1 << 20;

pub(super) struct Png<'a> {
    decoder: Decoder<Cursor<&'a [u8]>>,
    width: u32,
    height: u32,
}

impl<'a> Png<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let mut decoder = Decoder::new(Cursor::new(bytes));
        decoder.set_ignore_text_chunk(true);
        decoder.set_ignore_iccp_chunk(true);
        // Of 16 bits the high byte is kept.
        decoder.set_transformations(Transformations::STRIP_16);
        let info = decoder.read_header_info().map_err(refused)?;
        let (width, height) = (info.width, info.height);
        Ok(Self { decoder, width, height })
    }
}

impl Opened for Png<'_> {
    fn header(&self) -> ImageHeader {
        ImageHeader { format: ImageFormat::Png, width: self.width, height: self.height }
    }

    fn decode(mut self: Box<Self>) -> Result<Picture<'static>, ImageError> {
        // 8 bytes: the widest pixel, RGBA with 16 bits. The decoder counts one row against it.
        let bytes = MAX_CHUNK_BYTES + self.width as usize * 8;
        self.decoder.set_limits(Limits { bytes });
        let mut reader = self.decoder.read_info().map_err(refused)?;
        let len = reader.output_buffer_size();
        let mut samples = vec![0; len.ok_or_else(|| refused(DecodingError::LimitsExceeded))?];
        let output = reader.next_frame(&mut samples).map_err(refused)?;
        let info = reader.info();
        if (output.width, output.height) != (self.width, self.height) {
            return Err(undecodable("its first frame is not the whole picture".to_owned()));
        }
        let mode = mode(info);
        Ok(Picture {
            samples: Cow::Owned(match info.bit_depth {
                BitDepth::Eight | BitDepth::Sixteen => samples,
                depth => unpack(&samples, depth as u8, &mode, self.width as usize),
            }),
            mode,
        })
    }
}

fn mode(info: &Info<'_>) -> Mode {
    match (info.color_type, info.bit_depth) {
        (ColorType::Grayscale, BitDepth::One) => Mode::Indexed(Box::new(black_and_white())),
        (ColorType::Grayscale, _) => Mode::Grey,
        (ColorType::GrayscaleAlpha, _) => Mode::GreyAlpha,
        (ColorType::Rgb, _) => Mode::Rgb,
        (ColorType::Rgba, _) => Mode::Rgba,
        (ColorType::Indexed, _) => {
            let colours = info.palette.as_deref().unwrap_or_default();
            Mode::Indexed(Box::new(palette(colours.as_chunks().0)))
        }
    }
}

fn refused(error: DecodingError) -> ImageError {
    match error {
        DecodingError::LimitsExceeded => undecodable("its chunks take too much memory".to_owned()),
        error => undecodable(error.to_string()),
    }
}

fn undecodable(reason: String) -> ImageError {
    ImageError::Undecodable { format: ImageFormat::Png, reason }
}
