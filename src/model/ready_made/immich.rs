//! As immich publishes models.
//!
//! | file | what it is |
//! |---|---|
//! | `visual/model.onnx`, `textual/model.onnx` | one encoder each |
//! | files beside a graph | its weights where they are more than 2 GB, perhaps each tensor in a file by its name |
//! | `config.json` | open_clip's `model_cfg` |
//! | `visual/preprocess_cfg.json` | open_clip's `preprocess_cfg` |
//! | `textual/tokenizer.json` | a Hugging Face tokenizer |
//! | `textual/tokenizer_config.json` | needed where the tokenizer is not CLIP's own |
//!
//! Without `textual` there is an image encoder alone.

use std::path::Path;

use super::recipe::{KnownLogits, Names, Recipe, Source};
use crate::model::ModelError;
use crate::model::config::ready_made::ReadyMadeConfig;
use crate::model::config::tokenizer::TokenizerFiles;
use crate::model::io::read;

const IMAGE_FILE: &str = "visual/model.onnx";
const TEXT_FILE: &str = "textual/model.onnx";
const CONFIG_FILE: &str = "config.json";
const PREPROCESS_FILE: &str = "visual/preprocess_cfg.json";
const TOKENIZER_FILE: &str = "textual/tokenizer.json";
const TOKENIZER_CONFIG_FILE: &str = "textual/tokenizer_config.json";

pub(super) fn names() -> Names {
    Names {
        image: IMAGE_FILE.to_owned(),
        text: TEXT_FILE.to_owned(),
        needed: &[&[CONFIG_FILE], &[PREPROCESS_FILE]],
        tokenizer: TOKENIZER_FILE,
        tokenizer_config: TOKENIZER_CONFIG_FILE,
        may_be_weights,
    }
}

/// Names of what else lies beside a graph end so: small files, and the same encoder for other engines.
const OTHERS: [&str; 6] = [".json", ".txt", ".model", ".onnx", ".armnn", ".rknn"];

fn may_be_weights(file: &str, graph: &str) -> bool {
    let name = graph.rsplit_once('/').and_then(|(folder, _)| file.strip_prefix(folder)?.strip_prefix('/'));
    name.is_some_and(|name| !name.contains('/') && !OTHERS.iter().any(|other| name.ends_with(other)))
}

pub(super) fn recipe(directory: &Path, _: Names) -> Result<Recipe, ModelError> {
    let model = read(directory, CONFIG_FILE)?;
    let preprocess = read(directory, PREPROCESS_FILE)?;
    let has_texts = directory.join(TEXT_FILE).exists();
    let tokenizer = has_texts.then(|| TokenizerFiles::read(directory, TOKENIZER_FILE, TOKENIZER_CONFIG_FILE));
    let tokenizer = tokenizer.transpose()?;
    let config = ReadyMadeConfig::from_model_cfg(
        (CONFIG_FILE, &model),
        (PREPROCESS_FILE, &preprocess),
        tokenizer.as_ref(),
    )?;
    Ok(Recipe {
        image: Source { file: IMAGE_FILE.to_owned(), outputs: &[] },
        text: has_texts.then(|| Source { file: TEXT_FILE.to_owned(), outputs: &[] }),
        logits: KnownLogits::none(config.sigmoid),
        config,
        files: vec![model, preprocess],
        tokenizer,
    })
}
