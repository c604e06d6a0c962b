//! Classifiers on disk: one TOML or JSON file each, its name the classifier's name.
//!
//! A file has `labels`, and either `templates` (zero-shot; default: the usual template) or `head`, a
//! safetensors file beside it with `weight` of shape `[labels, embed_dim]` and `bias` of shape `[labels]`, both F32;
//! besides, `top_k` for requests that do not say. It is read here and checked where it is used.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

/// What a file says.
#[derive(Debug)]
pub struct ClassifierFile {
    pub labels: Vec<String>,
    pub templates: Vec<String>,
    pub head: Option<Head>,
    pub top_k: Option<NonZeroUsize>,
}

/// A trained linear head, row by row.
#[derive(Debug)]
pub struct Head {
    pub weights: Vec<f32>,
    pub biases: Vec<f32>,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct ClassifierFileError {
    path: PathBuf,
    problem: String,
}

impl ClassifierFileError {
    pub fn new(path: &Path, problem: impl ToString) -> ClassifierFileError {
        ClassifierFileError { path: path.to_owned(), problem: problem.to_string() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Syntax {
    labels: Vec<String>,
    #[serde(default)]
    templates: Vec<String>,
    head: Option<PathBuf>,
    top_k: Option<NonZeroUsize>,
}

/// Every `.toml` and `.json` file of a directory, by name; others are left alone.
pub fn read_classifiers(directory: &Path) -> Result<BTreeMap<String, ClassifierFile>, ClassifierFileError> {
    let unreadable = |error: std::io::Error| ClassifierFileError::new(directory, error);
    let mut classifiers = BTreeMap::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let (Some(name), Some(extension)) = (path.file_stem(), path.extension()) else { continue };
        let is_json = extension == "json";
        if !is_json && extension != "toml" {
            continue;
        }
        let file = read(&path, is_json).map_err(|problem| ClassifierFileError::new(&path, problem))?;
        if classifiers.insert(name.to_string_lossy().into_owned(), file).is_some() {
            return Err(ClassifierFileError::new(&path, "another file has the same name"));
        }
    }
    Ok(classifiers)
}

fn read(path: &Path, is_json: bool) -> Result<ClassifierFile, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let syntax: Syntax = if is_json {
        serde_json::from_str(&text).map_err(|error| error.to_string())?
    } else {
        toml::from_str(&text).map_err(|error| error.to_string())?
    };
    let head = match &syntax.head {
        Some(_) if !syntax.templates.is_empty() => return Err("head excludes templates".to_owned()),
        Some(head) => {
            let file = path.parent().unwrap_or(Path::new("")).join(head);
            Some(read_head(&file).map_err(|problem| format!("head: {}: {problem}", file.display()))?)
        }
        None => None,
    };
    Ok(ClassifierFile { labels: syntax.labels, templates: syntax.templates, head, top_k: syntax.top_k })
}

fn read_head(file: &Path) -> Result<Head, String> {
    let bytes = std::fs::read(file).map_err(|error| error.to_string())?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| error.to_string())?;
    Ok(Head { weights: numbers(&tensors, "weight", 2)?, biases: numbers(&tensors, "bias", 1)? })
}

fn numbers(tensors: &SafeTensors<'_>, name: &str, axes: usize) -> Result<Vec<f32>, String> {
    let tensor = tensors.tensor(name).map_err(|error| error.to_string())?;
    if tensor.dtype() != Dtype::F32 || tensor.shape().len() != axes {
        return Err(format!(
            "{name} is {:?} with shape {:?}, expected F32 with {axes} axes",
            tensor.dtype(),
            tensor.shape()
        ));
    }
    let (numbers, _) = tensor.data().as_chunks();
    Ok(numbers.iter().copied().map(f32::from_le_bytes).collect())
}
