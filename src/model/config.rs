//! Which architecture a checkpoint's weights belong to; as open_clip says it, in `open_clip_config.json`.
//!
//! It never ignores what it does not know. Every section is emptied key by key; a key that is left, or
//! one with a value that the graphs do not implement, is an error that names it. Defaults are those of
//! open_clip's `CLIPVisionCfg`, `CLIPTextCfg` and `PreprocessCfg`.

pub(super) mod ready_made;
mod section;
mod timm;
pub(super) mod tokenizer;
pub(super) mod transformers;

use serde_json::{Value, json};

use super::{CONFIG_FILE, ModelError};
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

/// Blocks other than the plain residual attention block, in either encoder.
const BLOCK_VARIANTS: [(&str, Value); 6] = [
    ("qk_norm", Value::Bool(false)),
    ("scaled_cosine_attn", Value::Bool(false)),
    ("scale_heads", Value::Bool(false)),
    ("scale_attn_inner", Value::Bool(false)),
    ("scale_attn", Value::Bool(false)),
    ("scale_fc", Value::Bool(false)),
];

/// open_clip reads these only in training, or together with a key that is refused.
const INERT_IMAGE_KEYS: [&str; 9] = [
    "patch_dropout",
    "attn_pooler_queries",
    "attn_pooler_heads",
    "timm_model_pretrained",
    "timm_pool",
    "timm_proj",
    "timm_proj_bias",
    "timm_drop",
    "timm_drop_path",
];
const INERT_TEXT_KEYS: [&str; 4] = ["pad_id", "hf_model_pretrained", "hf_proj_type", "hf_pooler_type"];

/// The shape of a tensor of the checkpoint, by the name that the graphs give it.
pub(super) type Shapes<'a> = &'a dyn Fn(&str) -> Option<Vec<usize>>;

impl Config {
    /// `shapes` are asked about what open_clip knows from timm, and the file does not say.
    pub(super) fn from_open_clip(json: &[u8], shapes: Shapes<'_>) -> Result<Config, ModelError> {
        // open_clip reads nothing else at the top level.
        let mut file = Section::file(CONFIG_FILE, json)?;
        let mut model = file.section("model_cfg", None)?;
        let vision = model.section("vision_cfg", None)?;
        let text = model.section("text_cfg", None)?;
        let preprocess = file.section("preprocess_cfg", Some(json!({})))?;

        let activation = if model.flag("quick_gelu")? { Activation::QuickGelu } else { Activation::Gelu };
        let prefix = if model.flag("custom_text")? { "text." } else { "" };
        let embed_dim = model.size("embed_dim", None)?;
        let preprocess = preprocess_config(preprocess)?;
        let config = Config {
            embed_dim,
            image: match timm::is_timm(&vision) {
                true => timm::image_config(vision, embed_dim, preprocess, shapes)?,
                false => image_config(vision, activation, preprocess)?,
            },
            text: Some(text_config(text, activation, prefix)?),
            logit_bias: model.take("init_logit_bias").is_some(),
        };
        model.ignore(&["init_logit_scale", "nonscalar_logit_scale"]);
        model.finish()?;
        Ok(config)
    }
}

fn image_config(
    mut section: Section,
    activation: Activation,
    preprocess: PreprocessConfig,
) -> Result<ImageConfig, ModelError> {
    let (height, width) = section.height_and_width("image_size", 224)?;
    let head_width = section.size("head_width", Some(64))?;
    if let Some(stages) = section.four_sizes("layers")? {
        let encoder = ImageEncoder::ResNet(resnet_config(section, stages, head_width, [height, width])?);
        return Ok(ImageConfig { height, width, encoder, preprocess });
    }
    let patch = section.size("patch_size", Some(16))?;
    if patch > height.min(width) {
        return Err(section.refusal("patch_size", &json!(patch), "at most image_size"));
    }
    let transformer = transformer_config(&mut section, 768, activation, |_, width| Ok(width / head_width))?;
    let pool = section.choice("pool_type", &[("tok", ImagePool::ClassToken), ("avg", ImagePool::Mean)])?;
    // The mean of normed patches is another one than the normed mean.
    let norm_after_pool = section.flag("final_ln_after_pool")?;
    if pool == ImagePool::Mean && !norm_after_pool {
        return Err(section.refusal("final_ln_after_pool", &json!(false), "true with pool_type avg"));
    }
    let norm_before = !section.flag("no_ln_pre")?;
    section.ignore(&INERT_IMAGE_KEYS);
    section.require(&[("attentional_pool", json!(false)), ("output_tokens", json!(false))])?;
    // Both kinds of positions are saved with the weights.
    section.choice("pos_embed_type", &[("learnable", ()), ("sin_cos_2d", ())])?;
    section.finish()?;
    let (patch_bias, class_token) = (false, true);
    let encoder = VisionTransformer { patch, patch_bias, class_token, norm_before, transformer, pool };
    Ok(ImageConfig { height, width, encoder: ImageEncoder::Transformer(encoder), preprocess })
}

