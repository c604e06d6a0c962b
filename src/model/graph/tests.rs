use std::collections::BTreeSet;

use prost::Message;

use super::onnx::{DataLocation, ModelProto};
use super::*;
use crate::model::Model;

#[test]
fn graph_and_weights_belong_together() {
    let model = Model::builtin().unwrap();
    for (graph, input) in [(&model.image, IMAGE_INPUT), (&model.text, TEXT_INPUT)] {
        check(graph, input);
        check(&graph.with_int8_weights().unwrap(), input);
        check(&graph.with_fp16_weights().unwrap(), input);
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
        for value in &node.output {
            assert!(defined.insert(value), "{value} is defined twice");
        }
    }
}

#[test]
fn a_matrix_in_8_bits_is_the_matrix_within_half_a_step() {
    let model = Model::builtin().unwrap();
    let quantised = model.image.with_int8_weights().unwrap();
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
