//! WebP: RGB or RGBA, of an animation the first frame.

use std::borrow::Cow;
use std::io::Cursor;

use image_webp::{DecodingError, WebPDecoder};

use super::Opened;
use crate::clip::image::error::ImageError;
use crate::clip::image::picture::{Mode, Picture};
use crate::clip::image::{ImageFormat, ImageHeader};

/// `RIFF`, the length, `WEBP`.
const CONTAINER_HEADER: usize = 12;
/// Position, size, duration and flags before the chunks of an animation's frame.
const FRAME_HEADER: usize = 16;

pub(super) struct WebP<'a> {
    decoder: WebPDecoder<Cursor<&'a [u8]>>,
}

impl<'a> WebP<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(refused)?;
        // The decoder compares a lossy frame with its canvas only after decoding it: a tiny
        // canvas could hide 16,383 x 16,383 pixels.
        if !frames_fit(&bytes[CONTAINER_HEADER..], decoder.dimensions()) {
            return Err(undecodable("a frame has not the size it is announced with".to_owned()));
        }
        Ok(Self { decoder })
    }
}

impl Opened for WebP<'_> {
    fn header(&self) -> ImageHeader {
        let (width, height) = self.decoder.dimensions();
        ImageHeader { format: ImageFormat::WebP, width, height }
    }

    fn decode(mut self: Box<Self>) -> Result<Picture<'static>, ImageError> {
        let (width, height) = self.decoder.dimensions();
        let mode = if self.decoder.has_alpha() { Mode::Rgba } else { Mode::Rgb };
        let mut samples = vec![0; width as usize * height as usize * mode.channels()];
        self.decoder.read_image(&mut samples).map_err(refused)?;
        Ok(Picture { mode, samples: Cow::Owned(samples) })
    }
}

/// Whether every lossy frame of a file has the size that it is announced with: the canvas's, or that of its
/// frame of the animation.
fn frames_fit(chunks: &[u8], size: (u32, u32)) -> bool {
    riff_chunks(chunks).all(|(name, payload)| match name {
        b"ANMF" => match (frame_size(payload), payload.get(FRAME_HEADER..)) {
            // No deeper: a frame holds no frames, and a file may claim thousands of levels.
            (Some(size), Some(chunks)) => riff_chunks(chunks).all(|chunk| lossy_fits(chunk, size)),
            _ => false,
        },
        _ => lossy_fits((name, payload), size),
    })
}

fn lossy_fits((name, payload): (&[u8; 4], &[u8]), size: (u32, u32)) -> bool {
    name != b"VP8 " || lossy_size(payload) == Some(size)
}

/// Names and payloads: each chunk is a name, a 32-bit length, and that many bytes, made even.
/// What is cut off is left out.
fn riff_chunks(mut rest: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let (name, after) = rest.split_first_chunk()?;
        let (len, after) = after.split_first_chunk()?;
        let len = u32::from_le_bytes(*len) as usize;
        let payload = &after[..len.min(after.len())];
        rest = after.get(len.next_multiple_of(2)..).unwrap_or_default();
        Some((name, payload))
    })
}

/// 14 bits each, after the frame tag and the start code (RFC 6386, section 9.1).
fn lossy_size(payload: &[u8]) -> Option<(u32, u32)> {
    let side = |at| payload.get(at..)?.first_chunk().copied().map(u16::from_le_bytes);
    Some((u32::from(side(6)? & 0x3FFF), u32::from(side(8)? & 0x3FFF)))
}

/// 24 bits each, less one, after the position (RFC 9649, section 2.7.1.1).
fn frame_size(payload: &[u8]) -> Option<(u32, u32)> {
    let side = |at| {
        let [low, middle, high] = *payload.get(at..)?.first_chunk()?;
        Some(u32::from_le_bytes([low, middle, high, 0]) + 1)
    };
    Some((side(6)?, side(9)?))
}

fn refused(error: DecodingError) -> ImageError {
    match error {
        DecodingError::UnsupportedFeature(reason) => {
            ImageError::UnsupportedVariant { format: ImageFormat::WebP, reason }
        }
        error => undecodable(error.to_string()),
    }
}

fn undecodable(reason: String) -> ImageError {
    ImageError::Undecodable { format: ImageFormat::WebP, reason }
}
