use std::collections::BTreeSet;

use prost::Message;

use super::onnx::{DataLocation, ModelProto};
use super::*;
use crate::model::Model;

#[test]
fn graph_and_weights_belong_together() {
    for weights in [WeightType::Fp32, WeightType::Fp16, WeightType::Int8] {
        for operators in [Operators::Standard, Operators::Fused] {
            let model = Model::builtin(Form { weights, operators }).unwrap();
            check(&model.image, IMAGE_INPUT);
            check(&model.text.unwrap(), TEXT_INPUT);
        }
    }
    check(&probe::mlp(), "x");
}

/// What the protobuf refers to outside is what lies beside it, and every name is defined once.
fn check(graph: &Graph, input: &str) {
    let proto = ModelProto::decode(graph.proto.as_slice()).unwrap().graph.unwrap();
    assert_eq!(proto.input.iter().map(|input| input.name.as_str()).collect::<Vec<_>>(), [input]);
    assert_eq!(proto.output.iter().map(|output| output.name.as_str()).collect::<Vec<_>>(), [OUTPUT]);

    let external = proto.initializer.iter().filter(|tensor| tensor.data_location() == DataLocation::External);
    let declared: BTreeSet<_> = external.map(|tensor| (tensor.name.as_str(), tensor.dims.clone())).collect();
    let weights = graph.weights.iter();
    let given: BTreeSet<_> = weights
        .map(|weight| (weight.name.as_str(), weight.shape.iter().map(|&size| size as i64).collect()))
        .collect();
    assert_eq!(declared, given);

    let mut defined: BTreeSet<&str> = BTreeSet::from([input]);
    for tensor in &proto.initializer {
        assert!(defined.insert(&tensor.name), "{} is defined twice", tensor.name);
    }
    for node in &proto.node {
        for value in &node.input {
            assert!(defined.contains(value.as_str()), "{} reads {value} too early", node.name);
        }
        for value in node.output.iter().filter(|value| !value.is_empty()) {
            assert!(defined.insert(value), "{value} is defined twice");
        }
    }
}

#[test]
fn a_matrix_in_8_bits_is_the_matrix_within_half_a_step() {
    let model = Model::builtin(Form::PORTABLE).unwrap();
    let quantised = Model::builtin(Form { weights: WeightType::Int8, ..Form::PORTABLE }).unwrap().image;
    let find = |graph: &Graph, name: &str| {
        graph.weights.iter().find(|weight| weight.name == name).unwrap().values.clone()
    };
    let name = "visual.transformer.resblocks.0.mlp.c_proj.weight";
    let (Values::F32(floats), Values::I8(integers), Values::F32(scales)) = (
        find(&model.image, name),
        find(&quantised, &format!("{name}.int8")),
        find(&quantised, &format!("{name}.scale")),
    ) else {
        panic!("a matrix in floats, one in integers, and scales");
    };
    for (index, (float, integer)) in floats.iter().zip(&integers).enumerate() {
        let scale = scales[index % scales.len()];
        assert!((float - f32::from(*integer) * scale).abs() <= 0.501 * scale, "at {index}");
    }
    assert!(integers.contains(&127) || integers.contains(&-127));
}

/// A kernel each on a GPU, where the same block in operators of the standard has 26 nodes.
#[test]
fn a_block_of_fused_operators_is_eleven_nodes() {
    let model = Model::builtin(Form { weights: WeightType::Fp16, operators: Operators::Fused }).unwrap();
    let block = [
        &["MatMul"; 3][..],
        &["Add", "MultiHeadAttention", "MatMul", "SkipLayerNormalization"],
        &["MatMul", "BiasGelu", "MatMul", "SkipLayerNormalization"],
    ];
    for graph in [&model.image, &model.text.unwrap()] {
        let operators = operators(graph);
        let norm = operators.iter().position(|operator| operator == "LayerNormalization").unwrap();
        let (first, rest) =
            operators[norm..].split_at(1 + usize::from(operators[norm + 1] == "LayerNormalization"));
        assert!(first.iter().all(|operator| operator == "LayerNormalization"));
        assert_eq!(rest[..11], block.concat());
        assert_eq!(rest[11..22], block.concat());
    }
    // Nothing computes a shape: that would run on the CPU beside the GPU, and twice for every picture.
    assert!(!operators(&model.image).iter().any(|operator| operator == "Shape"));
    let standard = Model::builtin(Form::PORTABLE).unwrap();
    let norms = operators(&standard.image).into_iter().enumerate();
    let norms: Vec<_> = norms.filter(|(_, operator)| operator == "LayerNormalization").collect();
    assert_eq!(norms[3].0 - norms[1].0, 26);
}

fn operators(graph: &Graph) -> Vec<String> {
    let nodes = ModelProto::decode(graph.proto.as_slice()).unwrap().graph.unwrap().node;
    nodes.into_iter().map(|node| node.op_type).collect()
}
