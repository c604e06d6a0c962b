//! Which architecture a checkpoint's weights belong to: as [`open_clip`] or [`transformers`] says it.
//!
//! Neither ignores what it does not know. Every section is emptied key by key; a key that is left, or one with a value
//! that the graphs do not implement, is an error that names it.

mod open_clip;
pub(super) mod ready_made;
mod section;
mod timm;
pub(super) mod tokenizer;
pub(super) mod transformers;

use serde_json::json;

use super::ModelError;
use crate::clip::spec::{
    Cleaning, End, ImageSpec, Interpolation, PaddedTo, Padding, ResizeMode, Side, TextSpec, Tokenization,
};
use section::Section;
use tokenizer::TokenizerConfig;

/// What the file says, with every default filled in.
#[derive(Debug)]
pub(super) struct Config {
    /// Width of an embedding.
    pub(super) embed_dim: usize,
    pub(super) image: ImageConfig,
    /// `None`: there is an image encoder alone.
    pub(super) text: Option<TextConfig>,
    /// Whether the checkpoint has a `logit_bias`: it was trained with SigLIP's loss.
    pub(super) logit_bias: bool,
}

#[derive(Debug)]
pub(super) struct ImageConfig {
    /// Pixels.
    pub(super) height: usize,
    /// Pixels.
    pub(super) width: usize,
    pub(super) encoder: ImageEncoder,
    pub(super) preprocess: PreprocessConfig,
}

#[derive(Debug)]
pub(super) enum ImageEncoder {
    Transformer(VisionTransformer),
    ResNet(ResNet),
}

/// Cuts a picture into patches, runs a transformer over them, and pools.
#[derive(Debug)]
pub(super) struct VisionTransformer {
    /// Side of a square patch in pixels. Pixels beyond the last whole patch are not seen, as in open_clip.
    pub(super) patch: usize,
    /// Whether the first layer has a bias.
    pub(super) patch_bias: bool,
    /// Whether a class token goes before the patches.
    pub(super) class_token: bool,
    /// Whether there is a norm before the transformer.
    pub(super) norm_before: bool,
    pub(super) transformer: TransformerConfig,
    pub(super) pool: ImagePool,
}

/// OpenAI's variant of a residual network (Radford et al. 2021, section 2.4).
#[derive(Debug)]
pub(super) struct ResNet {
    /// Channels behind the first layers; each of four stages doubles those before it, the first excepted.
    pub(super) width: usize,
    /// Blocks of each stage.
    pub(super) stages: [usize; 4],
    /// Heads of the attention that pools.
    pub(super) heads: usize,
}

/// How the patches of a picture become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ImagePool {
    /// The class token, normed and projected.
    ClassToken,
    /// The mean of the patches, normed and projected.
    Mean,
    /// SigLIP's: all patches are normed; a probe attends to them, and an MLP follows. Nothing is projected.
    Attention,
}

#[derive(Debug)]
pub(super) struct TextConfig {
    /// Longest token row.
    pub(super) context_length: usize,
    /// Token ids are below this.
    pub(super) vocab_size: usize,
    /// What the names of the text encoder's tensors begin with: nothing, or `text.` for open_clip's
    /// `CustomTextCLIP`, which computes the same.
    pub(super) prefix: &'static str,
    pub(super) transformer: TransformerConfig,
    /// Whether a token sees only itself and those before it.
    pub(super) causal: bool,
    pub(super) pool: TextPool,
    pub(super) projection: Projection,
    pub(super) tokens: TokensBy,
}

/// Which token of a text becomes its embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextPool {
    /// The one with the highest id, CLIP's end token.
    Highest,
    /// The first with this id.
    First(u32),
    /// The last, which may be padding.
    Last,
}

/// What follows the pooled token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Projection {
    None,
    /// A matrix.
    Matrix,
    /// A linear layer: with a bias.
    Linear,
}

