//! Which files of a repository make a model.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::model::checkpoint::shard_names;
use crate::model::config::transformers;
use crate::model::files::is_pickled;
use crate::model::{CONFIG_FILE, TOKENIZER_FILE};

/// The files of a repository that make a model; an error says what is missing.
pub(super) fn choose(files: &[String]) -> Result<Vec<&str>, &'static str> {
    let has = |name: &str| files.iter().any(|file| file == name);
    let beside = |name: &str| files.iter().find(|file| *file == name).map(String::as_str);
    let (config, stem) = if has(CONFIG_FILE) {
        (CONFIG_FILE, "open_clip_model")
    } else {
        (transformers::CONFIG_FILE, "model")
    };
    let weights = format!("{stem}.safetensors");
    let index = format!("{weights}.index.json");
    let mut chosen: Vec<&str> = match (beside(&weights), beside(&index)) {
        (Some(weights), _) => vec![weights],
        (None, Some(index)) => {
            let shard =
                |file: &&String| file.starts_with(&format!("{stem}-")) && file.ends_with(".safetensors");
            files.iter().filter(shard).map(String::as_str).chain([index]).collect()
        }
        (None, None) if files.iter().any(|file| is_pickled(file)) => {
            return Err("it has pickled weights only, which can run code when they are read; \
                        clipd reads open_clip_model.safetensors or model.safetensors");
        }
        (None, None) => return Err("it has neither open_clip_model.safetensors nor model.safetensors"),
    };
    chosen.push(beside(config).ok_or("it has neither open_clip_config.json nor config.json")?);
    chosen.push(beside(TOKENIZER_FILE).ok_or("it has no tokenizer.json")?);
    if config != CONFIG_FILE {
        let preprocessors = [transformers::PREPROCESSOR_FILE, transformers::PROCESSOR_FILE];
        let found: Vec<&str> = preprocessors.into_iter().filter_map(beside).collect();
        if found.is_empty() {
            return Err("it has no preprocessor_config.json");
        }
        chosen.extend(found);
    }
    Ok(chosen)
}

/// Names of the files that an index of shards lists.
pub(super) fn shards_of(index: &Path) -> Option<BTreeSet<String>> {
    shard_names(&fs::read(index).ok()?).ok()
}
