//! The model inside the executable: a small CLIP trained on emoji, so that a first run and the tests need
//! no download.

use super::files::Files;
use super::graph::Form;
use super::{Model, ModelError};

/// Made from the same three files as any other model.
const WEIGHTS: &[u8] = include_bytes!("builtin/open_clip_model.safetensors");
const CONFIG: &[u8] = include_bytes!("builtin/open_clip_config.json");
const TOKENIZER: &[u8] = include_bytes!("builtin/tokenizer.json");

impl Model {
    /// The embedded emoji model, `emoji-clip`.
    pub fn builtin(form: Form) -> Result<Model, ModelError> {
        Model::assemble("emoji-clip".to_owned(), Files::in_memory(WEIGHTS, CONFIG, TOKENIZER)?, form)
    }
}
