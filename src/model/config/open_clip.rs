//! The configuration as open_clip says it, in `open_clip_config.json`.
//!
//! Defaults are those of its `CLIPVisionCfg`, `CLIPTextCfg` and `PreprocessCfg`.

use serde_json::{Value, json};

use super::section::Section;
use super::{
    Activation, Config, EPSILON, ImageConfig, ImageEncoder, ImagePool, OPENAI_MEAN, OPENAI_STD,
    PreprocessConfig, Projection, ResNet, Shapes, TextConfig, TextPool, TokensBy, TransformerConfig,
    VisionTransformer, timm,
};
use crate::clip::spec::{Cleaning, End, Interpolation, ResizeMode};
use crate::model::{CONFIG_FILE, ModelError};

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

impl Config {
    /// `shapes` are asked about what open_clip knows from timm, and the file does not say.
    pub(in crate::model) fn from_open_clip(json: &[u8], shapes: Shapes<'_>) -> Result<Config, ModelError> {
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
pub(super) fn tokens_by(section: &mut Section) -> Result<TokensBy, ModelError> {
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
    let mlp_ratio = section.positive("mlp_ratio", 4.0)?;
    // open_clip rounds down, too.
    let mlp_width = (width as f64 * mlp_ratio) as usize;
    if mlp_width == 0 {
        return Err(section.refusal("mlp_ratio", &json!(mlp_ratio), "at least 1 / width"));
    }
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

pub(super) fn preprocess_config(mut section: Section) -> Result<PreprocessConfig, ModelError> {
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
