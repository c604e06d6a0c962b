//! Where models come from: weights, a config and a vocabulary become two ONNX graphs.
//!
//! It does not run anything and does not know ONNX Runtime; that is `engine`'s part. A model is three
//! files, as open_clip writes them: [`WEIGHTS_FILE`], [`CONFIG_FILE`], [`TOKENIZER_FILE`]. Whatever those
//! files ask for that the graphs do not implement is refused by name: a model that loads computes what
//! open_clip computes.

mod builtin;
mod checkpoint;
pub mod classifiers;
mod config;
pub mod export;
pub mod graph;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::clip::spec::{ClipSpec, ImageSpec, TextSpec};
use checkpoint::Checkpoint;
use config::Config;
use graph::Graph;

/// Weights under open_clip's names, as fp32, fp16 or bf16.
pub const WEIGHTS_FILE: &str = "open_clip_model.safetensors";
/// `model_cfg` and `preprocess_cfg`.
pub const CONFIG_FILE: &str = "open_clip_config.json";
/// A Hugging Face tokenizer.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// A CLIP model that is ready to be opened on a device.
#[derive(Debug)]
pub struct Model {
    /// `emoji-clip`, or the name of the directory it was read from.
    pub name: String,
    /// SHA-256 over the weights, config and tokenizer files one after the other, in hexadecimal.
    pub fingerprint: String,
    pub spec: ClipSpec,
    /// The bytes of [`TOKENIZER_FILE`], not parsed.
    pub tokenizer_json: Vec<u8>,
    /// The image encoder.
    pub image: Graph,
    /// The text encoder.
    pub text: Graph,
}

/// Why three files are not a model. Every message names the file and the key or tensor at fault.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("{}: cannot read {file}: {source}", directory.display())]
    File { directory: PathBuf, file: &'static str, source: io::Error },
    #[error("{CONFIG_FILE}: {0}")]
    ConfigSyntax(serde_json::Error),
    #[error("{CONFIG_FILE}: {key} is {value}, supported is {supported}")]
    Config { key: String, value: String, supported: String },
    #[error("{WEIGHTS_FILE}: {0}")]
    WeightsSyntax(safetensors::SafeTensorError),
    #[error("{WEIGHTS_FILE}: tensor {name} is missing")]
    TensorMissing { name: String },
    #[error("{WEIGHTS_FILE}: tensor {name} has shape {found:?}, {CONFIG_FILE} asks for {expected:?}")]
    TensorShape { name: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("{WEIGHTS_FILE}: tensor {name} is of type {found}, supported are F32, F16 and BF16")]
    TensorType { name: String, found: String },
    #[error("{WEIGHTS_FILE}: tensor {name} has no place in the architecture of {CONFIG_FILE}")]
    TensorUnknown { name: String },
}

/// The contents of a model's files.
struct Files<'a> {
    weights: &'a [u8],
    config: &'a [u8],
    tokenizer: &'a [u8],
}

impl Model {
    /// Reads an open_clip model from a directory.
    ///
    /// For the time of the call the weights are in memory twice, as in the file and as fp32.
    pub fn from_dir(directory: &Path) -> Result<Model, ModelError> {
        let read = |file| {
            std::fs::read(directory.join(file)).map_err(|source| ModelError::File {
                directory: directory.to_owned(),
                file,
                source,
            })
        };
        // The small ones first: a wrong directory is noticed before the weights are read.
        let (config, tokenizer) = (read(CONFIG_FILE)?, read(TOKENIZER_FILE)?);
        let weights = read(WEIGHTS_FILE)?;
        // `..` and `.` have no name of their own.
        let path = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Model::assemble(name, Files { weights: &weights, config: &config, tokenizer: &tokenizer })
    }

    fn assemble(name: String, files: Files<'_>) -> Result<Model, ModelError> {
        let config = Config::parse(files.config)?;
        let mut checkpoint = Checkpoint::parse(files.weights)?;
        let image = graph::image::image_encoder(&mut checkpoint, &config.image, config.embed_dim)?;
        let text = graph::text::text_encoder(&mut checkpoint, &config.text, config.embed_dim)?;
        // Saved as a logarithm; OpenAI clipped it in training.
        let logit_scale = checkpoint.take_number("logit_scale")?.exp().min(100.0);
        let logit_bias = if config.logit_bias { checkpoint.take_number("logit_bias")? } else { 0.0 };
        checkpoint.finish()?;
        Ok(Model {
            name,
            fingerprint: fingerprint(&files),
            spec: ClipSpec {
                embed_dim: config.embed_dim,
                image: ImageSpec {
                    height: config.image.height as u32,
                    width: config.image.width as u32,
                    interpolation: config.image.preprocess.interpolation,
                    resize_mode: config.image.preprocess.resize_mode,
                },
                text: TextSpec {
                    context_length: config.text.context_length,
                    vocab_size: config.text.vocab_size,
                },
                logit_scale,
                logit_bias,
            },
            tokenizer_json: files.tokenizer.to_vec(),
            image,
            text,
        })
    }
}

fn fingerprint(files: &Files<'_>) -> String {
    let mut hasher = Sha256::new();
    hasher.update(files.weights);
    hasher.update(files.config);
    hasher.update(files.tokenizer);
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
