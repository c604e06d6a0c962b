//! The model inside the executable: a small CLIP trained on emoji, so that a first run and the tests need
//! no download.

use super::{Files, Model, ModelError};

/// Made from the same three files as any other model.
const FILES: Files<'static> = Files {
    weights: include_bytes!("builtin/open_clip_model.safetensors"),
    config: include_bytes!("builtin/open_clip_config.json"),
    tokenizer: include_bytes!("builtin/tokenizer.json"),
};

impl Model {
    /// The embedded emoji model, `emoji-clip`.
    pub fn builtin() -> Result<Model, ModelError> {
        Model::assemble("emoji-clip".to_owned(), FILES)
    }
}
