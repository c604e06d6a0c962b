//! The ONNX graphs of CLIP's two encoders, written from a checkpoint's weights.
//!
//! Standard operators of opset 20 only, so one graph runs on every execution provider. It does not
//! run anything: [`crate::engine::onnx`] does.
//!
//! | encoder | input | output |
//! |---|---|---|
//! | image | `image`: uint8 `[batch, height, width, 3]` | `embedding`: float `[batch, embed_dim]` |
//! | text | `tokens`: int64 `[batch, length]`, padded with 0 | `embedding`: float `[batch, embed_dim]` |
//!
//! Embeddings are not normalised. Every size but `batch` and `length` is fixed. The exception are graphs that
//! others exported: [`ready_made`] adapts their input, and keeps what they fix and how they name it.

mod builder;
mod file;
mod fp16;
pub(super) mod image;
pub mod int8;
pub(super) mod onnx;
pub mod probe;
pub(super) mod ready_made;
#[cfg(test)]
mod tests;
pub(super) mod text;
mod transformer;

use std::path::PathBuf;

/// An encoder: its operators, and apart from them the weights they refer to by name.
///
/// Apart, because a protobuf message may not exceed 2 GB, and because sessions can share weights.
#[derive(Debug, Default)]
pub struct Graph {
    /// An ONNX `ModelProto`.
    pub proto: Vec<u8>,
    /// One for every initializer of `proto` that is marked as external.
    pub weights: Vec<Weight>,
    /// How many rows a run takes, if the graph fixes it.
    pub rows: Option<usize>,
    /// How many tokens a row has, if the graph fixes it.
    pub length: Option<usize>,
    /// Where the files are that a ready-made graph keeps weights in.
    pub directory: Option<PathBuf>,
}

/// A tensor of an encoder, in row-major order.
#[derive(Clone, Debug)]
pub struct Weight {
    pub name: String,
    pub shape: Vec<usize>,
    /// As many as the product of `shape`.
    pub values: Values,
}

/// The numbers of a tensor.
#[derive(Clone, Debug)]
pub enum Values {
    F32(Vec<f32>),
    F16(Vec<half::f16>),
    I8(Vec<i8>),
}

/// Name of the image encoder's input.
pub const IMAGE_INPUT: &str = "image";
/// Name of the text encoder's input.
pub const TEXT_INPUT: &str = "tokens";
/// Name of the output of both encoders.
pub const OUTPUT: &str = "embedding";
