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

use super::recipe::{KnownLogits, Recipe, Source};
use crate::model::config::ready_made::ReadyMadeConfig;
use crate::model::config::tokenizer::{self, TokenizerFiles};
use crate::model::config::transformers;
use crate::model::io::read;
use crate::model::variant::Variant;
use crate::model::{ModelError, TOKENIZER_FILE};

const IMAGE_OUTPUTS: &[&str] = &["image_embeds", "pooler_output"];
const TEXT_OUTPUTS: &[&str] = &["text_embeds", "pooler_output"];

/// The files of both encoders, which may be one.
pub(super) struct Graphs {
    image: String,
    text: Option<String>,
}

impl Graphs {
    /// `None`: there are none of this variant.
    pub(super) fn of(has: &dyn Fn(&str) -> bool, variant: &Variant) -> Option<Graphs> {
        let suffix = variant.suffix();
        let there = |stem: &str| Some(format!("{stem}{suffix}.onnx")).filter(|file| has(file));
        if let Some(image) = there("onnx/vision_model") {
            return Some(Graphs { image, text: there("onnx/text_model") });
        }
        let merged = there("onnx/model").or_else(|| there("model"))?;
        Some(Graphs { text: Some(merged.clone()), image: merged })
    }

    pub(super) fn files(self) -> Vec<String> {
        let others = [
            transformers::CONFIG_FILE,
            transformers::PROCESSOR_FILE,
            transformers::PREPROCESSOR_FILE,
            TOKENIZER_FILE,
            tokenizer::CONFIG_FILE,
        ];
        [self.image].into_iter().chain(self.text).chain(others.map(str::to_owned)).collect()
    }
}

pub(super) fn recipe(directory: &Path, graphs: Graphs) -> Result<Recipe, ModelError> {
    let Graphs { image, text } = graphs;
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
