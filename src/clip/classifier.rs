//! A named label set as one matrix: what prompts make of a list of labels, and equally what a
//! trained linear head is.
//!
//! It does not run encoders: embeddings come in, predictions go out.
//!
//! Similarity is the cosine to the label's unit row, logit = scale x similarity + bias, and the
//! scores are the softmax of the logits over ALL labels, so that top-k changes what is returned
//! and never a score; or the sigmoid of each, for models that were trained so.

use std::cmp::Ordering;
use std::num::NonZeroUsize;
use std::sync::Arc;

use super::embedding::{dot, dots, normalize};
use super::spec::Scores;

/// Labels, one unit row each, and how similarity becomes a logit.
#[derive(Clone, Debug)]
pub struct Classifier {
    labels: Arc<[String]>,
    /// Shape [labels, embed_dim]; rows are unit vectors.
    matrix: Vec<f32>,
    logits: Logits,
}

/// From similarity to logit, `scale * similarity + bias`, and to score.
#[derive(Clone, Debug, PartialEq)]
pub struct Logits {
    pub scale: Coefficient,
    pub bias: Coefficient,
    pub scores: Scores,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Coefficient {
    /// The same for every label. Such a bias cancels in a softmax.
    Shared(f32),
    /// One for each label, in label order.
    PerLabel(Arc<[f32]>),
}

/// One label's result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Position in [`Classifier::labels`].
    pub index: usize,
    /// Cosine, -1 to 1.
    pub similarity: f32,
    /// Probability: among all labels, so that the scores of all sum to 1, or of this label alone.
    pub score: f32,
}

/// Why a classifier cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClassifierError {
    #[error("a classifier needs at least one label")]
    NoLabels,
    #[error("{labels} labels need {expected} numbers, got {actual}")]
    Shape { labels: usize, expected: usize, actual: usize },
    #[error("{labels} labels need as many scales and biases, got {actual}")]
    CoefficientCount { labels: usize, actual: usize },
    #[error("scale and bias must be finite")]
    NotFinite,
    #[error("the row of label {label:?} is not of length 1")]
    NotUnit { label: String },
    #[error("the embeddings of label {label:?} cancel out or are not finite")]
    NoDirection { label: String },
}

/// Embeddings that are compared in one pass over the matrix, which may be far larger than the caches of a CPU.
/// Eight embeddings of 512 numbers fill half of the smallest one, and a row of the matrix is there too.
const TOGETHER: usize = 8;

impl Classifier {
    /// Builds zero-shot rows as open_clip's `build_zero_shot_classifier` does: each prompt's
    /// embedding is normalised, a label's row is the mean over its templates, normalised again.
    ///
    /// `embeddings` has shape [labels, templates, embed_dim]: label by label, and within a label
    /// template by template.
    pub fn from_prompts(
        labels: Arc<[String]>,
        templates: NonZeroUsize,
        embed_dim: NonZeroUsize,
        embeddings: &[f32],
        logits: Logits,
    ) -> Result<Self, ClassifierError> {
        let prompts = labels.len() * templates.get();
        check_len(&labels, prompts * embed_dim.get(), embeddings.len())?;
        let mut rows = Vec::with_capacity(labels.len() * embed_dim.get());
        let per_label = templates.get() * embed_dim.get();
        for (label, embeddings) in labels.iter().zip(embeddings.chunks_exact(per_label)) {
            let mut sum = vec![0.0; embed_dim.get()];
            for embedding in embeddings.chunks_exact(embed_dim.get()) {
                let unit = unit_row(label, embedding)?;
                sum.iter_mut().zip(unit).for_each(|(sum, x)| *sum += x);
            }
            // The sum has the direction of the mean.
            rows.extend(unit_row(label, &sum)?);
        }
        Self::from_unit_rows(labels, embed_dim, rows, logits)
    }

    /// A trained linear head: `weights` of shape [labels, embed_dim] and one bias per label, whose logits for a
    /// unit embedding x are `weights x + biases`. That is the cosine to a label's row times the row's length;
    /// a label whose row is zero has similarity 0 and its bias as logit.
    pub fn from_head(
        labels: Arc<[String]>,
        embed_dim: NonZeroUsize,
        mut weights: Vec<f32>,
        biases: Vec<f32>,
    ) -> Result<Self, ClassifierError> {
        check_len(&labels, labels.len() * embed_dim.get(), weights.len())?;
        let mut lengths = Vec::with_capacity(labels.len());
        for row in weights.chunks_exact_mut(embed_dim.get()) {
            lengths.push(dot(row, row).sqrt());
            // Only a row of zeros has no direction that is finite; it stays as it is.
            let _ = normalize(row);
        }
        let logits = Logits {
            scale: Coefficient::PerLabel(lengths.into()),
            bias: Coefficient::PerLabel(biases.into()),
            scores: Scores::Softmax,
        };
        Self::new(labels, weights, logits)
    }

    /// Takes rows of shape [labels, embed_dim] as they are.
    /// Each must have length 1 (to 0.001): of others the similarity would be no cosine.
    pub fn from_unit_rows(
        labels: Arc<[String]>,
        embed_dim: NonZeroUsize,
        rows: Vec<f32>,
        logits: Logits,
    ) -> Result<Self, ClassifierError> {
        check_len(&labels, labels.len() * embed_dim.get(), rows.len())?;
        for (label, row) in labels.iter().zip(rows.chunks_exact(embed_dim.get())) {
            if !is_unit(row) {
                return Err(ClassifierError::NotUnit { label: label.clone() });
            }
        }
        Self::new(labels, rows, logits)
    }

