//! The same configuration as transformers' `CLIPModel`, `SiglipModel`, their image encoders alone, and their image
//! processors save it.
//!
//! Defaults are those of transformers 5. Of `config.json` a model reads the keys that are read here; older releases
//! wrote dozens of others that change nothing. A key of the preprocessor's that nobody knows is refused.

use std::path::Path;

use serde_json::{Value, json};

use super::section::Section;
use super::{
    Activation, Config, EPSILON, ImageConfig, ImageEncoder, ImagePool, OPENAI_MEAN, OPENAI_STD, Projection,
};
use super::{PreprocessConfig, TextConfig, TextPool, TokensBy, TransformerConfig, VisionTransformer};
use crate::clip::spec::{End, Interpolation, ResizeMode};
use crate::model::ModelError;

/// `vision_config` and `text_config`, among others.
pub(in crate::model) const CONFIG_FILE: &str = "config.json";
pub(in crate::model) const PREPROCESSOR_FILE: &str = "preprocessor_config.json";
/// Where transformers 5 saves the preprocessor together with the tokenizer; it reads this one first.
pub(in crate::model) const PROCESSOR_FILE: &str = "processor_config.json";

/// Which of transformers' families a model is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Clip,
    Siglip,
}

/// How the type of an image encoder alone ends.
const ALONE: &str = "_vision_model";

/// The end token of the usual vocabulary.
const END_TOKEN: u64 = 49_407;
/// What configurations of transformers before 4.31 have instead of it; such models pool at the highest id.
const LEGACY_END_TOKEN: u64 = 2;

/// CLIP's default first.
const ACTIVATIONS: [(&str, Activation); 3] = [
    ("quick_gelu", Activation::QuickGelu),
    ("gelu", Activation::Gelu),
    ("gelu_pytorch_tanh", Activation::TanhGelu),
];

/// Names of classes and arguments for training, which do not change what the processor does.
const INERT_KEYS: [&str; 5] = [
    "image_processor_type",
    "feature_extractor_type",
    "processor_class",
    "_valid_processor_keys",
    "data_format",
];

impl Config {
    /// `preprocessor_file` is the name of the file that holds `preprocessor`.
    pub(in crate::model) fn from_transformers(
        config: &[u8],
        preprocessor_file: &'static str,
        preprocessor: &[u8],
    ) -> Result<Config, ModelError> {
        let mut model = Section::file(CONFIG_FILE, config)?;
        let model_type = model.take("model_type").unwrap_or(Value::Null);
        let name = model_type.as_str().unwrap_or_default();
        let image_encoder = name.strip_suffix(ALONE);
        let supported = match image_encoder.unwrap_or(name) {
            "clip" => Ok(Family::Clip),
            "siglip" => Ok(Family::Siglip),
            // Of SigLIP 2, models of this type are those that take pictures of any shape.
            "siglip2" => Err("siglip: NaFlex is not served; SigLIP 2 of a fixed size is, such as \
                              google/siglip2-base-patch16-224"),
            _ => Err("clip or siglip, or either with _vision_model"),
        };
        let family = supported.map_err(|supported| model.refusal("model_type", &model_type, supported))?;
        let alone = image_encoder.is_some();
        let preprocessor = preprocessor_section(preprocessor_file, preprocessor)?;
        let projected = model.size("projection_dim", Some(512))?;
        let (image, text) = if alone {
            (image_config(model, preprocessor, family)?, None)
        } else {
            let vision = tower(&mut model, "vision_config", "vision_config_dict")?;
            let text = tower(&mut model, "text_config", "text_config_dict")?;
            (image_config(vision, preprocessor, family)?, Some(text_config(text, family)?))
        };
        let width = match &image.encoder {
            ImageEncoder::Transformer(encoder) => encoder.transformer.width,
            ImageEncoder::ResNet(_) => unreachable!("transformers has none"),
        };
        let embed_dim = match family {
            Family::Clip => projected,
            Family::Siglip => width,
        };
        Ok(Config { embed_dim, image, logit_bias: family == Family::Siglip && text.is_some(), text })
    }
}

/// Whether a `config.json` is that of a model of transformers' with a text encoder.
pub(in crate::model) fn has_texts(json: &[u8]) -> bool {
    let model_type = Section::file(CONFIG_FILE, json).ok().and_then(|mut model| model.take("model_type"));
    model_type.is_some_and(|name| name.as_str().is_some_and(|name| !name.ends_with(ALONE)))
}

/// Which of a directory's files has the preprocessor.
pub(in crate::model) fn preprocessor_file(directory: &Path) -> &'static str {
    if directory.join(PROCESSOR_FILE).exists() { PROCESSOR_FILE } else { PREPROCESSOR_FILE }
}

/// The preprocessor in that file.
pub(super) fn preprocessor_section(file: &'static str, json: &[u8]) -> Result<Section, ModelError> {
    let mut section = Section::file(file, json)?;
    match file {
        PROCESSOR_FILE => section.section("image_processor", None),
        _ => Ok(section),
    }
}

/// An encoder's section. Old files have it twice; transformers lets the one with `_dict` win.
fn tower(model: &mut Section, key: &str, old_key: &str) -> Result<Section, ModelError> {
    let newer = model.section(key, Some(json!({})))?;
    match model.take(old_key) {
        None => Ok(newer),
        old => model.section(old_key, old),
    }
}

