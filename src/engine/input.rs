//! What one run of an engine reads: the rows of a batch, put together.
//!
//! It is memory only; what becomes of it is the engine's business. An input is used again and again, so that a batch
//! allocates nothing once the largest one was seen.

use super::Batch;
use crate::clip::row::{ImageRow, TokenRow};
use crate::modality::Modality;

pub struct Input {
    modality: Modality,
    rows: usize,
    /// Tokens of the longest text; 0 for images.
    longest: usize,
    /// Tokens of all texts together.
    tokens: usize,
    /// Texts are padded to this length, otherwise to that of the longest.
    text_length: Option<usize>,
    pixels: Vec<u8>,
    ids: Vec<i64>,
}

impl Input {
    /// Empty. Texts are padded to `text_length` if there is one, otherwise to the longest of a batch.
    pub fn new(text_length: Option<usize>) -> Input {
        Input {
            modality: Modality::Image,
            rows: 0,
            longest: 0,
            tokens: 0,
            text_length,
            pixels: Vec::new(),
            ids: Vec::new(),
        }
    }

    /// Replaces what was there by the rows of `batch`.
    pub fn fill(&mut self, batch: &Batch) {
        self.modality = batch.modality();
        self.rows = batch.rows();
        match batch {
            Batch::Images(rows) => self.fill_images(rows),
            Batch::Texts(rows) => self.fill_texts(rows),
        }
    }

    fn fill_images(&mut self, rows: &[ImageRow]) {
        (self.longest, self.tokens) = (0, 0);
        self.pixels.clear();
        for ImageRow(pixels) in rows {
            self.pixels.extend_from_slice(pixels);
        }
    }

    /// Padding is 0; encoders do not look beyond a row's end token.
    fn fill_texts(&mut self, rows: &[TokenRow]) {
        let lengths = rows.iter().map(|TokenRow(tokens)| tokens.len());
        self.longest = lengths.clone().max().unwrap_or(0);
        self.tokens = lengths.sum();
        let length = self.text_length.unwrap_or(self.longest);
        self.ids.clear();
        for (index, TokenRow(tokens)) in rows.iter().enumerate() {
            self.ids.extend(tokens.iter().map(|&token| i64::from(token)));
            self.ids.resize((index + 1) * length, 0);
        }
    }

    pub fn modality(&self) -> Modality {
        self.modality
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Tokens of the longest text; 0 for images.
    pub fn longest(&self) -> u32 {
        u32::try_from(self.longest).unwrap_or(u32::MAX)
    }

    /// Share of the tokens that pads shorter texts to the longest.
    pub fn padding(&self) -> f64 {
        1.0 - self.tokens as f64 / (self.longest * self.rows).max(1) as f64
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
