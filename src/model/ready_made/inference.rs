//! As open_clip_inference exports models.
//!
//! | file | what it is |
//! |---|---|
//! | `visual.onnx`, `text.onnx` | one encoder each |
//! | `open_clip_config.json` | open_clip's |
//! | `model_config.json` | the logit scale and bias, and how logits become scores |
//! | `tokenizer.json` | a Hugging Face tokenizer |
//! | `tokenizer_config.json` | needed where the tokenizer is not CLIP's own |
//!
//! `visual.onnx` alone is an image encoder alone.

use std::path::Path;

use serde::Deserialize;

use super::recipe::{KnownLogits, Names, Recipe, Source, is_called_after};
use crate::clip::spec::Scores;
use crate::model::config::ready_made::ReadyMadeConfig;
use crate::model::config::tokenizer::{self, TokenizerFiles};
use crate::model::io::read;
use crate::model::{CONFIG_FILE, ModelError, TOKENIZER_FILE};

const IMAGE_FILE: &str = "visual.onnx";
const TEXT_FILE: &str = "text.onnx";
const LOGITS_FILE: &str = "model_config.json";

/// Of [`LOGITS_FILE`]; what else is there is said by others, too.
#[derive(Deserialize)]
struct LogitsFile {
    logit_scale: f32,
    logit_bias: f32,
    activation_function: ActivationFunction,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ActivationFunction {
    Softmax,
    Sigmoid,
}

pub(super) fn names() -> Names {
    Names {
        image: IMAGE_FILE.to_owned(),
        text: TEXT_FILE.to_owned(),
        needed: &[&[CONFIG_FILE], &[LOGITS_FILE]],
        tokenizer: TOKENIZER_FILE,
        tokenizer_config: tokenizer::CONFIG_FILE,
        may_be_weights: is_called_after,
    }
}

pub(super) fn recipe(directory: &Path, _: Names) -> Result<Recipe, ModelError> {
    let model = read(directory, CONFIG_FILE)?;
    let numbers = read(directory, LOGITS_FILE)?;
    let logits: LogitsFile = serde_json::from_slice(&numbers)
        .map_err(|source| ModelError::Json { file: LOGITS_FILE.to_owned(), source })?;
    let has_texts = directory.join(TEXT_FILE).exists();
    let tokenizer =
        has_texts.then(|| TokenizerFiles::read(directory, TOKENIZER_FILE, tokenizer::CONFIG_FILE));
    let tokenizer = tokenizer.transpose()?;
    Ok(Recipe {
        config: ReadyMadeConfig::from_open_clip((CONFIG_FILE, &model), tokenizer.as_ref())?,
        image: Source { file: IMAGE_FILE.to_owned(), outputs: &[] },
        text: has_texts.then(|| Source { file: TEXT_FILE.to_owned(), outputs: &[] }),
        logits: KnownLogits {
            scale: logits.logit_scale,
            bias: logits.logit_bias,
            scores: match logits.activation_function {
                ActivationFunction::Softmax => Scores::Softmax,
                ActivationFunction::Sigmoid => Scores::Sigmoid,
            },
        },
        files: vec![model, numbers],
        tokenizer,
    })
}
