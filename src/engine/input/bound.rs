//! Memory of certain sizes, where the device reads it: the tensors of every bucket.

use crate::clip::row::{ImageRow, TokenRow};
use crate::engine::binding::{RunId, TensorPair};
use crate::engine::buckets::Buckets;
use crate::engine::{Batch, EngineError};

/// The memory of one input: the tensors of every bucket, and which of them was filled last.
pub(in crate::engine) struct BoundInput {
    buckets: Buckets,
    /// Id of the token that pads.
    pad: i64,
    /// By rows.
    images: Vec<(RunId, TensorPair<u8>)>,
    /// By rows, and then by length.
    texts: Vec<(RunId, TensorPair<i64>)>,
    filled: Option<RunId>,
}

impl BoundInput {
    /// `images` by rows, `texts` by rows and then by length.
    pub(in crate::engine) fn new(
        buckets: Buckets,
        pad: u32,
        images: Vec<(RunId, TensorPair<u8>)>,
        texts: Vec<(RunId, TensorPair<i64>)>,
    ) -> BoundInput {
        BoundInput { buckets, pad: pad.into(), images, texts, filled: None }
    }

    /// Rows that only pad keep what was there: it is a valid input, and its result is not looked at.
    pub(super) fn fill(&mut self, batch: &Batch) -> Result<(), EngineError> {
        let filled = match batch {
            Batch::Images(rows) => {
                let place = self.buckets.place_of_images(rows.len());
                let (id, staged) = &mut self.images[place];
                let length = staged.values().len() / self.buckets.rows.image[place];
                for (place, ImageRow(pixels)) in staged.values().chunks_exact_mut(length).zip(rows) {
                    place.copy_from_slice(pixels);
                }
                staged.copy()?;
                *id
            }
            Batch::Texts(rows) => {
                let (row, column) = self.buckets.place_of_texts(rows.len(), batch.longest());
                let length = self.buckets.lengths[column];
                let (id, staged) = &mut self.texts[row * self.buckets.lengths.len() + column];
                for (place, TokenRow(tokens)) in staged.values().chunks_exact_mut(length).zip(rows) {
                    place.fill(self.pad);
                    place.iter_mut().zip(tokens.iter()).for_each(|(id, token)| *id = i64::from(*token));
                }
                staged.copy()?;
                *id
            }
        };
        self.filled = Some(filled);
        Ok(())
    }

    pub(super) fn filled(&self) -> Option<RunId> {
        self.filled
    }
}
