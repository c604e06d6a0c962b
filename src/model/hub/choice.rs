//! Which files of a repository make a model, or a data set in clip_benchmark's layout.

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

/// What a repository is fetched for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose<'a> {
    Model {
        variant: &'a Variant,
    },
    /// One of its splits.
    Data {
        split: &'a str,
    },
}

impl Purpose<'_> {
    /// The files that are needed, in the order in which to fetch them: what there may be none of before what there must
    /// be, so that an interrupted download lacks something by its name. An error says what is missing.
    pub(super) fn choose<'f>(&self, files: &'f [String]) -> Result<Vec<&'f str>, String> {
        match self {
            Purpose::Model { variant } => choose(files, variant),
            Purpose::Data { split } => choose_data(files, split),
        }
    }

    /// What is missing in a snapshot, of which others may have fetched a part.
    pub(super) fn missing(&self, directory: &Path, files: &[String]) -> Option<String> {
        let chosen = match self.choose(files) {
            Ok(chosen) => chosen,
            Err(missing) => return Some(missing),
        };
        let parts: Vec<String> = match self {
            Purpose::Model { .. } => {
                let config = fs::read(directory.join(transformers::CONFIG_FILE)).unwrap_or_default();
                // An image encoder alone is whole without.
                let tokenizer = transformers::has_texts(&config).then(|| TOKENIZER_FILE.to_owned());
                // An index names the shards.
                let indices = chosen.iter().filter(|file| file.ends_with(".index.json"));
                let shards = indices.filter_map(|index| shards_of(&directory.join(index))).flatten();
                shards.chain(tokenizer).collect()
            }
            Purpose::Data { split } => {
                let count = fs::read_to_string(directory.join(split).join(SHARDS_FILE)).unwrap_or_default();
                let Ok(count) = count.trim().parse::<usize>() else {
                    return Some(format!("{split}/{SHARDS_FILE} is not a number"));
                };
                (0..count).map(|shard| shard_name(split, shard)).collect()
            }
        };
        let part = parts.into_iter().find(|part| !files.contains(part))?;
        Some(format!("it has no {part}"))
    }
}

const SHARDS_FILE: &str = "nshards.txt";

/// Lists that a data set may have.
const LISTS: [&str; 3] = ["classnames.txt", "zeroshot_classification_templates.txt", "dataset_type.txt"];

fn shard_name(split: &str, shard: usize) -> String {
    format!("{split}/{shard}.tar")
}

fn choose_data<'f>(files: &'f [String], split: &str) -> Result<Vec<&'f str>, String> {
    let count = format!("{split}/{SHARDS_FILE}");
    let is_shard = |file: &str| {
        let name = file.strip_prefix(split).and_then(|rest| rest.strip_prefix('/')?.strip_suffix(".tar"));
        name.is_some_and(|name| name.parse::<usize>().is_ok_and(|shard| shard_name(split, shard) == file))
    };
    if !files.contains(&count) {
        return Err(
            "it is no data set in clip_benchmark's layout, or has no such split: nshards.txt is missing"
                .to_owned(),
        );
    }
    let wanted = |file: &&str| LISTS.contains(file) || *file == count || is_shard(file);
    Ok(files.iter().map(String::as_str).filter(wanted).collect())
}

/// The files of a repository that make a model; an error says what is missing. Weights go first where there are ONNX
/// graphs, too, unless a variant of these is asked for.
fn choose<'a>(files: &'a [String], variant: &Variant) -> Result<Vec<&'a str>, String> {
    let has = |name: &str| files.iter().any(|file| file == name);
    let beside = |name: &str| files.iter().find(|file| *file == name).map(String::as_str);
    let (config, weights) = if has(CONFIG_FILE) {
        (CONFIG_FILE, [WEIGHTS_FILE, PICKLED_WEIGHTS_FILE])
    } else {
        (transformers::CONFIG_FILE, [TRANSFORMERS_WEIGHTS_FILE, TRANSFORMERS_PICKLED_WEIGHTS_FILE])
    };
    // Safetensors first; of each kind one file before several.
    let weights = weights.iter().find_map(|name| whole(files, name)).filter(|_| !variant.is_asked_for());
    let Some(weights) = weights else {
        return ready_made::choose(files, variant).unwrap_or_else(|| {
            Err(match variant.is_asked_for() {
                true => format!("it has no ONNX graphs {}", ready_made::named(variant)),
                false => NO_WEIGHTS.to_owned(),
            })
        });
    };
    // An image encoder alone has no tokenizer; that one is missing, its configuration will tell.
    let mut chosen: Vec<&str> =
        [tokenizer::CONFIG_FILE, TOKENIZER_FILE].into_iter().filter_map(beside).collect();
    if config != CONFIG_FILE {
        let preprocessors = [transformers::PROCESSOR_FILE, transformers::PREPROCESSOR_FILE];
        let found: Vec<&str> = preprocessors.into_iter().filter_map(beside).collect();
        if found.is_empty() {
            return Err("it has no preprocessor_config.json".to_owned());
        }
        chosen.extend(found);
    } else if !has(TOKENIZER_FILE) {
        return Err("it has no tokenizer.json".to_owned());
    }
    chosen.push(beside(config).ok_or("it has neither open_clip_config.json nor config.json")?);
    chosen.extend(weights);
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
fn shards_of(index: &Path) -> Option<BTreeSet<String>> {
    shard_names(&fs::read(index).ok()?).ok()
}
