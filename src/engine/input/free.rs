//! Rows one after another, as many and as long as they are.

use crate::clip::row::{ImageRow, TokenRow};
use crate::engine::Batch;

/// The memory of an input of any size. It grows to that of the largest batch.
#[derive(Default)]
pub(super) struct FreeInput {
    /// Texts are padded to this length, otherwise to that of the longest.
    text_length: Option<usize>,
    /// Id of the token that pads.
    pad: i64,
    pixels: Vec<u8>,
    ids: Vec<i64>,
}

impl FreeInput {
    pub(super) fn new(text_length: Option<usize>, pad: u32) -> FreeInput {
        FreeInput { text_length, pad: pad.into(), ..FreeInput::default() }
    }

    pub(super) fn fill(&mut self, batch: &Batch) {
        match batch {
            Batch::Images(rows) => {
                self.pixels.clear();
                rows.iter().for_each(|ImageRow(pixels)| self.pixels.extend_from_slice(pixels));
            }
            Batch::Texts(rows) => {
                let length = self.text_length.unwrap_or_else(|| batch.longest());
                self.ids.clear();
                for (index, TokenRow(tokens)) in rows.iter().enumerate() {
                    self.ids.extend(tokens.iter().map(|&token| i64::from(token)));
                    self.ids.resize((index + 1) * length, self.pad);
                }
            }
        }
    }

    /// The images one after another.
    pub(super) fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The texts one after another, all of one length.
    pub(super) fn ids(&self) -> &[i64] {
        &self.ids
    }
}