/// Whose rules tokens are made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokensBy {
    Clip,
    /// `tokenizer.json`, after this cleaning; `None`: as transformers' class for it does, which is named beside it.
    File(Option<Cleaning>, End),
}

impl TextConfig {
    /// Whether all rows have the context length: an encoder in which a token sees those behind it, or which pools the
    /// last, was trained on such rows.
    pub(super) fn rows_are_full(&self) -> bool {
        !self.causal || self.pool == TextPool::Last
    }

    /// `tokenizer` is what is said beside the tokenizer; without it the rules are CLIP's.
    pub(super) fn spec(&self, tokenizer: Option<&TokenizerConfig>) -> TextSpec {
        let (tokenization, padding) = match (self.tokens, tokenizer) {
            (TokensBy::File(cleaning, end), Some(&TokenizerConfig { cleaning: class, pad, side, .. })) => {
                let rows = if self.rows_are_full() { PaddedTo::Context(side) } else { PaddedTo::Longest };
                (Tokenization::File(cleaning.unwrap_or(class), end), Padding { id: pad, rows })
            }
            _ if self.rows_are_full() => {
                (Tokenization::Clip, Padding { rows: PaddedTo::Context(Side::Right), ..Padding::CLIP })
            }
            _ => (Tokenization::Clip, Padding::CLIP),
        };
        let &TextConfig { context_length, vocab_size, .. } = self;
        TextSpec { context_length, vocab_size, tokenization, padding }
    }
}

#[derive(Debug)]
pub(super) struct TransformerConfig {
    /// Numbers per token.
    pub(super) width: usize,
    /// Residual attention blocks.
    pub(super) layers: usize,
    /// Attention heads; divides `width`.
    pub(super) heads: usize,
    /// Numbers per token between the two layers of an MLP.
    pub(super) mlp_width: usize,
    pub(super) activation: Activation,
    /// Of the norms: what is added to a variance.
    pub(super) epsilon: f32,
    /// Whether what a block adds is multiplied by weights of its own, `ls_1.gamma` and `ls_2.gamma`.
    pub(super) layer_scale: bool,
}

impl TransformerConfig {
    /// `width_key` is where `section` has the width.
    fn check_heads(&self, section: &Section, width_key: &str) -> Result<(), ModelError> {
        if self.heads > 0 && self.width.is_multiple_of(self.heads) {
            return Ok(());
        }
        let supported = format!("a multiple of the {} heads", self.heads);
        Err(section.refusal(width_key, &json!(self.width), &supported))
    }
}

/// PyTorch's default for norms, which open_clip does not change.
const EPSILON: f32 = 1e-5;

/// Between the two layers of an MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    /// With the error function, as in `torch.nn.GELU()`.
    Gelu,
    /// `x * sigmoid(1.702 x)`, in OpenAI's checkpoints.
    QuickGelu,
    /// With a hyperbolic tangent instead of the error function, as in `torch.nn.GELU("tanh")`.
    TanhGelu,
}

#[derive(Debug)]
pub(super) struct PreprocessConfig {
    /// Of red, green and blue, for values from 0 to 1.
    pub(super) mean: [f32; 3],
    pub(super) std: [f32; 3],
    pub(super) interpolation: Interpolation,
    pub(super) resize_mode: ResizeMode,
}

impl PreprocessConfig {
    /// For an encoder of that size.
    pub(super) fn spec(&self, height: usize, width: usize) -> ImageSpec {
        let (interpolation, resize_mode) = (self.interpolation, self.resize_mode);
        ImageSpec { height: height as u32, width: width as u32, interpolation, resize_mode }
    }
}

/// Of OpenAI's training data; open_clip's default.
const OPENAI_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const OPENAI_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// The shape of a tensor of the checkpoint, by the name that the graphs give it.
pub(super) type Shapes<'a> = &'a dyn Fn(&str) -> Option<Vec<usize>>;
