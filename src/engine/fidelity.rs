//! How close one engine's embeddings are to another's: the cosine over made-up inputs.
//!
//! The inputs are smooth noise and random tokens, the same for every call. They show what a precision costs a model;
//! they are no data set, and retrieval and accuracy on real data are not measured here.

use std::fmt;

use ndarray::ArrayView1;

use super::{Batch, Engine, EngineError};
use crate::clip::embedding::{dot, normalize};
use crate::clip::row::{ImageRow, TokenRow};
use crate::clip::spec::{ClipSpec, PaddedTo, TextSpec};

/// Rows of each modality.
const ROWS: usize = 16;

/// Cosines between two engines' embeddings of the same rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fidelity {
    pub images: Cosine,
    /// `None`: the model has no text encoder.
    pub texts: Option<Cosine>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cosine {
    pub mean: f32,
    pub min: f32,
}

impl fmt::Display for Cosine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mean {:.6}, min {:.6}", self.mean, self.min)
    }
}

/// Compares two engines of the same model.
pub fn fidelity(
    spec: &ClipSpec,
    reference: &mut dyn Engine,
    engine: &mut dyn Engine,
) -> Result<Fidelity, EngineError> {
    let mut cosine = |batches: Vec<Batch>| -> Result<Cosine, EngineError> {
        let mut cosines = Vec::new();
        for batch in batches {
            let (expected, actual) = (reference.embed(&batch)?, engine.embed(&batch)?);
            cosines
                .extend(expected.outer_iter().zip(actual.outer_iter()).map(|(a, b)| dot(&unit(a), &unit(b))));
        }
        Ok(Cosine {
            mean: cosines.iter().sum::<f32>() / cosines.len() as f32,
            min: cosines.into_iter().fold(f32::INFINITY, f32::min),
        })
    };
    let images = cosine(pictures(spec))?;
    let texts = spec.text.as_ref().map(|text| cosine(texts(text))).transpose()?;
    Ok(Fidelity { images, texts })
}

/// An embedding without a direction stays as it is: its cosine shows it.
fn unit(embedding: ArrayView1<'_, f32>) -> Vec<f32> {
    let mut values = embedding.to_vec();
    let _ = normalize(&mut values);
    values
}

/// One by one, so that little memory is needed. Waves of a few lengths and directions for each channel.
fn pictures(spec: &ClipSpec) -> Vec<Batch> {
    let (height, width) = (spec.image.height as usize, spec.image.width as usize);
    let mut random = Random(1);
    (0..ROWS)
        .map(|_| {
            let waves: [[f64; 3]; 9] = std::array::from_fn(|_| {
                [random.below(40) as f64, random.below(40) as f64, random.below(7) as f64]
            });
            let pixel = |index: usize| {
                let (y, x, channel) = (index / 3 / width, index / 3 % width, index % 3);
                let wave = |[down, across, phase]: &[f64; 3]| {
                    (down * y as f64 / height as f64 + across * x as f64 / width as f64 + phase).sin()
                };
                let sum: f64 = waves[3 * channel..][..3].iter().map(wave).sum();
                (127.5 + 42.5 * sum) as u8
            };
            Batch::Images(vec![ImageRow((0..height * width * 3).map(pixel).collect())])
        })
        .collect()
}

/// From a few tokens to a full context, or all of that. The end token is the highest id.
fn texts(text: &TextSpec) -> Vec<Batch> {
    let (longest, end) = (text.context_length, text.vocab_size as u32 - 1);
    let full = matches!(text.padding.rows, PaddedTo::Context(_));
    let mut random = Random(2);
    (0..ROWS)
        .map(|number| {
            let parts = if full { ROWS } else { number + 1 };
            let words = longest.saturating_sub(2).max(1) * parts / ROWS;
            let words = (0..words).map(|_| random.below(end - 1));
            Batch::Texts(vec![TokenRow([end - 1].into_iter().chain(words).chain([end]).collect())])
        })
        .collect()
}

/// A linear congruential generator (Knuth's MMIX): the same numbers everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((self.0 >> 32) * u64::from(bound)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::device::{Device, Precision, Seat};
    use crate::engine::onnx::OnnxModel;
    use crate::engine::synthetic::{Gate, SyntheticEngine};
    use crate::model::Model;
    use crate::model::graph::Form;

    #[test]
    fn an_engine_is_as_close_as_it_is() {
        let Model { spec, image, text, .. } = Model::builtin(Form::PORTABLE).unwrap();
        let onnx = OnnxModel::new(Device::CPU, &spec, image, text).unwrap();
        let open = || onnx.open(&Seat::new(Device::CPU, Precision::Fp32)).unwrap();
        let same = fidelity(&spec, &mut *open(), &mut *open()).unwrap();
        for Cosine { mean, min } in [same.images, same.texts.unwrap()] {
            assert!(mean > 0.999_999 && min > 0.999_999, "{same:?}");
        }
        let mut other = SyntheticEngine::gated(spec.embed_dim, Gate::open());
        let different = fidelity(&spec, &mut *open(), &mut other).unwrap();
        assert!(different.images.mean < 0.5 && different.texts.unwrap().min < 0.5, "{different:?}");
    }
}
