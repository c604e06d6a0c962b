//! Two graphs, and how to feed them: all that a layout has to say.

use crate::clip::spec::Scores;
use crate::model::config::ready_made::ReadyMadeConfig;
use crate::model::config::tokenizer::TokenizerFiles;

pub(super) struct Recipe {
    /// Sizes, pixels, tokens.
    pub(super) config: ReadyMadeConfig,
    pub(super) image: Source,
    /// `None`: there is an image encoder alone.
    pub(super) text: Option<Source>,
    pub(super) logits: KnownLogits,
    /// Contents of the small files but the tokenizer's, in the order in which the fingerprint has them.
    pub(super) files: Vec<Vec<u8>>,
    /// There if there is a text encoder.
    pub(super) tokenizer: Option<TokenizerFiles>,
}

/// A graph.
pub(super) struct Source {
    /// From the model's directory.
    pub(super) file: String,
    /// Names that the output with the embedding may have, the best first; the only output of a graph needs none.
    pub(super) outputs: &'static [&'static str],
}

/// What is known of scale and bias.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct KnownLogits {
    pub(super) scale: f32,
    pub(super) bias: f32,
    pub(super) scores: Scores,
}

impl KnownLogits {
    /// Nothing; `sigmoid` says whether the model was trained with one. OpenAI's and nearly all other CLIPs end at this
    /// scale: training clips it there.
    pub(super) fn none(sigmoid: bool) -> KnownLogits {
        if sigmoid {
            tracing::warn!(
                "these graphs do not say the scale and bias that the model was trained to: scores are shares of all \
                 labels, and not the probability of each as those of the same model from weights"
            );
        }
        KnownLogits { scale: 100.0, bias: 0.0, scores: Scores::Softmax }
    }
}
