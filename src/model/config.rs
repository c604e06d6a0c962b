//! Which architecture a checkpoint's weights belong to; as open_clip says it, in `open_clip_config.json`.
//!
//! It never ignores what it does not know. Every section is emptied key by key; a key that is left, or
//! one with a value that the graphs do not implement, is an error that names it. Defaults are those of
//! open_clip's `CLIPVisionCfg`, `CLIPTextCfg` and `PreprocessCfg`.

pub(super) mod ready_made;
mod section;
pub(super) mod transformers;

use serde_json::{Value, json};

use super::{CONFIG_FILE, ModelError};
use crate::clip::spec::{ImageSpec, Interpolation, ResizeMode, TextSpec};
use section::Section;

/// What the file says, with every default filled in.
#[derive(Debug)]
pub(super) struct Config {
    /// Width of an embedding.
    pub(super) embed_dim: usize,
    pub(super) image: ImageConfig,
    pub(super) text: TextConfig,
    /// Whether the checkpoint has a `logit_bias`.
    pub(super) logit_bias: bool,
}

#[derive(Debug)]
pub(super) struct ImageConfig {
    /// Pixels.
    pub(super) height: usize,
    /// Pixels.
    pub(super) width: usize,
    /// Side of a square patch in pixels.
    pub(super) patch: usize,
    pub(super) transformer: TransformerConfig,
    pub(super) preprocess: PreprocessConfig,
}

impl ImageConfig {
    /// Patches from top to bottom. Pixels beyond the last whole patch are not seen, as in open_clip.
    pub(super) fn rows(&self) -> usize {
        self.height / self.patch
    }

    /// Patches from left to right.
    pub(super) fn columns(&self) -> usize {
        self.width / self.patch
    }
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
}

impl TextConfig {
    pub(super) fn spec(&self) -> TextSpec {
        TextSpec { context_length: self.context_length, vocab_size: self.vocab_size }
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

/// Between the two layers of an MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    /// With the error function, as in `torch.nn.GELU()`.
    Gelu,
    /// `x * sigmoid(1.702 x)`, in OpenAI's checkpoints.
    QuickGelu,
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
const BLOCK_VARIANTS: [(&str, Value); 9] = [
    ("ls_init_value", Value::Null),
    ("act_kwargs", Value::Null),
    ("norm_kwargs", Value::Null),
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
const INERT_TEXT_KEYS: [&str; 5] =
    ["pad_id", "eos_id", "hf_model_pretrained", "hf_proj_type", "hf_pooler_type"];

impl Config {
    pub(super) fn from_open_clip(json: &[u8]) -> Result<Config, ModelError> {
        // open_clip reads nothing else at the top level.
        let mut file = Section::file(CONFIG_FILE, json)?;
        let mut model = file.section("model_cfg", None)?;
        let vision = model.section("vision_cfg", None)?;
        let text = model.section("text_cfg", None)?;
        let preprocess = file.section("preprocess_cfg", Some(json!({})))?;

        let activation = if model.flag("quick_gelu")? { Activation::QuickGelu } else { Activation::Gelu };
        let prefix = if model.flag("custom_text")? { "text." } else { "" };
        let config = Config {
            embed_dim: model.size("embed_dim", None)?,
            image: image_config(vision, activation, preprocess_config(preprocess)?)?,
            text: text_config(text, activation, prefix)?,
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
    let patch = section.size("patch_size", Some(16))?;
    if patch > height.min(width) {
        return Err(section.refusal("patch_size", &json!(patch), "at most image_size"));
    }
    let transformer = transformer_config(&mut section, 768, activation, |_, width| Ok(width / head_width))?;
    section.ignore(&INERT_IMAGE_KEYS);
    section.require(&[
        ("attentional_pool", json!(false)),
        ("no_ln_pre", json!(false)),
        ("final_ln_after_pool", json!(false)),
        ("output_tokens", json!(false)),
        ("pool_type", json!("tok")),
        ("pos_embed_type", json!("learnable")),
        ("timm_model_name", Value::Null),
    ])?;
    section.finish()?;
    Ok(ImageConfig { height, width, patch, transformer, preprocess })
}

fn text_config(
    mut section: Section,
    activation: Activation,
    prefix: &'static str,
) -> Result<TextConfig, ModelError> {
    let config = TextConfig {
        context_length: section.size("context_length", Some(77))?,
        vocab_size: section.size("vocab_size", Some(49_408))?,
        prefix,
        transformer: transformer_config(&mut section, 512, activation, |section, _| {
            section.size("heads", Some(8))
        })?,
    };
    section.ignore(&INERT_TEXT_KEYS);
    section.require(&[
        ("embed_cls", json!(false)),
        ("no_causal_mask", json!(false)),
        ("final_ln_after_pool", json!(false)),
        ("output_tokens", json!(false)),
        ("pool_type", json!("argmax")),
        ("proj_type", json!("linear")),
        ("proj_bias", json!(false)),
        ("hf_model_name", Value::Null),
        ("hf_tokenizer_name", Value::Null),
        ("tokenizer_mode", Value::Null),
        ("tokenizer_kwargs", Value::Null),
    ])?;
    section.finish()?;
    Ok(config)
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
    let mlp_ratio = section.take("mlp_ratio").unwrap_or(json!(4.0));
    // open_clip rounds down, too.
    let mlp_width = mlp_ratio.as_f64().map_or(0.0, |ratio| width as f64 * ratio) as usize;
    if mlp_width == 0 {
        return Err(section.refusal("mlp_ratio", &mlp_ratio, "a positive number"));
    }
    section.require(&BLOCK_VARIANTS)?;
    section.require(&[("block_type", json!("default"))])?;
    let config = TransformerConfig { width, layers, heads, mlp_width, activation };
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
