//! A loaded model on one device.
//!
//! It knows nothing of requests, queues or time: rows are put together as an [`Input`], embeddings come out.
//! [`onnx`] is the engine that serves, on GPUs as [`bound`]; [`synthetic`] stands in for it in tests and load models.

mod binding;
pub mod bound;
pub mod buckets;
pub mod choice;
pub mod device;
pub mod input;
pub mod kinds;
mod numa;
pub mod onnx;
mod runtime;
mod session;
pub mod single;
pub mod synthetic;

use std::time::Duration;

use buckets::Buckets;
use input::Input;
use ndarray::Array2;

use crate::clip::row::{ImageRow, TokenRow};
use crate::modality::Modality;

/// Runs batches on one device. Owned by one worker thread, which creates it.
pub trait Engine {
    /// An empty input, in the memory that this engine reads best. It is filled on any thread.
    fn input(&mut self) -> Result<Input, EngineError>;

    /// Embeds a batch by itself.
    fn embed(&mut self, batch: &Batch) -> Result<Array2<f32>, EngineError> {
        let mut input = self.input()?;
        input.fill(batch)?;
        self.run(&input)
    }

    /// Embeds every row of `input`, which is one of this engine's own; returns `[rows, embed_dim]`, not normalised, in
    /// the order of the rows.
    fn run(&mut self, input: &Input) -> Result<Array2<f32>, EngineError>;

    /// What a batch counts as taking for the scheduler, where that is declared and not measured: an engine of a test
    /// takes microseconds or as long as it is held, and neither is to decide which rows run together.
    fn declared(&self, _input: &Input) -> Option<Duration> {
        None
    }

    /// The only sizes of batches that it runs, if not any.
    fn buckets(&self) -> Option<&Buckets>;

    /// Whether it has two inputs, so that the next batch is put together while one runs.
    fn stages(&self) -> bool;

    fn description(&self) -> &Description;
}

/// Rows of one modality that run together. Never empty.
#[derive(Debug)]
pub enum Batch {
    Images(Vec<ImageRow>),
    Texts(Vec<TokenRow>),
}

impl Batch {
    pub fn modality(&self) -> Modality {
        match self {
            Batch::Images(_) => Modality::Image,
            Batch::Texts(_) => Modality::Text,
        }
    }

    pub fn rows(&self) -> usize {
        match self {
            Batch::Images(rows) => rows.len(),
            Batch::Texts(rows) => rows.len(),
        }
    }

    /// Tokens of the longest text; 0 for images.
    pub fn longest(&self) -> usize {
        match self {
            Batch::Images(_) => 0,
            Batch::Texts(rows) => rows.iter().map(|TokenRow(tokens)| tokens.len()).max().unwrap_or(0),
        }
    }
}

/// What runs, in words that appear in the log, `GetModel` and metric labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// `cpu`, `openvino`, `cuda:0`.
    pub device: String,
    /// Library and version, such as `onnxruntime 1.24.1 (OpenVINO)`.
    pub engine: String,
    /// `fp32`, `fp16`, `bf16` or `int8`.
    pub precision: String,
}

/// Why an engine could not be opened or a batch could not be run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No usable ONNX Runtime; the text says what to install or set.
    #[error("{0}")]
    Library(String),
    /// The device or precision asked for cannot be had; the text names what is missing.
    #[error("{0}")]
    Device(String),
    /// The runtime refused the model or a batch.
    #[error("ONNX Runtime: {0}")]
    Runtime(String),
}

impl EngineError {
    /// Nobody submits texts to a model without an encoder for them.
    fn no_text_encoder() -> EngineError {
        EngineError::Runtime("the model has no text encoder".to_owned())
    }
}
