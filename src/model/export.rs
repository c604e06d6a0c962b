//! Writes a model as files that other tools read: ONNX graphs with their weights beside them.
//!
//! | file | what it is |
//! |---|---|
//! | `image.onnx`, `text.onnx` | the graphs of [`super::graph`] in the form asked for, inputs and outputs as there |
//! | `image.onnx.data`, `text.onnx.data` | their weights, as ONNX external data, little-endian |
//! | `tokenizer.json` | as it was loaded |
//! | `config.json` | what the graphs do not say: how to resize, and the logit scale |
//!
//! It never overwrites a file. Normalising pixels is part of the graph; resizing and tokenizing are not.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Model, TOKENIZER_FILE};
use crate::clip::spec::{Interpolation, PaddedTo, ResizeMode, Scores};

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("cannot write {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{name} is a directory of ONNX graphs already")]
    ReadyMade { name: String },
}

/// Writes `model` into `directory`, which is made if it is not there.
pub fn export(model: &Model, directory: &Path) -> Result<(), ExportError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| ExportError::File { path, source }
    };
    // The weights of such graphs are in files of their own, which are not written here.
    let text = model.text.as_ref();
    if model.image.directory.is_some() || text.is_some_and(|text| text.directory.is_some()) {
        return Err(ExportError::ReadyMade { name: model.name.clone() });
    }
    fs::create_dir_all(directory).map_err(at(directory))?;
    let text = text.map(|text| (text, "text.onnx"));
    for (graph, name) in [(&model.image, "image.onnx")].into_iter().chain(text) {
        graph.write(directory, name).map_err(at(&directory.join(name)))?;
    }
    let config = serde_json::to_vec_pretty(&config(model)).expect("numbers and strings become JSON");
    let tokenizer = text.map(|_| (TOKENIZER_FILE, &model.tokenizer_json));
    for (name, contents) in [("config.json", &config)].into_iter().chain(tokenizer) {
        let path = directory.join(name);
        File::create_new(&path).and_then(|mut file| file.write_all(contents)).map_err(at(&path))?;
    }
    Ok(())
}

fn config(model: &Model) -> Value {
    let spec = &model.spec;
    json!({
        "name": model.name,
        "sha256": model.fingerprint,
        "embed_dim": spec.embed_dim,
        "logit_scale": spec.logit_scale,
        "logit_bias": spec.logit_bias,
        "context_length": spec.text.as_ref().map(|text| text.context_length),
        "pad_id": spec.text.as_ref().map(|text| text.padding.id),
        "pad_to_context": spec.text.as_ref().map(|text| text.padding.rows != PaddedTo::Longest),
        "scores": match spec.scores {
            Scores::Softmax => "softmax",
            Scores::Sigmoid => "sigmoid",
        },
        "image_size": [spec.image.height, spec.image.width],
        "interpolation": match spec.image.interpolation {
            Interpolation::Bicubic => "bicubic",
            Interpolation::Bilinear => "bilinear",
        },
        "resize_mode": match spec.image.resize_mode {
            ResizeMode::Shortest => "shortest",
            ResizeMode::Longest => "longest",
            ResizeMode::Squash => "squash",
        },
    })
}
