//! Weights in 16 bits, and everything computed with them: half the memory and its traffic, and a GPU's matrix units.
//!
//! What leaves the last block stays fp32, and so do the last norm and the projection: one token of each row, whose
//! rounding would show in every number of an embedding. Providers sum up norms and softmax in fp32 whatever their
//! type is.

use std::collections::BTreeSet;

use half::f16;
use prost::Message;

use super::builder::{external, int};
use super::onnx::{ElementType, GraphProto, ModelProto, NodeProto, TensorProto};
use super::{Graph, Values, Weight};

/// The patches' kernel has the 255 of a byte and the deviation of colours divided out: its numbers are so small that
/// fp16 would lose digits. So it is multiplied by this, and the bytes are divided by it, both without rounding.
const PIXEL_SCALE: f32 = 256.0;
const PATCH_KERNEL: &str = "visual.conv1.weight";

impl Graph {
    /// The same encoder in fp16. `None` for ready-made graphs, whose weights are not beside them.
    pub fn with_fp16_weights(&self) -> Option<Graph> {
        let mut proto = ModelProto::decode(self.proto.as_slice()).expect("it was encoded here");
        let graph = proto.graph.get_or_insert_default();
        let last_norm = graph.node.iter().rposition(|node| node.op_type == "LayerNormalization")?;
        let late: BTreeSet<String> =
            graph.node[last_norm..].iter().flat_map(|node| node.input.iter().cloned()).collect();
        let mut weights: Vec<Weight> = self.weights.iter().map(|weight| narrowed(weight, &late)).collect();
        if weights.is_empty() {
            return None;
        }
        widen(graph, last_norm);
        for index in 0..graph.initializer.len() {
            let tensor = &mut graph.initializer[index];
            if tensor.data_type() != ElementType::Float || late.contains(&tensor.name) {
                continue;
            }
            // Numbers inside the protobuf go beside it.
            if !tensor.float_data.is_empty() {
                weights.push(narrowed(&constant(tensor), &late));
            }
            let shape: Vec<usize> = tensor.dims.iter().map(|size| *size as usize).collect();
            *tensor = external(&tensor.name, &shape, ElementType::Float16);
        }
        if let Some(scale) = scale_pixels(graph) {
            weights.push(scale);
        }
        Some(Graph { proto: proto.encode_to_vec(), weights, ..Graph::default() })
    }
}

/// In fp16, unless it is used `late`.
fn narrowed(weight: &Weight, late: &BTreeSet<String>) -> Weight {
    let Weight { name, shape, values: Values::F32(values) } = weight else { return weight.clone() };
    if late.contains(name) {
        return weight.clone();
    }
    let factor = if name == PATCH_KERNEL { PIXEL_SCALE } else { 1.0 };
    let values = values.iter().map(|value| f16::from_f32(value * factor)).collect();
    Weight { name: name.clone(), shape: shape.clone(), values: Values::F16(values) }
}

fn constant(tensor: &TensorProto) -> Weight {
    Weight {
        name: tensor.name.clone(),
        shape: tensor.dims.iter().map(|size| *size as usize).collect(),
        values: Values::F32(tensor.float_data.clone()),
    }
}

/// What the node at `index` reads first is fp32 again.
fn widen(graph: &mut GraphProto, index: usize) {
    let narrow = graph.node[index].input[0].clone();
    let wide = format!("{narrow}/fp32");
    graph.node[index].input[0].clone_from(&wide);
    graph.node.insert(index, cast(narrow, wide, ElementType::Float));
}

/// The image encoder's pixels become fp16 where they became fp32, and are scaled.
fn scale_pixels(graph: &mut GraphProto) -> Option<Weight> {
    let to_float =
        |node: &NodeProto| node.op_type == "Cast" && node.attribute[0].i == Some(ElementType::Float as i64);
    let index = graph
        .node
        .iter()
        .position(to_float)
        .filter(|_| graph.initializer.iter().any(|tensor| tensor.name == PATCH_KERNEL))?;
    let (bytes, pixels) = (graph.node[index].input[0].clone(), graph.node[index].output[0].clone());
    let (unscaled, scale) = (format!("{pixels}/fp16"), format!("{pixels}/scale"));
    graph.node[index] = cast(bytes, unscaled.clone(), ElementType::Float16);
    let scaled = NodeProto {
        input: vec![unscaled, scale.clone()],
        output: vec![pixels.clone()],
        name: format!("{pixels}/scaled"),
        op_type: "Mul".to_owned(),
        attribute: vec![],
    };
    graph.node.insert(index + 1, scaled);
    graph.initializer.push(external(&scale, &[1], ElementType::Float16));
    let values = Values::F16(vec![f16::from_f32(PIXEL_SCALE.recip())]);
    Some(Weight { name: scale, shape: vec![1], values })
}

fn cast(input: String, output: String, to: ElementType) -> NodeProto {
    NodeProto {
        input: vec![input],
        name: output.clone(),
        output: vec![output],
        op_type: "Cast".to_owned(),
        attribute: vec![int("to", to as i64)],
    }
}
