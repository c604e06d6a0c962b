//! Which files of a repository make a model.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::model::checkpoint::shard_names;
use crate::model::config::{tokenizer, transformers};
use crate::model::files::{
    PICKLED_WEIGHTS_FILE, TRANSFORMERS_PICKLED_WEIGHTS_FILE, TRANSFORMERS_WEIGHTS_FILE,
};
use crate::model::ready_made;
use crate::model::variant::Variant;
use crate::model::{CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE};

/// The files of a repository that make a model; an error says what is missing. Weights go first where there are ONNX
/// graphs, too, unless a variant of these is asked for.
pub(super) fn choose<'a>(files: &'a [String], variant: &Variant) -> Result<Vec<&'a str>, String> {
    let has = |name: &str| files.iter().any(|file| file == name);
    let beside = |name: &str| files.iter().find(|file| *file == name).map(String::as_str);
    let (config, weights) = if has(CONFIG_FILE) {
        (CONFIG_FILE, [WEIGHTS_FILE, PICKLED_WEIGHTS_FILE])
    } else {
        (transformers::CONFIG_FILE, [TRANSFORMERS_WEIGHTS_FILE, TRANSFORMERS_PICKLED_WEIGHTS_FILE])
    };
    // Safetensors first; of each kind one file before several.
    let weights = weights.iter().find_map(|name| whole(files, name)).filter(|_| !variant.is_asked_for());
    let Some(mut chosen) = weights else {
        return ready_made::choose(files, variant).ok_or_else(|| match variant.is_asked_for() {
            true => format!("it has no ONNX graphs {}", ready_made::named(variant)),
            false => NO_WEIGHTS.to_owned(),
        });
    };
    chosen.push(beside(config).ok_or("it has neither open_clip_config.json nor config.json")?);
    // An image encoder alone has no tokenizer; that one is missing, its configuration will tell.
    chosen.extend([TOKENIZER_FILE, tokenizer::CONFIG_FILE].into_iter().filter_map(beside));
    if config != CONFIG_FILE {
        let preprocessors = [transformers::PREPROCESSOR_FILE, transformers::PROCESSOR_FILE];
        let found: Vec<&str> = preprocessors.into_iter().filter_map(beside).collect();
        if found.is_empty() {
            return Err("it has no preprocessor_config.json".to_owned());
        }
        chosen.extend(found);
    } else if !has(TOKENIZER_FILE) {
        return Err("it has no tokenizer.json".to_owned());
    }
    Ok(chosen)
}

const NO_WEIGHTS: &str = "it has no weights that clipd reads: open_clip_model.safetensors, model.safetensors, \
                          or the same pickled, open_clip_pytorch_model.bin or pytorch_model.bin; nor ONNX graphs in a \
                          layout that it knows";

/// A file of weights, or the shards that stand for it and their index.
fn whole<'a>(files: &'a [String], name: &str) -> Option<Vec<&'a str>> {
    let beside = |name: &str| files.iter().find(|file| *file == name).map(String::as_str);
    if let Some(weights) = beside(name) {
        return Some(vec![weights]);
    }
    let index = beside(&format!("{name}.index.json"))?;
    let (stem, extension) = name.rsplit_once('.')?;
    let shard =
        |file: &&String| file.starts_with(&format!("{stem}-")) && file.ends_with(&format!(".{extension}"));
    Some(files.iter().filter(shard).map(String::as_str).chain([index]).collect())
}

/// Names of the files that an index of shards lists.
pub(super) fn shards_of(index: &Path) -> Option<BTreeSet<String>> {
    shard_names(&fs::read(index).ok()?).ok()
}