/// What else open_clip reads for such an encoder is nothing.
fn resnet_config(
    mut section: Section,
    stages: [usize; 4],
    head_width: usize,
    sides: [usize; 2],
) -> Result<ResNet, ModelError> {
    let width = section.size("width", Some(768))?;
    // A stage has at least one block, and halves a side, as the first layers do twice.
    if sides[0] != sides[1] || !sides[0].is_multiple_of(32) {
        return Err(section.refusal("image_size", &json!(sides), "a multiple of 32, for a square"));
    }
    let heads = 32 * width / head_width;
    if heads == 0 || !(32 * width).is_multiple_of(heads) || !width.is_multiple_of(2) {
        return Err(section.refusal("width", &json!(width), "an even one of whole heads"));
    }
    section.ignore(&INERT_IMAGE_KEYS);
    section.ignore(&["patch_size", "mlp_ratio"]);
    section.finish()?;
    Ok(ResNet { width, stages, heads })
}

fn text_config(
    mut section: Section,
    activation: Activation,
    prefix: &'static str,
) -> Result<TextConfig, ModelError> {
    section.require(&[("hf_model_name", Value::Null)])?;
    let tokens = tokens_by(&mut section)?;
    let end = section.size("eos_id", Some(2))? as u32;
    let pools = [("argmax", TextPool::Highest), ("last", TextPool::Last), ("eos", TextPool::First(end))];
    let pool = section.choice("pool_type", &pools)?;
    if pool == TextPool::Highest && tokens != TokensBy::Clip {
        return Err(section.refusal("pool_type", &json!("argmax"), "last or eos with hf_tokenizer_name"));
    }
    let has_bias = section.flag("proj_bias")?;
    let linear = if has_bias { Projection::Linear } else { Projection::Matrix };
    let projection = section.choice("proj_type", &[("linear", linear), ("none", Projection::None)])?;
    let config = TextConfig {
        context_length: section.size("context_length", Some(77))?,
        vocab_size: section.size("vocab_size", Some(49_408))?,
        prefix,
        transformer: transformer_config(&mut section, 512, activation, |section, _| {
            section.size("heads", Some(8))
        })?,
        causal: !section.flag("no_causal_mask")?,
        pool,
        projection,
        tokens,
    };
    section.ignore(&INERT_TEXT_KEYS);
    section.require(&[
        ("embed_cls", json!(false)),
        ("final_ln_after_pool", json!(false)),
        ("output_tokens", json!(false)),
    ])?;
    section.finish()?;
    Ok(config)
}

/// With the name of a tokenizer, its file beside the weights says everything but the cleaning.
fn tokens_by(section: &mut Section) -> Result<TokensBy, ModelError> {
    let mut more = section.section("tokenizer_kwargs", Some(json!({})))?;
    section.require(&[("tokenizer_mode", Value::Null)])?;
    if section.take("hf_tokenizer_name").is_none() {
        more.finish()?;
        return Ok(TokensBy::Clip);
    }
    let cleaning = more.choice(
        "clean",
        &[
            ("whitespace", Cleaning::OpenClipSpaces),
            ("lower", Cleaning::OpenClipLower),
            ("canonicalize", Cleaning::OpenClipCanonical),
        ],
    )?;
    let end = if more.flag("strip_sep_token")? { End::Padded } else { End::Kept };
    more.finish()?;
    Ok(TokensBy::File(Some(cleaning), end))
}

/// `heads` reads or computes their number from the section and the width.
fn transformer_config(
    section: &mut Section,
    default_width: usize,
    activation: Activation,
    heads: impl FnOnce(&mut Section, usize) -> Result<usize, ModelError>,
) -> Result<TransformerConfig, ModelError> {
    let width = section.size("width", Some(default_width))?;
    let layers = section.size("layers", Some(12))?;
    let heads = heads(section, width)?;
    // open_clip rounds down, too.
    let mlp_width = (width as f64 * section.positive("mlp_ratio", 4.0)?) as usize;
    section.require(&BLOCK_VARIANTS)?;
    section.require(&[("block_type", json!("default"))])?;
    let mut act = section.section("act_kwargs", Some(json!({})))?;
    let activation = act.choice("approximate", &[("none", activation), ("tanh", Activation::TanhGelu)])?;
    act.finish()?;
    let mut norm = section.section("norm_kwargs", Some(json!({})))?;
    let epsilon = norm.positive("eps", f64::from(EPSILON))? as f32;
    norm.finish()?;
    let layer_scale = section.take("ls_init_value").is_some();
    let config = TransformerConfig { width, layers, heads, mlp_width, activation, epsilon, layer_scale };
    config.check_heads(section, "width")?;
    Ok(config)
}

fn preprocess_config(mut section: Section) -> Result<PreprocessConfig, ModelError> {
    let config = PreprocessConfig {
        mean: section.rgb("mean", OPENAI_MEAN)?,
        std: section.rgb("std", OPENAI_STD)?,
        interpolation: section.choice(
            "interpolation",
            // In inference, open_clip's "random" means bicubic.
            &[
                ("bicubic", Interpolation::Bicubic),
                ("bilinear", Interpolation::Bilinear),
                ("random", Interpolation::Bicubic),
            ],
        )?,
        resize_mode: section.choice(
            "resize_mode",
            &[
                ("shortest", ResizeMode::Shortest),
                ("longest", ResizeMode::Longest),
                ("squash", ResizeMode::Squash),
            ],
        )?,
    };
    // open_clip replaces it by the image encoder's own size.
    section.ignore(&["size"]);
    section.require(&[("mode", json!("RGB")), ("fill_color", json!(0))])?;
    section.finish()?;
    Ok(config)
}