    /// `rows` have the right length.
    fn new(labels: Arc<[String]>, rows: Vec<f32>, logits: Logits) -> Result<Self, ClassifierError> {
        if labels.is_empty() {
            return Err(ClassifierError::NoLabels);
        }
        logits.scale.check(labels.len())?;
        logits.bias.check(labels.len())?;
        Ok(Self { labels, matrix: rows, logits })
    }

    pub fn labels(&self) -> &Arc<[String]> {
        &self.labels
    }

    /// For each embedding the `top_k` best labels (all without it), best first; equal scores in label order.
    ///
    /// `embeddings` are unit vectors. Panics if the length of one is not the model's.
    pub fn classify(&self, embeddings: &[Vec<f32>], top_k: Option<NonZeroUsize>) -> Vec<Vec<Prediction>> {
        embeddings
            .chunks(TOGETHER)
            .flat_map(|together| dots(&self.matrix, together))
            .map(|similarities| self.best(&similarities, top_k))
            .collect()
    }

    fn best(&self, similarities: &[f32], top_k: Option<NonZeroUsize>) -> Vec<Prediction> {
        assert_eq!(similarities.len(), self.labels.len(), "an embedding has the model's length");
        let logits: Vec<f32> = similarities
            .iter()
            .enumerate()
            .map(|(index, similarity)| self.logits.of(index, *similarity))
            .collect();
        let shares = (self.logits.scores == Scores::Softmax).then(|| Shares::of(logits.iter().copied()));
        let score = |logit| shares.as_ref().map_or_else(|| sigmoid(logit), |shares| shares.share(logit));
        best_first(&logits, top_k)
            .into_iter()
            .map(|index| Prediction {
                index,
                similarity: similarities[index].clamp(-1.0, 1.0),
                score: score(logits[index]),
            })
            .collect()
    }
}

/// A softmax, of which only some values are asked for.
struct Shares {
    max: f32,
    total: f64,
}

impl Shares {
    fn of(logits: impl Iterator<Item = f32> + Clone) -> Shares {
        // Subtracting the maximum keeps exp below 1: no overflow at any scale.
        let max = logits.clone().fold(f32::NEG_INFINITY, f32::max);
        Shares { max, total: logits.map(|logit| f64::from(logit - max).exp()).sum() }
    }

    fn share(&self, logit: f32) -> f32 {
        (f64::from(logit - self.max).exp() / self.total) as f32
    }
}

/// The probability of a pair, from its logit.
fn sigmoid(logit: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(logit)).exp())) as f32
}

/// Indices of the `top_k` largest logits, largest first. The rest is never sorted.
fn best_first(logits: &[f32], top_k: Option<NonZeroUsize>) -> Vec<usize> {
    let better = |a: &usize, b: &usize| -> Ordering { logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)) };
    let mut indices: Vec<usize> = (0..logits.len()).collect();
    if let Some(k) = top_k.map(NonZeroUsize::get).filter(|k| *k < indices.len()) {
        indices.select_nth_unstable_by(k - 1, better);
        indices.truncate(k);
    }
    indices.sort_unstable_by(better);
    indices
}

impl Logits {
    /// The score of one label, of the similarities of all in label order. Panics if it is none of them.
    pub fn score(&self, index: usize, similarities: &[f32]) -> f32 {
        let logit = |index: usize| self.of(index, similarities[index]);
        match self.scores {
            Scores::Softmax => Shares::of((0..similarities.len()).map(logit)).share(logit(index)),
            Scores::Sigmoid => sigmoid(logit(index)),
        }
    }

    /// The score of two embeddings by themselves; `None` where scores are shares of all labels'.
    pub fn pair(&self, similarity: f32) -> Option<f32> {
        match self.scores {
            Scores::Softmax => None,
            Scores::Sigmoid => Some(sigmoid(self.of(0, similarity))),
        }
    }

    fn of(&self, index: usize, similarity: f32) -> f32 {
        self.scale.of(index) * similarity + self.bias.of(index)
    }
}

impl Coefficient {
    fn of(&self, index: usize) -> f32 {
        match self {
            Coefficient::Shared(value) => *value,
            Coefficient::PerLabel(values) => values[index],
        }
    }

    fn check(&self, labels: usize) -> Result<(), ClassifierError> {
        let values = match self {
            Coefficient::Shared(value) => std::slice::from_ref(value),
            Coefficient::PerLabel(values) if values.len() == labels => values,
            Coefficient::PerLabel(values) => {
                return Err(ClassifierError::CoefficientCount { labels, actual: values.len() });
            }
        };
        if values.iter().all(|value| value.is_finite()) { Ok(()) } else { Err(ClassifierError::NotFinite) }
    }
}

/// Also false for rows that hold a NaN.
fn is_unit(row: &[f32]) -> bool {
    (dot(row, row).sqrt() - 1.0).abs() <= 1e-3
}

fn unit_row(label: &str, embedding: &[f32]) -> Result<Vec<f32>, ClassifierError> {
    let mut row = embedding.to_vec();
    match normalize(&mut row) {
        Ok(()) => Ok(row),
        Err(_) => Err(ClassifierError::NoDirection { label: label.to_owned() }),
    }
}

fn check_len(labels: &[String], expected: usize, actual: usize) -> Result<(), ClassifierError> {
    if actual == expected {
        return Ok(());
    }
    Err(ClassifierError::Shape { labels: labels.len(), expected, actual })
}

#[cfg(test)]
mod tests;
