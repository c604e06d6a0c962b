//! What graphs that others exported leave to be said: of open_clip's configuration, or of transformers', what is not
//! the architecture, about which the graphs have decided.

use serde_json::{Value, json};

use super::open_clip::{preprocess_config, tokens_by};
use super::section::Section;
use super::tokenizer::{TokenizerConfig, TokenizerFiles};
use super::transformers::{self, Family};
use super::{PreprocessConfig, TokensBy};
use crate::clip::spec::{End, PaddedTo, Padding, Side, TextSpec, Tokenization};
use crate::model::ModelError;

/// What is not in the graphs.
pub(in crate::model) struct ReadyMadeConfig {
    pub(in crate::model) embed_dim: usize,
    /// Pixels.
    pub(in crate::model) height: usize,
    /// Pixels.
    pub(in crate::model) width: usize,
    pub(in crate::model) preprocess: PreprocessConfig,
    /// `None`: there is an image encoder alone.
    pub(in crate::model) text: Option<TextSpec>,
    /// Whether the model was trained with a sigmoid.
    pub(in crate::model) sigmoid: bool,
}

/// Where nobody says how many tokens there are: any that a file of a vocabulary can have.
const ANY_VOCABULARY: usize = u32::MAX as usize;

/// Name and contents of a file.
type Named<'a> = (&'static str, &'a [u8]);

impl ReadyMadeConfig {
    /// open_clip's `model_cfg` and `preprocess_cfg`, a file each.
    pub(in crate::model) fn from_model_cfg(
        (model_file, model): Named<'_>,
        (preprocess_file, preprocess): Named<'_>,
        tokenizer: Option<&TokenizerFiles>,
    ) -> Result<ReadyMadeConfig, ModelError> {
        let preprocess = Section::file(preprocess_file, preprocess)?;
        of_open_clip(Section::file(model_file, model)?, preprocess, tokenizer)
    }

    /// The same in one file.
    pub(in crate::model) fn from_open_clip(
        (file, json): Named<'_>,
        tokenizer: Option<&TokenizerFiles>,
    ) -> Result<ReadyMadeConfig, ModelError> {
        let mut file = Section::file(file, json)?;
        let (model, preprocess) =
            (file.section("model_cfg", None)?, file.section("preprocess_cfg", Some(json!({})))?);
        of_open_clip(model, preprocess, tokenizer)
    }

    /// transformers' `config.json`, and the file of the preprocessor.
    pub(in crate::model) fn from_transformers(
        config: &[u8],
        (preprocessor_file, preprocessor): Named<'_>,
        tokenizer: Option<&TokenizerFiles>,
    ) -> Result<ReadyMadeConfig, ModelError> {
        let mut model = Section::file(transformers::CONFIG_FILE, config)?;
        let model_type = model.take("model_type").unwrap_or(Value::Null);
        let name = model_type.as_str().unwrap_or_default();
        let family = if name.starts_with("siglip") { Family::Siglip } else { Family::Clip };
        let preprocessor = transformers::preprocessor_section(preprocessor_file, preprocessor)?;
        let projected = model.size("projection_dim", Some(512))?;
        let text = model.section("text_config", Some(json!({})))?;
        // An image encoder alone has no sections.
        let mut vision =
            if model.has("vision_config") { model.section("vision_config", None)? } else { model };
        let side = vision.size("image_size", Some(224))?;
        let embed_dim = match family {
            Family::Clip => projected,
            Family::Siglip => vision.size("hidden_size", Some(768))?,
        };
        Ok(ReadyMadeConfig {
            embed_dim,
            height: side,
            width: side,
            preprocess: transformers::preprocess_config(preprocessor, side, family)?,
            text: tokenizer.map(|tokenizer| transformers_texts(text, family, tokenizer)).transpose()?,
            sigmoid: family == Family::Siglip && tokenizer.is_some(),
        })
    }
}

fn of_open_clip(
    mut model: Section,
    preprocess: Section,
    tokenizer: Option<&TokenizerFiles>,
) -> Result<ReadyMadeConfig, ModelError> {
    let (height, width) = model.section("vision_cfg", None)?.height_and_width("image_size", 224)?;
    let text = model.section("text_cfg", Some(json!({})))?;
    Ok(ReadyMadeConfig {
        embed_dim: model.size("embed_dim", None)?,
        height,
        width,
        preprocess: preprocess_config(preprocess)?,
        text: tokenizer.map(|tokenizer| open_clip_texts(text, tokenizer)).transpose()?,
        sigmoid: model.has("init_logit_bias"),
    })
}

/// An encoder in which tokens see only those before them ends at the end token; any other was trained on full rows.
fn open_clip_texts(mut section: Section, tokenizer: &TokenizerFiles) -> Result<TextSpec, ModelError> {
    let context_length = section.size("context_length", Some(77))?;
    let sees_padding = section.flag("no_causal_mask")? || section.flag("embed_cls")?;
    Ok(match tokens_by(&mut section)? {
        TokensBy::Clip => TextSpec {
            context_length,
            vocab_size: section.size("vocab_size", Some(49_408))?,
            tokenization: Tokenization::Clip,
            padding: if sees_padding {
                Padding { rows: PaddedTo::Context(Side::Right), ..Padding::CLIP }
            } else {
                Padding::CLIP
            },
        },
        TokensBy::File(cleaning, end) => {
            let TokenizerConfig { cleaning: class, pad, side, .. } = tokenizer.config()?;
            TextSpec {
                context_length,
                vocab_size: section.size("vocab_size", Some(ANY_VOCABULARY))?,
                tokenization: Tokenization::File(cleaning.unwrap_or(class), end),
                padding: Padding { id: pad, rows: PaddedTo::Context(side) },
            }
        }
    })
}

/// CLIP's and SigLIP's own, or any other encoder with a mask for what pads.
fn transformers_texts(
    mut section: Section,
    family: Family,
    tokenizer: &TokenizerFiles,
) -> Result<TextSpec, ModelError> {
    let siglip = family == Family::Siglip;
    let context_length = section.size("max_position_embeddings", Some(if siglip { 64 } else { 77 }))?;
    if !siglip && tokenizer.is_clips()? {
        return Ok(TextSpec {
            context_length,
            vocab_size: section.size("vocab_size", Some(49_408))?,
            tokenization: Tokenization::Clip,
            padding: Padding::CLIP,
        });
    }
    let TokenizerConfig { cleaning, pad, side, longest } = tokenizer.config()?;
    Ok(TextSpec {
        context_length: longest.map_or(context_length, |longest| longest.min(context_length)),
        vocab_size: section.size("vocab_size", Some(ANY_VOCABULARY))?,
        tokenization: Tokenization::File(cleaning, End::Kept),
        padding: Padding { id: pad, rows: if siglip { PaddedTo::Context(side) } else { PaddedTo::Longest } },
    })
}
