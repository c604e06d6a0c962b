//! Models that somebody exported to ONNX: two graphs, and how to feed them.
//!
//! Each layout is an adapter that fills in a [`Recipe`], in a file of its own:
//!
//! | layout | graphs | what tells how to feed them |
//! |---|---|---|
//! | [`immich`] | `visual/model.onnx`, `textual/model.onnx` | open_clip's `model_cfg` and `preprocess_cfg` |
//! | [`inference`] (open_clip_inference) | `visual.onnx`, `text.onnx` | `open_clip_config.json`, `model_config.json` |
//! | [`transformers_js`] | `onnx/vision_model.onnx`, `onnx/text_model.onnx` | transformers' files |
//! | the same, merged, or optimum's | `onnx/model.onnx`, `model.onnx` | transformers' files |
//!
//! Encoders may be of any architecture, the tokenizer of any kind that `tokenizers` reads. What graphs do not say is
//! the logit scale and bias: open_clip_inference alone writes them beside. Elsewhere the scale is that of nearly all
//! CLIPs, and scores are those of CLIP, also of a SigLIP.

mod immich;
mod inference;
mod recipe;
mod transformers_js;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::graph::ready_made::ReadyMade;
use super::graph::{Form, Graph, Products, WeightType};
use super::io::{hash, hexadecimal, is_plain, read};
use super::variant::Variant;
use super::{Model, ModelError};
use crate::clip::spec::ClipSpec;
use recipe::{Names, Recipe, Source};

/// The adapter that a set of files is for, and their names.
struct Layout {
    names: Names,
    recipe: fn(&Path, Names) -> Result<Recipe, ModelError>,
}

impl Layout {
    /// `has` says which files there are. `None`: no layout's.
    fn of(has: &dyn Fn(&str) -> bool, variant: &Variant) -> Option<Layout> {
        let others = [
            Layout { names: immich::names(), recipe: immich::recipe },
            Layout { names: inference::names(), recipe: inference::recipe },
        ];
        // Only transformers.js has several of the same.
        let others = others.into_iter().filter(|_| variant.suffix().is_empty());
        let names = transformers_js::names(has, variant);
        let mut layouts = others.chain([Layout { names, recipe: transformers_js::recipe }]);
        layouts.find(|layout| layout.names.are_there(has))
    }

    fn in_directory(directory: &Path, variant: &Variant) -> Option<Layout> {
        Layout::of(&|name| directory.join(name).exists(), variant)
    }
}

/// The files of a repository that make such a model, as far as they are known before they are read, in the order in
/// which to fetch them; an error says what is missing. `None`: it is none.
pub(super) fn choose<'a>(files: &'a [String], variant: &Variant) -> Option<Result<Vec<&'a str>, String>> {
    let layout = Layout::of(&|name| files.iter().any(|file| file == name), variant)?;
    Some(layout.names.choose(files))
}

/// What graphs of a variant are called, for whoever misses them.
pub(super) fn named(variant: &Variant) -> String {
    let suffix = variant.suffix();
    format!("onnx/vision_model{suffix}.onnx and onnx/text_model{suffix}.onnx")
}

/// Whether the directory has such a model.
pub(super) fn is_ready_made(directory: &Path, variant: &Variant) -> bool {
    Layout::in_directory(directory, variant).is_some()
}

/// Of `form`, nothing can be had: the graphs are what they are.
pub(super) fn load(
    name: String,
    directory: &Path,
    variant: &Variant,
    form: &Form,
) -> Result<Model, ModelError> {
    match (form.weights, &form.products) {
        (WeightType::Fp16, _) => return Err(ModelError::ReadyMade("fp16")),
        (_, Products::Int8(_)) => return Err(ModelError::ReadyMade("int8")),
        (WeightType::Fp32, Products::Float | Products::Observed) => {}
    }
    let Some(layout) = Layout::in_directory(directory, variant) else {
        let reason = format!("there are no ONNX graphs {}", named(variant));
        return Err(ModelError::Weights { file: directory.display().to_string(), reason });
    };
    let recipe = (layout.recipe)(directory, layout.names)?;
    let Recipe { config, image, text, logits, files, tokenizer } = recipe;
    let mut hasher = Sha256::new();
    let image = encoder(directory, &image, &mut hasher, |graph| graph.image_encoder(&config, image.outputs))?;
    let text = match (&text, &config.text) {
        (Some(source), Some(texts)) => Some(encoder(directory, source, &mut hasher, |graph| {
            graph.text_encoder(texts, config.embed_dim, source.outputs)
        })?),
        _ => None,
    };
    files.iter().for_each(|file| hasher.update(file));
    let tokenizer_json = match (tokenizer, &config.text) {
        (Some(tokenizer), Some(texts)) => tokenizer.hashed(texts, &mut hasher)?,
        _ => Vec::new(),
    };
    Ok(Model {
        name,
        fingerprint: hexadecimal(hasher),
        spec: ClipSpec {
            embed_dim: config.embed_dim,
            image: config.preprocess.spec(config.height, config.width),
            text: config.text,
            logit_scale: logits.scale,
            logit_bias: logits.bias,
            scores: logits.scores,
        },
        tokenizer_json,
        image,
        text,
    })
}

/// Reads one encoder, and adds it and the files that its weights are in to a digest.
fn encoder(
    directory: &Path,
    source: &Source,
    hasher: &mut Sha256,
    adapt: impl FnOnce(ReadyMade) -> Result<Graph, String>,
) -> Result<Graph, ModelError> {
    let file = &source.file;
    let invalid = |reason| ModelError::Weights { file: file.clone(), reason };
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
