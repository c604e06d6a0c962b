//! The model inside the executable: a small CLIP trained on emoji, so that a first run and the tests need
//! no download.

use super::calibration::{CALIBRATION_FILE, Calibration};
use super::files::Files;
use super::graph::Form;
use super::{Model, ModelError};

/// Made from the same three files as any other model.
const WEIGHTS: &[u8] = include_bytes!("builtin/open_clip_model.safetensors");
const CONFIG: &[u8] = include_bytes!("builtin/open_clip_config.json");
/// Of `clipd calibrate --images tests/fixtures/zeroshot`; texts as narrow as these gain nothing.
const CALIBRATION: &[u8] = include_bytes!("builtin/clipd_int8.json");
const TOKENIZER: &[u8] = include_bytes!("builtin/tokenizer.json");

impl Model {
    /// The embedded emoji model, `emoji-clip`.
    pub fn builtin(form: Form) -> Result<Model, ModelError> {
        Model::assemble("emoji-clip".to_owned(), Files::in_memory(WEIGHTS, CONFIG, TOKENIZER)?, form)
    }
}

impl Calibration {
    /// That of the embedded model.
    pub fn builtin() -> Result<Calibration, ModelError> {
        Calibration::parse(CALIBRATION_FILE, CALIBRATION)
    }
}
