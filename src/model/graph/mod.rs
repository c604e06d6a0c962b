//! The ONNX graphs of CLIP's two encoders, written from a checkpoint's weights.
//!
//! It does not run anything: [`crate::engine::onnx`] does, and what runs a graph decides its [`Form`].
//!
//! | encoder | input | output |
//! |---|---|---|
//! | image | `image`: uint8 `[batch, height, width, 3]` | `embedding`: float `[batch, embed_dim]` |
//! | text | `tokens`: int64 `[batch, length]`, padded with 0 | `embedding`: float `[batch, embed_dim]` |
//!
//! Embeddings are not normalised. Every size but `batch` and `length` is fixed. The exception are graphs that
//! others exported: [`ready_made`] adapts their input, and keeps what they fix and how they name it.

mod attention;
mod builder;
mod file;
pub(super) mod image;
mod int8;
pub(super) mod onnx;
mod parts;
pub mod probe;
pub(super) mod ready_made;
mod resnet;
#[cfg(test)]
mod tests;
pub(super) mod text;
mod transformer;
mod writer;

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use half::slice::HalfFloatSliceExt;
use onnx::ElementType;

use super::calibration::Calibration;

/// How a graph is written.
#[derive(Clone, Debug)]
pub struct Form {
    pub weights: WeightType,
    pub products: Products,
    pub operators: Operators,
}

/// What weights are kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightType {
    Fp32,
    /// And all that is computed with them, but for the last norm and the projection: they see one token of each row,
    /// whose rounding would show in every number of an embedding. Half the memory and its traffic, and a GPU's matrix
    /// units. Providers sum up norms and softmax in fp32 whatever their type is.
    Fp16,
}

/// What linear layers multiply.
#[derive(Clone, Debug)]
pub enum Products {
    /// Numbers of the weights' type.
    Float,
    /// The same, and what enters the layers are outputs of the graph too, behind the embedding: [`Graph::observed`].
    Observed,
    /// Integers of 8 bits, where the calibration says how to round; see [`int8`].
    Int8(Arc<Calibration>),
}

/// Which operators a graph is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operators {
    /// Those of the standard's opset 20: every execution provider and every tool has them.
    Standard,
    /// Those of ONNX Runtime too, with which attention, residual and norm, and bias and activation are one kernel each.
    /// Measured on an H100 with ViT-B/16 in fp16 and batches of 64 (kernels alone): 11,072 images/s against 6,654.
    Fused,
}

impl FromStr for WeightType {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<WeightType, Self::Err> {
        match text {
            "fp32" => Ok(WeightType::Fp32),
            "fp16" => Ok(WeightType::Fp16),
            _ => Err("neither fp32 nor fp16"),
        }
    }
}

impl FromStr for Operators {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Operators, Self::Err> {
        match text {
            "standard" => Ok(Operators::Standard),
            "fused" => Ok(Operators::Fused),
            _ => Err("neither standard nor fused"),
        }
    }
}

impl Form {
    /// What everybody can run.
    pub const PORTABLE: Form =
        Form { weights: WeightType::Fp32, products: Products::Float, operators: Operators::Standard };
}

/// An encoder: its operators, and apart from them the weights they refer to by name.
///
/// Apart, because a protobuf message may not exceed 2 GB, and because sessions can share weights.
#[derive(Debug, Default, PartialEq)]
pub struct Graph {
    /// An ONNX `ModelProto`.
    pub proto: Vec<u8>,
    /// One for every initializer of `proto` that is marked as external.
    pub weights: Vec<Weight>,
    /// What enters linear layers, if the graph is [`Products::Observed`]: one for every output but the first.
    pub observed: Vec<Observed>,
    /// How many rows a run takes, if the graph fixes it.
    pub rows: Option<usize>,
    /// How many tokens a row has, if the graph fixes it.
    pub length: Option<usize>,
    /// Where the files are that a ready-made graph keeps weights in.
    pub directory: Option<PathBuf>,
    /// Whether ONNX Runtime reads weights as it loads the graph, before those are known that sessions share: it
    /// rearranges those of convolutions.
    pub is_rearranged: bool,
}

/// What enters linear layers, `[batch, tokens, channels]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// That of the layer, or what the layers have in common. [`Calibration::tensors`] has it too.
    pub name: String,
    /// Names of the matrices that it is multiplied with, `[channels, outputs]`.
    pub weights: Vec<String>,
}

/// A tensor of an encoder, in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    pub name: String,
    pub shape: Vec<usize>,
    /// As many as the product of `shape`.
    pub values: Values,
}

/// The numbers of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    F32(Vec<f32>),
    F16(Vec<half::f16>),
    I8(Vec<i8>),
}

impl Values {
    /// As they are in memory, which is little-endian on every machine that ONNX Runtime is built for.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Values::F32(values) => bytemuck::cast_slice(values),
            Values::F16(values) => bytemuck::cast_slice(values.reinterpret_cast()),
            Values::I8(values) => bytemuck::cast_slice(values),
        }
    }

    fn element(&self) -> ElementType {
        match self {
            Values::F32(_) => ElementType::Float,
            Values::F16(_) => ElementType::Float16,
            Values::I8(_) => ElementType::Int8,
        }
    }
}

/// Name of the image encoder's input.
pub const IMAGE_INPUT: &str = "image";
/// Name of the text encoder's input.
pub const TEXT_INPUT: &str = "tokens";
/// Name of the output of both encoders.
pub const OUTPUT: &str = "embedding";
