//! The engine of a GPU: both encoders in buckets, with bound memory, and a CUDA graph for each bucket of each input.
//!
//! All buckets are bound when an input is made, and recorded when they run for the first time, in the warm-up. The
//! engine is run by the thread that opened it: CUDA graphs ask for that.

use ndarray::Array2;

use super::bound::{BoundEncoder, RunId, Staged};
use super::buckets::Buckets;
use super::input::Input;
use super::{Batch, Description, Engine, EngineError};
use crate::clip::row::{ImageRow, TokenRow};
use crate::modality::Modality;

pub struct GpuEngine {
    image: BoundEncoder,
    text: BoundEncoder,
    /// Height, width, channels.
    image_shape: [usize; 3],
    buckets: Buckets,
    description: Description,
}

/// The memory of one input: the tensors of every bucket, and which of them was filled last.
pub(super) struct BoundInput {
    buckets: Buckets,
    /// By rows.
    images: Vec<(RunId, Staged<u8>)>,
    /// By rows, and then by length.
    texts: Vec<(RunId, Staged<i64>)>,
    filled: Option<RunId>,
}

impl GpuEngine {
    pub(super) fn new(
        image: BoundEncoder,
        text: BoundEncoder,
        image_shape: [usize; 3],
        buckets: Buckets,
        description: Description,
    ) -> GpuEngine {
        GpuEngine { image, text, image_shape, buckets, description }
    }
}

impl Engine for GpuEngine {
    fn input(&mut self) -> Result<Input, EngineError> {
        let [height, width, channels] = self.image_shape;
        let mut input =
            BoundInput { buckets: self.buckets.clone(), images: vec![], texts: vec![], filled: None };
        for rows in &self.buckets.rows.image {
            input.images.push(self.image.bind(&[*rows, height, width, channels])?);
        }
        for rows in &self.buckets.rows.text {
            for length in &self.buckets.lengths {
                input.texts.push(self.text.bind(&[*rows, *length])?);
            }
        }
        Ok(Input::bound(input))
    }

    fn run(&mut self, input: &Input) -> Result<Array2<f32>, EngineError> {
        let filled = input.filled().expect("an engine runs inputs of its own, once they are filled");
        match input.modality() {
            Modality::Image => self.image.run(filled, input.rows()),
            Modality::Text => self.text.run(filled, input.rows()),
        }
    }

    fn buckets(&self) -> Option<&Buckets> {
        Some(&self.buckets)
    }

    fn stages(&self) -> bool {
        true
    }

    fn description(&self) -> &Description {
        &self.description
    }
}

impl BoundInput {
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
                    place.fill(0);
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

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::engine::device::{Device, Precision};
    use crate::engine::onnx::OnnxModel;
    use crate::modality::ByModality;
    use crate::model::Model;
    use crate::model::graph::Form;

    /// On the CPU provider. Every bucket is run with inputs that change, in both of two inputs.
    #[test]
    fn bound_buckets_give_what_free_runs_give() {
        let Model { spec, image, text, .. } = Model::builtin(Form::PORTABLE).unwrap();
        let bytes = spec.image.row_bytes();
        let onnx = OnnxModel::new(&spec, image, text).unwrap();
        let six = NonZeroUsize::new(6).unwrap();
        let mut free = onnx.open(Device::Cpu, Precision::Fp32, NonZeroUsize::MIN).unwrap();
        let mut bound = onnx
            .open_bound_on_the_cpu(Buckets::up_to(ByModality::both(six), spec.text.context_length))
            .unwrap();
        let mut inputs = [bound.input().unwrap(), bound.input().unwrap()];
        let end = spec.text.vocab_size as u32 - 1;
        let mut seed = 0_usize;
        for (rows, length) in [(1, 2), (2, 8), (3, 9), (4, 32), (5, 3), (6, 20), (1, 30), (3, 9)] {
            let mut next = || {
                seed += 1;
                seed
            };
            let pixels = |seed: usize| (0..bytes).map(|place| (place * seed % 251) as u8).collect();
            let tokens = |seed: usize| {
                let words = (1..length as u32).map(|place| place * seed as u32 % (end - 1));
                words.chain([end]).collect()
            };
            let images = Batch::Images((0..rows).map(|_| ImageRow(pixels(next()))).collect());
            let texts = Batch::Texts((0..rows).map(|_| TokenRow(tokens(next()))).collect());
            for (batch, input) in [images, texts].iter().zip(&mut inputs) {
                input.fill(batch).unwrap();
                let (expected, actual) = (free.embed(batch).unwrap(), bound.run(input).unwrap());
                assert_eq!(expected.dim(), actual.dim());
                let apart = (&expected - &actual).iter().fold(0.0_f32, |most, each| most.max(each.abs()));
                assert!(apart < 1e-4, "{rows} rows of {length}: {apart}");
            }
            inputs.reverse();
        }
    }
}
