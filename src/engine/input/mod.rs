//! What one run of an engine reads: the rows of a batch, put together.
//!
//! It is memory only; what becomes of it is the engine's business. An input is used again and again, so that a batch
//! allocates nothing once the largest one was seen.

mod bound;
mod free;

use super::binding::RunId;
use super::{Batch, EngineError};
use crate::clip::row::TokenRow;
use crate::modality::Modality;
pub(super) use bound::BoundInput;
use free::FreeInput;

pub struct Input {
    modality: Modality,
    rows: usize,
    /// Tokens of the longest text; 0 for images.
    longest: usize,
    /// Tokens of all texts together.
    tokens: usize,
    memory: Memory,
}

enum Memory {
    Free(FreeInput),
    Bound(BoundInput),
}

impl Input {
    /// Empty. Texts are padded with `pad` to `text_length` if there is one, otherwise to the longest of a batch.
    pub fn new(text_length: Option<usize>, pad: u32) -> Input {
        Input::with(Memory::Free(FreeInput::new(text_length, pad)))
    }

    pub(super) fn bound(input: BoundInput) -> Input {
        Input::with(Memory::Bound(input))
    }

    fn with(memory: Memory) -> Input {
        Input { modality: Modality::Image, rows: 0, longest: 0, tokens: 0, memory }
    }

    /// Replaces what was there by the rows of `batch`.
    pub fn fill(&mut self, batch: &Batch) -> Result<(), EngineError> {
        self.modality = batch.modality();
        self.rows = batch.rows();
        self.longest = batch.longest();
        self.tokens = match batch {
            Batch::Images(_) => 0,
            Batch::Texts(rows) => rows.iter().map(|TokenRow(tokens)| tokens.len()).sum(),
        };
        match &mut self.memory {
            Memory::Bound(bound) => bound.fill(batch)?,
            Memory::Free(free) => free.fill(batch),
        }
        Ok(())
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

    /// The images one after another; nothing if the memory is bound.
    pub(super) fn pixels(&self) -> &[u8] {
        match &self.memory {
            Memory::Free(free) => free.pixels(),
            Memory::Bound(_) => &[],
        }
    }

    /// The texts one after another, all of one length; nothing if the memory is bound.
    pub(super) fn ids(&self) -> &[i64] {
        match &self.memory {
            Memory::Free(free) => free.ids(),
            Memory::Bound(_) => &[],
        }
    }

    /// What runs the bound memory that was filled.
    pub(super) fn filled(&self) -> Option<RunId> {
        match &self.memory {
            Memory::Free(_) => None,
            Memory::Bound(bound) => bound.filled(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clip::row::ImageRow;

    #[test]
    fn texts_are_padded_to_the_longest() {
        let mut input = Input::new(None, 0);
        let text = |length: usize| TokenRow(vec![7; length].into());
        input.fill(&Batch::Texts(vec![text(2), text(5), text(1)])).unwrap();
        assert_eq!(input.ids(), [7, 7, 0, 0, 0, 7, 7, 7, 7, 7, 7, 0, 0, 0, 0]);
        assert_eq!((input.rows(), input.longest()), (3, 5));
        assert!((input.padding() - 7.0 / 15.0).abs() < 1e-9);
        input.fill(&Batch::Texts(vec![text(3)])).unwrap();
        assert_eq!((input.ids(), input.padding()), (&[7, 7, 7][..], 0.0));
        input.fill(&Batch::Images(vec![ImageRow(vec![1, 2].into()), ImageRow(vec![3, 4].into())])).unwrap();
        assert_eq!((input.pixels(), input.longest()), (&[1, 2, 3, 4][..], 0));
    }
}
