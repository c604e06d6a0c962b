//! What `tokenizer.json` leaves open, from transformers' `tokenizer_config.json` beside it: how texts are cleaned, and
//! with what and where they are padded.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::section::Section;
use crate::clip::spec::{Cleaning, Side, TextSpec, Tokenization};
use crate::model::ModelError;
use crate::model::io::read;

pub(in crate::model) const CONFIG_FILE: &str = "tokenizer_config.json";

/// The files of a tokenizer beside ONNX graphs.
pub(in crate::model) struct TokenizerFiles {
    directory: PathBuf,
    config_file: &'static str,
    json: Vec<u8>,
}

impl TokenizerFiles {
    pub(in crate::model) fn read(
        directory: &Path,
        file: &str,
        config_file: &'static str,
    ) -> Result<TokenizerFiles, ModelError> {
        Ok(TokenizerFiles { directory: directory.to_owned(), config_file, json: read(directory, file)? })
    }

    /// Whether the tokenizer is CLIP's own, as it is where nobody says.
    pub(in crate::model) fn is_clips(&self) -> Result<bool, ModelError> {
        if !self.directory.join(self.config_file).exists() {
            return Ok(true);
        }
        let class = Section::file(self.config_file, &self.config_json()?)?.take("tokenizer_class");
        Ok(class.is_none_or(|class| class.as_str().is_some_and(|class| class.starts_with("CLIPTokenizer"))))
    }

    /// What is said beside `tokenizer.json`.
    pub(in crate::model) fn config(&self) -> Result<TokenizerConfig, ModelError> {
        TokenizerConfig::parse(self.config_file, &self.config_json()?, &self.json)
    }

    /// Adds what `texts` depend on to a digest, and gives `tokenizer.json`.
    pub(in crate::model) fn hashed(
        self,
        texts: &TextSpec,
        hasher: &mut Sha256,
    ) -> Result<Vec<u8>, ModelError> {
        if let Tokenization::File(..) = texts.tokenization {
            hasher.update(self.config_json()?);
        }
        hasher.update(&self.json);
        Ok(self.json)
    }

    fn config_json(&self) -> Result<Vec<u8>, ModelError> {
        read(&self.directory, self.config_file)
    }
}

/// Of a tokenizer.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::model) struct TokenizerConfig {
    /// What transformers' class does before the tokenizer.
    pub(in crate::model) cleaning: Cleaning,
    /// Id of the token that pads.
    pub(in crate::model) pad: u32,
    pub(in crate::model) side: Side,
    /// Tokens of the longest text, if the file says so.
    pub(in crate::model) longest: Option<usize>,
}

/// The part of `tokenizer.json` that names tokens outside the vocabulary.
#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    added_tokens: Vec<Added>,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
}

/// transformers writes this where nobody set a length.
const ENDLESS: f64 = 1e15;

impl TokenizerConfig {
    pub(in crate::model) fn parse(
        file: &'static str,
        json: &[u8],
        tokenizer_json: &[u8],
    ) -> Result<TokenizerConfig, ModelError> {
        let mut section = Section::file(file, json)?;
        let class = section.take("tokenizer_class").unwrap_or(Value::Null);
        let class = class.as_str().unwrap_or_default().trim_end_matches("Fast");
        // Gemma's vocabulary is SigLIP 2's here, and that was trained on lower case.
        let (cleaning, side) = match class {
            "SiglipTokenizer" => (Cleaning::Siglip, Side::Right),
            "Siglip2Tokenizer" | "GemmaTokenizer" => (Cleaning::Lower, Side::Left),
            _ => (Cleaning::None, Side::Right),
        };
        let side = match section.take("padding_side") {
            None => side,
            Some(value) if value == "right" => Side::Right,
            Some(value) if value == "left" => Side::Left,
            Some(value) => return Err(section.refusal("padding_side", &value, "left or right")),
        };
        let token = match section.take("pad_token").unwrap_or(Value::Null) {
            Value::Object(mut token) => token.remove("content").unwrap_or(Value::Null),
            token => token,
        };
        let named: Named = serde_json::from_slice(tokenizer_json)
            .map_err(|source| ModelError::Json { file: "tokenizer.json".to_owned(), source })?;
        let pad = named.added_tokens.into_iter().find(|added| token == *added.content);
        let Some(Added { id: pad, .. }) = pad else {
            return Err(section.refusal("pad_token", &token, "one of the added_tokens of tokenizer.json"));
        };
        let longest = match section.take("model_max_length").unwrap_or(json!(ENDLESS)) {
            length if length.as_f64().is_some_and(|length| length >= ENDLESS) => None,
            length => match length.as_u64().and_then(|length| usize::try_from(length).ok()) {
                Some(length) if length > 0 => Some(length),
                _ => return Err(section.refusal("model_max_length", &length, "a positive integer")),
            },
        };
        Ok(TokenizerConfig { cleaning, pad, side, longest })
    }
}
