//! Models that somebody exported to ONNX, as immich publishes them.
//!
//! | file | what it is |
//! |---|---|
//! | `visual/model.onnx`, `textual/model.onnx` | one encoder each, with its weights or with files beside it |
//! | `config.json` | open_clip's `model_cfg` |
//! | `visual/preprocess_cfg.json` | open_clip's `preprocess_cfg` |
//! | `textual/tokenizer.json` | a Hugging Face tokenizer |
//!
//! The image encoder may be of any architecture. The text encoder must be open_clip's own: how texts are
//! cleaned and padded depends on it, and the graph does not say. Nor do these files have a logit scale.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::config::ready_made::ReadyMadeConfig;
use super::graph::ready_made::ReadyMade;
use super::graph::{Form, Graph, WeightType};
use super::io::{hash, hexadecimal, is_plain, read};
use super::{Model, ModelError};
use crate::clip::spec::{ClipSpec, Scores};

const IMAGE_FILE: &str = "visual/model.onnx";
const TEXT_FILE: &str = "textual/model.onnx";
const CONFIG_FILE: &str = "config.json";
const PREPROCESS_FILE: &str = "visual/preprocess_cfg.json";
const TOKENIZER_FILE: &str = "textual/tokenizer.json";

/// Where OpenAI's and nearly all other models end up: training clips the scale here.
const LOGIT_SCALE: f32 = 100.0;

pub(super) fn is_ready_made(directory: &Path) -> bool {
    directory.join(IMAGE_FILE).exists()
}

/// Of `form`, nothing can be had: the graphs are what they are.
pub(super) fn load(name: String, directory: &Path, form: Form) -> Result<Model, ModelError> {
    match form.weights {
        WeightType::Fp32 => {}
        WeightType::Fp16 => return Err(ModelError::ReadyMade("fp16")),
        WeightType::Int8 => return Err(ModelError::ReadyMade("int8")),
    }
    let config_json = read(directory, CONFIG_FILE)?;
    let preprocess_json = read(directory, PREPROCESS_FILE)?;
    let tokenizer_json = read(directory, TOKENIZER_FILE)?;
    let config = ReadyMadeConfig::parse((CONFIG_FILE, &config_json), (PREPROCESS_FILE, &preprocess_json))?;
    let mut hasher = Sha256::new();
    let image = encoder(directory, IMAGE_FILE, &mut hasher, |graph| graph.image_encoder(&config))?;
    let text = encoder(directory, TEXT_FILE, &mut hasher, |graph| graph.text_encoder(&config))?;
    [&config_json, &preprocess_json, &tokenizer_json].into_iter().for_each(|file| hasher.update(file));
    Ok(Model {
        name,
        fingerprint: hexadecimal(hasher),
        spec: ClipSpec {
            embed_dim: config.embed_dim,
            image: config.preprocess.spec(config.height, config.width),
            text: Some(config.text.spec(None)),
            logit_scale: LOGIT_SCALE,
            logit_bias: 0.0,
            scores: Scores::Softmax,
        },
        tokenizer_json,
        image,
        text: Some(text),
    })
}

/// Reads one encoder, and adds it and the files that its weights are in to a digest.
fn encoder(
    directory: &Path,
    file: &str,
    hasher: &mut Sha256,
    adapt: impl FnOnce(ReadyMade) -> Result<Graph, String>,
) -> Result<Graph, ModelError> {
    let invalid = |reason| ModelError::Weights { file: file.to_owned(), reason };
    let bytes = read(directory, file)?;
    hasher.update(&bytes);
    let graph = ReadyMade::parse(bytes).map_err(invalid)?;
    let path = directory.join(file);
    let folder = path.parent().unwrap_or(directory);
    for name in graph.weight_files().collect::<BTreeSet<_>>() {
        if !is_plain(name) {
            return Err(invalid(format!("weights in {name:?}, which is not the name of a file beside it")));
        }
        let path = folder.join(name);
        File::open(&path)
            .and_then(|mut file| hash(&mut file, hasher))
            .map_err(|source| ModelError::File { path, source })?;
    }
    let graph = adapt(graph).map_err(invalid)?;
    Ok(Graph { directory: Some(folder.to_owned()), ..graph })
}
