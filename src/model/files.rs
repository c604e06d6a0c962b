//! Which files make a model, in each of the layouts whose graphs clipd writes itself.
//!
//! | layout | weights | configuration |
//! |---|---|---|
//! | open_clip | `open_clip_model.safetensors` | `open_clip_config.json` |
//! | transformers | `model.safetensors` | `config.json`, `preprocessor_config.json` or `processor_config.json` |
//!
//! Both have a `tokenizer.json`, and either may have its weights in several shards. Where both layouts are
//! present, open_clip's counts. It does not look below the directory.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::ModelError;
use super::checkpoint::shard::Shard;
use super::checkpoint::{Checkpoint, Naming};
use super::config::{Config, transformers};
use super::io::{hexadecimal, read};

/// open_clip's weights, as fp32, fp16 or bf16.
pub const WEIGHTS_FILE: &str = "open_clip_model.safetensors";
/// open_clip's `model_cfg` and `preprocess_cfg`.
pub const CONFIG_FILE: &str = "open_clip_config.json";
/// A Hugging Face tokenizer.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// transformers' weights.
const TRANSFORMERS_WEIGHTS_FILE: &str = "model.safetensors";

/// A model's files: the small ones read, the weights open.
pub(super) struct Files {
    pub(super) config: Config,
    pub(super) checkpoint: Checkpoint,
    pub(super) tokenizer_json: Vec<u8>,
    pub(super) fingerprint: String,
}

impl Files {
    /// The small files come first: a wrong directory is noticed before the weights are read.
    pub(super) fn open(directory: &Path) -> Result<Files, ModelError> {
        let read = |file| read(directory, file);
        if directory.join(CONFIG_FILE).exists() {
            let (config, tokenizer) = (read(CONFIG_FILE)?, read(TOKENIZER_FILE)?);
            let parsed = Config::from_open_clip(&config)?;
            not_pickled(directory, WEIGHTS_FILE)?;
            let checkpoint = Checkpoint::open(directory, WEIGHTS_FILE, Naming::OpenClip)?;
            Files::new(parsed, checkpoint, &[&config], tokenizer)
        } else if directory.join(transformers::CONFIG_FILE).exists() {
            let config = read(transformers::CONFIG_FILE)?;
            let has_processor = directory.join(transformers::PROCESSOR_FILE).exists();
            let preprocessor_file =
                if has_processor { transformers::PROCESSOR_FILE } else { transformers::PREPROCESSOR_FILE };
            let preprocessor = read(preprocessor_file)?;
            let tokenizer = read(TOKENIZER_FILE)?;
            let parsed = Config::from_transformers(&config, preprocessor_file, &preprocessor)?;
            not_pickled(directory, TRANSFORMERS_WEIGHTS_FILE)?;
            let checkpoint = Checkpoint::open(directory, TRANSFORMERS_WEIGHTS_FILE, Naming::Transformers)?;
            Files::new(parsed, checkpoint, &[&config, &preprocessor], tokenizer)
        } else {
            not_pickled(directory, WEIGHTS_FILE)?;
            Err(ModelError::NoModel { directory: directory.to_owned() })
        }
    }

    /// open_clip's three files.
    pub(super) fn in_memory(
        weights: impl AsRef<[u8]> + 'static,
        config: &[u8],
        tokenizer: &[u8],
    ) -> Result<Files, ModelError> {
        let parsed = Config::from_open_clip(config)?;
        let shard = Shard::in_memory(WEIGHTS_FILE, weights)?;
        let checkpoint = Checkpoint::new(WEIGHTS_FILE, vec![shard], Naming::OpenClip)?;
        Files::new(parsed, checkpoint, &[config], tokenizer.to_vec())
    }

    fn new(
        config: Config,
        mut checkpoint: Checkpoint,
        config_files: &[&[u8]],
        tokenizer_json: Vec<u8>,
    ) -> Result<Files, ModelError> {
        let mut hasher = Sha256::new();
        checkpoint.hash(&mut hasher)?;
        config_files.iter().for_each(|file| hasher.update(file));
        hasher.update(&tokenizer_json);
        let fingerprint = hexadecimal(hasher);
        Ok(Files { config, checkpoint, tokenizer_json, fingerprint })
    }
}

/// Pickled weights where safetensors are `wanted` and absent have an error of their own: the files of many older
/// models.
fn not_pickled(directory: &Path, wanted: &'static str) -> Result<(), ModelError> {
    let is_there = |file: &str| directory.join(file).exists();
    if is_there(wanted) || is_there(&format!("{wanted}.index.json")) {
        return Ok(());
    }
    let names = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    match names.filter(|name| is_pickled(name)).min() {
        Some(found) => Err(ModelError::Pickled { directory: directory.to_owned(), found, wanted }),
        None => Ok(()),
    }
}

/// PyTorch's files of weights, by their names.
pub(super) fn is_pickled(file: &str) -> bool {
    [".bin", ".pt", ".pth", ".ckpt"].iter().any(|suffix| file.ends_with(suffix))
}
