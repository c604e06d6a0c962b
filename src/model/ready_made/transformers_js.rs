//! As transformers.js and optimum have models of transformers'.
//!
//! | file | what it is |
//! |---|---|
//! | `onnx/vision_model.onnx`, `onnx/text_model.onnx` | one encoder each |
//! | `onnx/model.onnx`, or `model.onnx` as optimum writes it | instead of them both in one graph |
//! | `config.json`, and that of the (pre)processor | transformers' |
//! | `tokenizer.json`, `tokenizer_config.json` | a Hugging Face tokenizer |
//!
//! A variant is part of the names of graphs, as in `vision_model_fp16.onnx`. An image encoder may be alone. Of one
//! graph for both, each encoder is what its embedding depends on.

use std::path::Path;

use super::recipe::{KnownLogits, Names, Recipe, Source, is_called_after};
use crate::model::config::ready_made::ReadyMadeConfig;
use crate::model::config::tokenizer::{self, TokenizerFiles};
use crate::model::config::transformers;
use crate::model::io::read;
use crate::model::variant::Variant;
use crate::model::{ModelError, TOKENIZER_FILE};

const IMAGE_OUTPUTS: &[&str] = &["image_embeds", "pooler_output"];
const TEXT_OUTPUTS: &[&str] = &["text_embeds", "pooler_output"];

/// Of a variant; a graph for each encoder goes before one for both.
pub(super) fn names(has: &dyn Fn(&str) -> bool, variant: &Variant) -> Names {
    let named = |stem: &str| format!("{stem}{}.onnx", variant.suffix());
    let [image, text, both, optimums] =
        ["onnx/vision_model", "onnx/text_model", "onnx/model", "model"].map(named);
    let merged = [both, optimums].into_iter().find(|file| has(file));
    let (image, text) = match merged.filter(|_| !has(&image)) {
        Some(both) => (both.clone(), both),
        None => (image, text),
    };
    Names {
        image,
        text,
        needed: &[
            &[transformers::CONFIG_FILE],
            &[transformers::PREPROCESSOR_FILE, transformers::PROCESSOR_FILE],
        ],
        tokenizer: TOKENIZER_FILE,
        tokenizer_config: tokenizer::CONFIG_FILE,
        may_be_weights: is_called_after,
    }
}

pub(super) fn recipe(directory: &Path, names: Names) -> Result<Recipe, ModelError> {
    let Names { image, text, .. } = names;
    let text = Some(text).filter(|text| directory.join(text).exists());
    let config_json = read(directory, transformers::CONFIG_FILE)?;
    let preprocessor_file = transformers::preprocessor_file(directory);
    let preprocessor = read(directory, preprocessor_file)?;
    let tokenizer =
        text.as_ref().map(|_| TokenizerFiles::read(directory, TOKENIZER_FILE, tokenizer::CONFIG_FILE));
    let tokenizer = tokenizer.transpose()?;
    let config = ReadyMadeConfig::from_transformers(
        &config_json,
        (preprocessor_file, &preprocessor),
        tokenizer.as_ref(),
    )?;
    Ok(Recipe {
        image: Source { file: image, outputs: IMAGE_OUTPUTS },
        text: text.map(|file| Source { file, outputs: TEXT_OUTPUTS }),
        logits: KnownLogits::none(config.sigmoid),
        config,
        files: vec![config_json, preprocessor],
        tokenizer,
    })
}
