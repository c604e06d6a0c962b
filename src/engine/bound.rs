//! The engine of a device with memory of its own, such as a GPU: the encoders in buckets, with bound memory, and on
//! CUDA a graph for each bucket of each input.
//!
//! All buckets are bound when an input is made, and recorded when they run for the first time, in the warm-up. The
//! engine is run by the thread that opened it: CUDA graphs ask for that.

use ndarray::Array2;

use super::binding::BoundEncoder;
use super::buckets::Buckets;
use super::input::{BoundInput, Input};
use super::{Description, Engine, EngineError};
use crate::modality::Modality;

pub struct BoundEngine {
    image: BoundEncoder,
    text: Option<BoundEncoder>,
    /// Height, width, channels.
    image_shape: [usize; 3],
    /// Id of the token that pads.
    pad: u32,
    buckets: Buckets,
    description: Description,
}

impl BoundEngine {
    pub(super) fn new(
        (image, text): (BoundEncoder, Option<BoundEncoder>),
        image_shape: [usize; 3],
        pad: u32,
        buckets: Buckets,
        description: Description,
    ) -> BoundEngine {
        BoundEngine { image, text, image_shape, pad, buckets, description }
    }
}

impl Engine for BoundEngine {
    fn input(&mut self) -> Result<Input, EngineError> {
        let [height, width, channels] = self.image_shape;
        let Buckets { rows, lengths } = &self.buckets;
        let mut images = Vec::new();
        for rows in &rows.image {
            images.push(self.image.bind(&[*rows, height, width, channels])?);
        }
        let mut texts = Vec::new();
        if let Some(text) = &mut self.text {
            for rows in &rows.text {
                for length in lengths {
                    texts.push(text.bind(&[*rows, *length])?);
                }
            }
        }
        Ok(Input::bound(BoundInput::new(self.buckets.clone(), self.pad, images, texts)))
    }

    fn run(&mut self, input: &Input) -> Result<Array2<f32>, EngineError> {
        let filled = input.filled().expect("an engine runs inputs of its own, once they are filled");
        match input.modality() {
            Modality::Image => self.image.run(filled, input.rows()),
            Modality::Text => {
                self.text.as_mut().ok_or_else(EngineError::no_text_encoder)?.run(filled, input.rows())
            }
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

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::path::Path;

    use crate::clip::row::{ImageRow, TokenRow};
    use crate::engine::Batch;
    use crate::engine::device::{Device, Precision, Seat};
    use crate::engine::onnx::OnnxModel;
    use crate::modality::ByModality;
    use crate::model::Model;
    use crate::model::graph::Form;
    use crate::model::variant::Variant;

    /// On the CPU provider. Every bucket is run with inputs that change, in both of two inputs.
    #[test]
    fn bound_buckets_give_what_free_runs_give() {
        let six = NonZeroUsize::new(6).unwrap();
        let engine = |device: Device| {
            let Model { spec, image, text, .. } = Model::builtin(Form::PORTABLE).unwrap();
            let onnx = OnnxModel::new(device, &spec, image, text).unwrap();
            let seat = Seat { max_batch_size: ByModality::both(six), ..Seat::new(device, Precision::Fp32) };
            (onnx.open(&seat).unwrap(), spec)
        };
        let (mut free, spec) = engine(Device::CPU);
        let (mut bound, _) = engine("stand-in:0".parse().unwrap());
        let bytes = spec.image.row_bytes();
        let mut inputs = [bound.input().unwrap(), bound.input().unwrap()];
        let end = spec.text.unwrap().vocab_size as u32 - 1;
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

    /// SigLIP's texts all have one length, and an image encoder alone has none.
    #[test]
    fn models_without_texts_of_any_length_are_bound_too() {
        let two = NonZeroUsize::new(2).unwrap();
        for (name, length) in [("siglip-patch8", Some(16_u32)), ("vision-only", None)] {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden").join(name);
            let engine = |device: Device| {
                let model = Model::from_dir(&directory, &Variant::default(), Form::PORTABLE).unwrap();
                let onnx = OnnxModel::new(device, &model.spec, model.image, model.text).unwrap();
                let seat =
                    Seat { max_batch_size: ByModality::both(two), ..Seat::new(device, Precision::Fp32) };
                (onnx.open(&seat).unwrap(), model.spec.image.row_bytes())
            };
            let ((mut free, bytes), (mut bound, _)) =
                (engine(Device::CPU), engine("stand-in:0".parse().unwrap()));
            let lengths = bound.buckets().unwrap().lengths.clone();
            assert_eq!(lengths, Vec::from_iter(length.map(|length| length as usize)), "{name}");
            let images = Batch::Images(vec![ImageRow(vec![77; bytes].into()); 2]);
            let texts = length.map(|length| Batch::Texts(vec![TokenRow((0..length).collect()); 2]));
            for batch in [images].into_iter().chain(texts) {
                let (expected, actual) = (free.embed(&batch).unwrap(), bound.embed(&batch).unwrap());
                let apart = (&expected - &actual).iter().fold(0.0_f32, |most, each| most.max(each.abs()));
                assert!(apart < 1e-4, "{name}: {apart}");
            }
        }
    }
}
