//! Where models come from: weights, a config and a vocabulary become two ONNX graphs.
//!
//! It does not run anything and does not know ONNX Runtime; that is `engine`'s part. Which files make a
//! model is said in [`files`], and in [`ready_made`] for those that are ONNX graphs already. Whatever those files
//! ask for that the graphs do not implement is refused by name: a model that loads computes what open_clip
//! computes.

mod builtin;
pub mod calibration;
mod checkpoint;
pub mod classifiers;
mod config;
pub mod export;
mod files;
pub mod graph;
pub mod hub;
mod io;
mod ready_made;
#[cfg(test)]
mod tests;
pub mod variant;

use std::path::{Path, PathBuf};

use crate::clip::spec::{ClipSpec, Scores};
use files::Files;
pub use files::{CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE};
use graph::{Form, Graph, Products};
use variant::Variant;

/// A CLIP model that is ready to be opened on a device.
#[derive(Debug)]
pub struct Model {
    /// `emoji-clip`, or the name of the directory it was read from.
    pub name: String,
    /// SHA-256 over the weights, configuration and tokenizer files one after the other, in hexadecimal.
    /// Shards go in the order of their names, transformers' `config.json` before its preprocessor's; an
    /// index of shards does not count. ONNX graphs come first, each before the weights beside it.
    pub fingerprint: String,
    pub spec: ClipSpec,
    /// The bytes of [`TOKENIZER_FILE`], not parsed; empty without a text encoder.
    pub tokenizer_json: Vec<u8>,
    /// The image encoder.
    pub image: Graph,
    /// The text encoder; there is one if the spec has texts.
    pub text: Option<Graph>,
}

/// Why a directory is not a model. Every message is one line that names the file and the key or tensor.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error(
        "{}: no model: neither {CONFIG_FILE} (open_clip) nor config.json (transformers) nor ONNX graphs",
        directory.display()
    )]
    NoModel { directory: PathBuf },
    #[error("cannot read {}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{file}: {source}")]
    Json { file: String, source: serde_json::Error },
    #[error("{file}: {key} is {value}, supported is {supported}")]
    Config { file: String, key: String, value: String, supported: String },
    #[error("{file}: {reason}")]
    Weights { file: String, reason: String },
    #[error("{file}: tensor {name} {fault}")]
    Tensor { file: String, name: String, fault: TensorFault },
    #[error("precision {0} cannot be had: ready-made graphs are served as they are; take precision fp32")]
    ReadyMade(&'static str),
    #[error("the calibration is of another model: {0}")]
    Calibration(String),
}

/// What is wrong with a tensor.
#[derive(Debug, thiserror::Error)]
pub enum TensorFault {
    #[error("is missing")]
    Missing,
    #[error("has shape {found:?}, the configuration asks for {expected:?}")]
    Shape { found: Vec<usize>, expected: Vec<usize> },
    #[error("is of type {0}, supported are F32, F16 and BF16")]
    Type(String),
    #[error("has no place in the configured architecture")]
    Unknown,
    #[error("is in another shard as well")]
    Twice,
    #[error("cannot be read: {0}")]
    Unreadable(std::io::Error),
}

impl Model {
    /// Reads a model from a directory, and writes its graphs in `form`. `variant` is of graphs that are there already.
    ///
    /// At no time is more in memory than the weights in that form and a few copies of the largest tensor in fp32.
    pub fn from_dir(directory: &Path, variant: &Variant, form: Form) -> Result<Model, ModelError> {
        // `..` and `.` have no name of their own.
        let path = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        // Weights go first where both are: they can be had in any precision. An export is what a variant is of.
        if variant.is_asked_for()
            || !files::has_weights(directory) && ready_made::is_ready_made(directory, variant)
        {
            return ready_made::load(name, directory, variant, &form);
        }
        Model::assemble(name, Files::open(directory)?, form)
    }

    fn assemble(name: String, files: Files, form: Form) -> Result<Model, ModelError> {
        let Files { config, mut checkpoint, text: text_spec, tokenizer_json, fingerprint } = files;
        if let Products::Int8(calibration) = &form.products
            && calibration.model != fingerprint
        {
            let (found, expected) = (&fingerprint[..16], &calibration.model);
            return Err(ModelError::Calibration(format!("{expected:.16}, this is {found}")));
        }
        let embed_dim = config.embed_dim;
        let image = graph::image::image_encoder(&mut checkpoint, &config.image, embed_dim, form.clone())?;
        let text = config.text.as_ref();
        let text = text.map(|text| graph::text::text_encoder(&mut checkpoint, text, embed_dim, form));
        let text = text.transpose()?;
        let scores = if config.logit_bias { Scores::Sigmoid } else { Scores::Softmax };
        // Saved as a logarithm; OpenAI clipped it in training. An image encoder alone has none.
        let logit_scale = match (&text, scores) {
            (None, _) => 1.0,
            (Some(_), Scores::Softmax) => checkpoint.take_number("logit_scale")?.exp().min(100.0),
            (Some(_), Scores::Sigmoid) => checkpoint.take_number("logit_scale")?.exp(),
        };
        let logit_bias = if config.logit_bias { checkpoint.take_number("logit_bias")? } else { 0.0 };
        checkpoint.finish()?;
        Ok(Model {
            name,
            fingerprint,
            spec: ClipSpec {
                embed_dim: config.embed_dim,
                image: config.image.preprocess.spec(config.image.height, config.image.width),
                text: text_spec,
                logit_scale,
                logit_bias,
                scores,
            },
            tokenizer_json,
            image,
            text,
        })
    }
}