fn image_config(
    mut section: Section,
    preprocessor: Section,
    family: Family,
) -> Result<ImageConfig, ModelError> {
    let clip = family == Family::Clip;
    let side = section.size("image_size", Some(224))?;
    let patch = section.size("patch_size", Some(if clip { 32 } else { 16 }))?;
    if patch > side {
        return Err(section.refusal("patch_size", &json!(patch), "at most image_size"));
    }
    section.require(&[("num_channels", json!(3)), ("vision_use_head", json!(true))])?;
    let encoder = VisionTransformer {
        patch,
        patch_bias: !clip,
        class_token: clip,
        norm_before: clip,
        transformer: transformer_config(&mut section, [768, 3072, 12, 12], family)?,
        pool: if clip { ImagePool::ClassToken } else { ImagePool::Attention },
    };
    let preprocess = preprocess_config(preprocessor, side, family)?;
    Ok(ImageConfig { height: side, width: side, encoder: ImageEncoder::Transformer(encoder), preprocess })
}

fn text_config(mut section: Section, family: Family) -> Result<TextConfig, ModelError> {
    let (prefix, clip) = ("", family == Family::Clip);
    let vocab_size = section.size("vocab_size", Some(if clip { 49_408 } else { 32_000 }))?;
    if family == Family::Siglip {
        return Ok(TextConfig {
            context_length: section.size("max_position_embeddings", Some(64))?,
            vocab_size,
            prefix,
            transformer: transformer_config(&mut section, [768, 3072, 12, 12], family)?,
            causal: false,
            pool: TextPool::Last,
            projection: Projection::Linear,
            tokens: TokensBy::File(None, End::Kept),
        });
    }
    // The graph pools at the highest id of a row, which is the end token if that is the vocabulary's last.
    let end = section.take("eos_token_id").unwrap_or(json!(END_TOKEN));
    if end != LEGACY_END_TOKEN && end != vocab_size as u64 - 1 {
        let supported = format!("the last id, {}, or {LEGACY_END_TOKEN}", vocab_size - 1);
        return Err(section.refusal("eos_token_id", &end, &supported));
    }
    Ok(TextConfig {
        context_length: section.size("max_position_embeddings", Some(77))?,
        vocab_size,
        prefix,
        transformer: transformer_config(&mut section, [512, 2048, 12, 8], family)?,
        causal: true,
        pool: TextPool::Highest,
        projection: Projection::Matrix,
        tokens: TokensBy::Clip,
    })
}

/// Defaults are of `hidden_size`, `intermediate_size`, `num_hidden_layers` and `num_attention_heads`.
fn transformer_config(
    section: &mut Section,
    [width, mlp_width, layers, heads]: [usize; 4],
    family: Family,
) -> Result<TransformerConfig, ModelError> {
    let (epsilon, activations) = match family {
        Family::Clip => (EPSILON, ACTIVATIONS),
        Family::Siglip => (1e-6, [ACTIVATIONS[2], ACTIVATIONS[0], ACTIVATIONS[1]]),
    };
    let config = TransformerConfig {
        width: section.size("hidden_size", Some(width))?,
        layers: section.size("num_hidden_layers", Some(layers))?,
        heads: section.size("num_attention_heads", Some(heads))?,
        mlp_width: section.size("intermediate_size", Some(mlp_width))?,
        activation: section.choice("hidden_act", &activations)?,
        epsilon: section.positive("layer_norm_eps", epsilon.into())? as f32,
        layer_scale: false,
    };
    config.check_heads(section, "hidden_size")?;
    Ok(config)
}

/// `side` is the image encoder's.
pub(super) fn preprocess_config(
    mut section: Section,
    side: usize,
    family: Family,
) -> Result<PreprocessConfig, ModelError> {
    let steps = ["do_resize", "do_rescale", "do_normalize", "do_convert_rgb"];
    section.require(&steps.map(|step| (step, json!(true))))?;
    section.require(&[("do_pad", json!(false))])?;
    let factor = section.take("rescale_factor").unwrap_or(json!(1.0 / 255.0));
    if factor.as_f64().is_none_or(|factor| (factor * 255.0 - 1.0).abs() > 1e-6) {
        return Err(section.refusal("rescale_factor", &factor, "1/255"));
    }
    let square = json!({"height": side, "width": side});
    let size = section.take("size").unwrap_or(match family {
        Family::Clip => json!(224),
        Family::Siglip => json!({"height": 224, "width": 224}),
    });
    let resize_mode = if size == side || size == json!({"shortest_edge": side}) {
        ResizeMode::Shortest
    } else if size == square {
        ResizeMode::Squash
    } else {
        return Err(section.refusal("size", &size, &format!("{side}, the image encoder's")));
    };
    // Without it a picture must be square already.
    let cuts = family == Family::Clip || resize_mode == ResizeMode::Shortest;
    section.require(&[("do_center_crop", json!(cuts))])?;
    let crop = section.take("crop_size").unwrap_or(json!(if cuts { 224 } else { side }));
    if crop != side && crop != square {
        return Err(section.refusal("crop_size", &crop, &format!("{side}, the image encoder's")));
    }
    let resample = section.take("resample").unwrap_or(json!(3));
    let interpolation = match resample.as_u64() {
        Some(2) => Interpolation::Bilinear,
        Some(3) => Interpolation::Bicubic,
        _ => return Err(section.refusal("resample", &resample, "2 (bilinear) or 3 (bicubic)")),
    };
    let (mean, std) = match family {
        Family::Clip => (OPENAI_MEAN, OPENAI_STD),
        Family::Siglip => ([0.5; 3], [0.5; 3]),
    };
    let config = PreprocessConfig {
        mean: section.rgb("image_mean", mean)?,
        std: section.rgb("image_std", std)?,
        interpolation,
        resize_mode,
    };
    section.ignore(&INERT_KEYS);
    section.finish()?;
    Ok(config)
}
