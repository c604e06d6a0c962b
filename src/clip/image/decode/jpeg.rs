//! JPEG: grey stays grey, four components are CMYK, everything else becomes RGB.

use std::borrow::Cow;

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

use super::Opened;
use crate::clip::image::error::ImageError;
use crate::clip::image::picture::{Mode, Picture};
use crate::clip::image::{ImageFormat, ImageHeader};

pub(super) struct Jpeg<'a> {
    decoder: JpegDecoder<ZCursor<&'a [u8]>>,
    mode: Mode,
    output: ColorSpace,
    width: u32,
    height: u32,
}

impl<'a> Jpeg<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, ImageError> {
        // Strict: the decoder otherwise paints what is missing of a truncated picture grey.
        // The format's own bound on the sides replaces the decoder's smaller one; limits are ours.
        let options = DecoderOptions::default()
            .set_strict_mode(true)
            .set_max_width(usize::from(u16::MAX))
            .set_max_height(usize::from(u16::MAX));
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
        decoder.decode_headers().map_err(refused)?;
        let (Some(info), Some(colour)) = (decoder.info(), decoder.input_colorspace()) else {
            return Err(undecodable("it has no frame header".to_owned()));
        };
        let (mode, output) = match colour {
            ColorSpace::Luma => (Mode::Grey, ColorSpace::Luma),
            four @ (ColorSpace::CMYK | ColorSpace::YCCK) => (Mode::Cmyk, four),
            _ => (Mode::Rgb, ColorSpace::RGB),
        };
        decoder.set_options(options.jpeg_set_out_colorspace(output));
        Ok(Self { decoder, mode, output, width: info.width.into(), height: info.height.into() })
    }
}

impl Opened for Jpeg<'_> {
    fn header(&self) -> ImageHeader {
        ImageHeader { format: ImageFormat::Jpeg, width: self.width, height: self.height }
    }

    fn decode(mut self: Box<Self>) -> Result<Picture<'static>, ImageError> {
        let mut samples = self.decoder.decode().map_err(refused)?;
        let expected = self.width as usize * self.height as usize * self.mode.channels();
        if samples.len() != expected {
            let reason = format!("it holds {} samples, not {expected}", samples.len());
            return Err(undecodable(reason));
        }
        if self.output == ColorSpace::YCCK {
            ycck_to_stored_cmyk(&mut samples);
        }
        if matches!(self.mode, Mode::Cmyk) {
            // Adobe's convention, which Pillow takes all such files to follow: 255 is no ink.
            samples.iter_mut().for_each(|sample| *sample = 255 - *sample);
        }
        Ok(Picture { mode: self.mode, samples: Cow::Owned(samples) })
    }
}

/// Luminance and chrominance become inks; black stays. The arithmetic is libjpeg's (`jdcolor.c`): the conversion
/// to RGB of ITU-T T.871, in 16 fractional bits, inverted.
fn ycck_to_stored_cmyk(samples: &mut [u8]) {
    const HALF: i32 = 1 << 15;
    let fixed = |factor: f64| (factor * 65_536.0 + 0.5) as i32;
    let (red, green_red) = (fixed(1.402), fixed(0.714_14));
    let (blue, green_blue) = (fixed(1.772), fixed(0.344_14));
    for [y, cb, cr, _] in samples.as_chunks_mut::<4>().0 {
        let (light, b, r) = (i32::from(*y), i32::from(*cb) - 128, i32::from(*cr) - 128);
        let rgb = [
            light + ((red * r + HALF) >> 16),
            light + ((HALF - green_blue * b - green_red * r) >> 16),
            light + ((blue * b + HALF) >> 16),
        ];
        [*y, *cb, *cr] = rgb.map(|colour| (255 - colour).clamp(0, 255) as u8);
    }
}

fn refused(error: DecodeErrors) -> ImageError {
    match error {
        DecodeErrors::ZeroError => ImageError::ZeroSize,
        DecodeErrors::Unsupported(scheme) => {
            ImageError::UnsupportedVariant { format: ImageFormat::Jpeg, reason: format!("{scheme:?}") }
        }
        error => undecodable(format!("{error:?}")),
    }
}

fn undecodable(reason: String) -> ImageError {
    ImageError::Undecodable { format: ImageFormat::Jpeg, reason }
}
