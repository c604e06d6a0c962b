//! The same configuration beside ONNX files, where the graphs have decided about the architecture.

use serde_json::{Value, json};

use super::section::Section;
use super::{Activation, PreprocessConfig, TextConfig, preprocess_config, text_config};
use crate::model::ModelError;

/// What ready-made graphs leave to be said.
pub(in crate::model) struct ReadyMadeConfig {
    pub(in crate::model) embed_dim: usize,
    /// Pixels.
    pub(in crate::model) height: usize,
    /// Pixels.
    pub(in crate::model) width: usize,
    pub(in crate::model) preprocess: PreprocessConfig,
    pub(in crate::model) text: TextConfig,
}

impl ReadyMadeConfig {
    /// Files are names and contents: open_clip's `model_cfg`, and its `preprocess_cfg`.
    pub(in crate::model) fn parse(
        (model_file, model): (&'static str, &[u8]),
        (preprocess_file, preprocess): (&'static str, &[u8]),
    ) -> Result<ReadyMadeConfig, ModelError> {
        let mut model = Section::file(model_file, model)?;
        // Nobody knows the bias that training ended with.
        model.require(&[("init_logit_bias", Value::Null)])?;
        let (height, width) = model.section("vision_cfg", None)?.height_and_width("image_size", 224)?;
        Ok(ReadyMadeConfig {
            embed_dim: model.size("embed_dim", None)?,
            height,
            width,
            preprocess: preprocess_config(Section::file(preprocess_file, preprocess)?)?,
            text: text_config(model.section("text_cfg", Some(json!({})))?, Activation::Gelu, "")?,
        })
    }
}
