//! Which files make a model, in each of the layouts whose graphs clipd writes itself.
//!
//! | layout | weights | configuration |
//! |---|---|---|
//! | open_clip | `open_clip_model.safetensors`, or `open_clip_pytorch_model.bin` | `open_clip_config.json` |
//! | transformers | `model.safetensors`, or `pytorch_model.bin` | `config.json` and that of the (pre)processor |
//!
//! Both have a `tokenizer.json`, beside which SigLIP's kind has a `tokenizer_config.json`; an image encoder alone has
//! neither. Either may have its weights in several shards. Where both layouts are
//! present, open_clip's counts, and safetensors before what is pickled. Where there is neither file, the only
//! pickled one of the directory is taken, as training leaves it. It does not look below the directory.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::ModelError;
use super::checkpoint::pickled::is_pickled;
use super::checkpoint::shard::Shard;
use super::checkpoint::{Checkpoint, Naming};
use super::config::tokenizer::{self, TokenizerConfig};
use super::config::{Config, TokensBy, transformers};
use super::io::{hexadecimal, read};
use crate::clip::spec::TextSpec;

/// open_clip's weights, as fp32, fp16 or bf16.
pub const WEIGHTS_FILE: &str = "open_clip_model.safetensors";
/// The same, pickled.
pub(super) const PICKLED_WEIGHTS_FILE: &str = "open_clip_pytorch_model.bin";
/// open_clip's `model_cfg` and `preprocess_cfg`.
pub const CONFIG_FILE: &str = "open_clip_config.json";
/// A Hugging Face tokenizer.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// transformers' weights.
pub(super) const TRANSFORMERS_WEIGHTS_FILE: &str = "model.safetensors";
/// The same, pickled.
pub(super) const TRANSFORMERS_PICKLED_WEIGHTS_FILE: &str = "pytorch_model.bin";

/// A model's files: the small ones read, the weights open.
pub(super) struct Files {
    pub(super) config: Config,
    pub(super) checkpoint: Checkpoint,
    /// Of the texts, if there is an encoder for them.
    pub(super) text: Option<TextSpec>,
    /// Empty without texts.
    pub(super) tokenizer_json: Vec<u8>,
    pub(super) fingerprint: String,
}

impl Files {
    /// The small files come first: a wrong directory is noticed before the weights are read.
    pub(super) fn open(directory: &Path) -> Result<Files, ModelError> {
        let read = |file: &str| read(directory, file);
        if directory.join(CONFIG_FILE).exists() {
            let config = read(CONFIG_FILE)?;
            let weights = weights(directory, [WEIGHTS_FILE, PICKLED_WEIGHTS_FILE]);
            let checkpoint = Checkpoint::open(directory, &weights, Naming::OpenClip)?;
            let parsed = Config::from_open_clip(&config, &|name| checkpoint.shape(name))?;
            Files::new(parsed, checkpoint, vec![config], &read)
        } else if directory.join(transformers::CONFIG_FILE).exists() {
            let config = read(transformers::CONFIG_FILE)?;
            let preprocessor_file = transformers::preprocessor_file(directory);
            let preprocessor = read(preprocessor_file)?;
            let parsed = Config::from_transformers(&config, preprocessor_file, &preprocessor)?;
            let weights = weights(directory, [TRANSFORMERS_WEIGHTS_FILE, TRANSFORMERS_PICKLED_WEIGHTS_FILE]);
            let checkpoint = Checkpoint::open(directory, &weights, Naming::Transformers)?;
            Files::new(parsed, checkpoint, vec![config, preprocessor], &read)
        } else {
            Err(ModelError::NoModel { directory: directory.to_owned() })
        }
    }

    /// open_clip's three files.
    pub(super) fn in_memory(
        weights: impl AsRef<[u8]> + 'static,
        config: &[u8],
        tokenizer: &[u8],
    ) -> Result<Files, ModelError> {
        let shard = Shard::in_memory(WEIGHTS_FILE, weights)?;
        let checkpoint = Checkpoint::new(WEIGHTS_FILE, vec![shard], Naming::OpenClip)?;
        let parsed = Config::from_open_clip(config, &|name| checkpoint.shape(name))?;
        Files::new(parsed, checkpoint, vec![config.to_vec()], &|_| Ok(tokenizer.to_vec()))
    }

    /// `read` gives the files of the tokenizer.
    fn new(
        config: Config,
        mut checkpoint: Checkpoint,
        mut config_files: Vec<Vec<u8>>,
        read: &dyn Fn(&str) -> Result<Vec<u8>, ModelError>,
    ) -> Result<Files, ModelError> {
        let (mut text, mut tokenizer_json) = (None, Vec::new());
        if let Some(config) = &config.text {
            tokenizer_json = read(TOKENIZER_FILE)?;
            let mut beside = None;
            if let TokensBy::File(..) = config.tokens {
                let json = read(tokenizer::CONFIG_FILE)?;
                beside = Some(TokenizerConfig::parse(tokenizer::CONFIG_FILE, &json, &tokenizer_json)?);
                config_files.push(json);
            }
            text = Some(config.spec(beside.as_ref()));
        }
        let mut hasher = Sha256::new();
        checkpoint.hash(&mut hasher)?;
        config_files.iter().for_each(|file| hasher.update(file));
        hasher.update(&tokenizer_json);
        let fingerprint = hexadecimal(hasher);
        Ok(Files { config, checkpoint, text, tokenizer_json, fingerprint })
    }
}

/// Whether weights of a usual name are there.
pub(super) fn has_weights(directory: &Path) -> bool {
    let names =
        [WEIGHTS_FILE, PICKLED_WEIGHTS_FILE, TRANSFORMERS_WEIGHTS_FILE, TRANSFORMERS_PICKLED_WEIGHTS_FILE];
    names.into_iter().any(|name| is_there(directory, name))
}

/// Whole or in shards.
fn is_there(directory: &Path, name: &str) -> bool {
    directory.join(name).exists() || directory.join(format!("{name}.index.json")).exists()
}

/// The first of `names` that is there, whole or in shards; else the only pickled file; else the first, which is then
/// missed by its name.
fn weights(directory: &Path, names: [&str; 2]) -> String {
    if let Some(name) = names.into_iter().find(|name| is_there(directory, name)) {
        return name.to_owned();
    }
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let files = files.filter_map(|entry| entry.file_name().into_string().ok());
    let pickled: Vec<String> = files.filter(|name| is_pickled(name)).collect();
    match &pickled[..] {
        [only] => only.clone(),
        _ => names[0].to_owned(),
    }
}
