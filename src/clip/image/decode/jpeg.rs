//! JPEG: grey stays grey, four components are CMYK, everything else becomes RGB. The samples are libjpeg-turbo's, and
//! so Pillow's, to the bit.
//!
//! Rows are decoded as far as their columns are asked for, and all of them: the end of a file says whether it is whole.

use std::borrow::Cow;
use std::ops::Range;

use libjpeg_turbo_rs::{DecodeLimits, Decoder, FrameHeader, JpegError, PixelFormat};

use super::Opened;
use crate::clip::image::error::ImageError;
use crate::clip::image::picture::{Mode, Picture};
use crate::clip::image::{ImageFormat, ImageHeader};

/// Passes over a picture that a progressive file may make; each costs time for all of it, and may have next to no
/// bytes. Encoders make ten or so.
const MAX_SCANS: usize = 100;

/// The format's own bounds on the sides, and one on the scans. Limits on the size are checked by the caller.
const LIMITS: DecodeLimits = DecodeLimits {
    max_width: u16::MAX as usize,
    max_height: u16::MAX as usize,
    max_pixels: u64::MAX,
    max_scans: MAX_SCANS,
    max_memory: None,
};

/// Columns beside those that are asked for. Colours of lower resolution are interpolated between neighbours, and only
/// where there are three of them: of up to four columns each.
const NEIGHBOURS: usize = 8;

/// Columns of a block of samples.
const BLOCK: usize = 8;

pub(super) struct Jpeg<'a> {
    decoder: Decoder<'a>,
    mode: Mode,
    columns: Range<usize>,
}

impl<'a> Jpeg<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let mut decoder = Decoder::new_with_limits(bytes, LIMITS).map_err(refused)?;
        // The decoder otherwise paints what is missing of a damaged picture grey.
        decoder.set_stop_on_warning(true);
        let frame = decoder.header();
        if frame.precision != 8 || frame.is_lossless {
            return Err(unsupported("its samples are not the usual ones of 8 bits"));
        }
        if !has_whole_ratios(frame) {
            return Err(unsupported("its components are not sampled in whole ratios to the first"));
        }
        let (mode, output) = match frame.components.len() {
            1 => (Mode::Grey, PixelFormat::Grayscale),
            3 => (Mode::Rgb, PixelFormat::Rgb),
            4 => (Mode::Cmyk, PixelFormat::Cmyk),
            other => return Err(unsupported(&format!("it has {other} components"))),
        };
        let columns = 0..frame.width.into();
        decoder.set_output_format(output);
        Ok(Self { decoder, mode, columns })
    }
}

impl Opened for Jpeg<'_> {
    fn header(&self) -> ImageHeader {
        let frame = self.decoder.header();
        ImageHeader { format: ImageFormat::Jpeg, width: frame.width.into(), height: frame.height.into() }
    }

    fn columns(&mut self, columns: Range<usize>) -> Range<usize> {
        let frame = self.decoder.header();
        if matches!(self.mode, Mode::Cmyk) {
            // The decoder (0.9) gives the columns at the left instead.
            return self.columns.clone();
        }
        // A crop begins between two parts that have whole blocks of every component, of which the first is the finest.
        let part = BLOCK * usize::from(frame.components[0].horizontal_sampling);
        let start = columns.start.saturating_sub(NEIGHBOURS) / part * part;
        let end = (columns.end + NEIGHBOURS).min(frame.width.into());
        self.decoder.set_crop(start, end - start);
        self.columns = start..end;
        self.columns.clone()
    }

    fn decode(self: Box<Self>) -> Result<Picture<'static>, ImageError> {
        let mut samples = self.decoder.decode_image().map_err(refused)?.into_vec();
        let expected = self.columns.len() * self.decoder.header().height() * self.mode.channels();
        if samples.len() != expected {
            return Err(undecodable(format!("it holds {} samples, not {expected}", samples.len())));
        }
        if matches!(self.mode, Mode::Cmyk) {
            // Adobe's convention, which Pillow takes all such files to follow: 255 is no ink.
            samples.iter_mut().for_each(|sample| *sample = 255 - *sample);
        }
        Ok(Picture { mode: self.mode, samples: Cow::Owned(samples) })
    }
}

/// Whether every component has the resolution of the first, or a whole fraction of it. The decoder panics at some
/// files that have not, and no encoder makes them.
fn has_whole_ratios(frame: &FrameHeader) -> bool {
    let Some(first) = frame.components.first() else { return false };
    frame.components.iter().all(|component| {
        first.horizontal_sampling.is_multiple_of(component.horizontal_sampling)
            && first.vertical_sampling.is_multiple_of(component.vertical_sampling)
    })
}

fn refused(error: JpegError) -> ImageError {
    match error {
        JpegError::Unsupported(scheme) => unsupported(&scheme),
        error => undecodable(error.to_string()),
    }
}

fn undecodable(reason: String) -> ImageError {
    ImageError::Undecodable { format: ImageFormat::Jpeg, reason }
}

fn unsupported(reason: &str) -> ImageError {
    ImageError::UnsupportedVariant { format: ImageFormat::Jpeg, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests;
