//! GIF: the first frame on its canvas, as Pillow's `GifImagePlugin` shows it; transparency plays no part.

use std::borrow::Cow;

use gif::{ColorOutput, DecodeOptions, Decoder, DecodingError, MemoryLimit};

use super::Opened;
use crate::clip::image::error::ImageError;
use crate::clip::image::picture::{Mode, Picture, are_shades, palette};
use crate::clip::image::{ImageFormat, ImageHeader};

pub(super) struct Gif<'a> {
    decoder: Decoder<&'a [u8]>,
    frame: Frame,
    /// Of the canvas, which grows with a frame that does not fit.
    width: usize,
    height: usize,
}

/// Where the first frame is, and in what colours.
struct Frame {
    left: usize,
    top: usize,
    width: usize,
    /// What the canvas around it shows.
    around: u8,
    mode: Mode,
}

impl<'a> Gif<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let mut options = DecodeOptions::new();
        options.set_color_output(ColorOutput::Indexed);
        // A frame is at most as large as the canvas that its size makes, and that was checked.
        options.set_memory_limit(MemoryLimit::Unlimited);
        let mut decoder = options.read_info(bytes).map_err(refused)?;
        let (width, height) = (usize::from(decoder.width()), usize::from(decoder.height()));
        let global = decoder.global_palette().map(<[u8]>::to_vec);
        let Some(frame) = decoder.next_frame_info().map_err(refused)? else {
            return Err(undecodable("it has no frame".to_owned()));
        };
        let (left, top) = (usize::from(frame.left), usize::from(frame.top));
        let (frame_width, frame_height) = (usize::from(frame.width), usize::from(frame.height));
        let colours = frame.palette.clone().or(global).unwrap_or_default();
        let frame = Frame {
            left,
            top,
            width: frame_width,
            around: frame.transparent.unwrap_or(0),
            mode: mode(&colours),
        };
        let (width, height) = (width.max(left + frame_width), height.max(top + frame_height));
        Ok(Self { decoder, frame, width, height })
    }
}

impl Opened for Gif<'_> {
    fn header(&self) -> ImageHeader {
        // At most twice 65,535.
        ImageHeader { format: ImageFormat::Gif, width: self.width as u32, height: self.height as u32 }
    }

    fn decode(mut self: Box<Self>) -> Result<Picture<'static>, ImageError> {
        let mut indices = vec![0; self.decoder.buffer_size()];
        self.decoder.read_into_buffer(&mut indices).map_err(refused)?;
        let Frame { left, top, width, around, mode } = self.frame;
        let mut samples = vec![around; self.width * self.height];
        let canvas = samples.chunks_exact_mut(self.width).skip(top);
        for (row, frame_row) in canvas.zip(indices.chunks_exact(width.max(1))) {
            row[left..left + width].copy_from_slice(frame_row);
        }
        Ok(Picture { mode, samples: Cow::Owned(samples) })
    }
}

fn mode(colours: &[u8]) -> Mode {
    let (colours, _) = colours.as_chunks::<3>();
    if are_shades(colours) { Mode::Grey } else { Mode::Indexed(Box::new(palette(colours))) }
}

fn refused(error: DecodingError) -> ImageError {
    undecodable(error.to_string())
}

fn undecodable(reason: String) -> ImageError {
    ImageError::Undecodable { format: ImageFormat::Gif, reason }
}
