use std::collections::BTreeSet;

use prost::Message;

use super::onnx::{DataLocation, ModelProto};
use super::*;
use crate::model::Model;

/// What the protobuf refers to outside is what lies beside it, and every name is defined once.
#[test]
fn graph_and_weights_belong_together() {
    let model = Model::builtin().unwrap();
    for (graph, input) in [(model.image, IMAGE_INPUT), (model.text, TEXT_INPUT)] {
        let proto = ModelProto::decode(graph.proto.as_slice()).unwrap().graph.unwrap();
        assert_eq!(proto.input.iter().map(|input| input.name.as_str()).collect::<Vec<_>>(), [input]);
        assert_eq!(proto.output.iter().map(|output| output.name.as_str()).collect::<Vec<_>>(), [OUTPUT]);

        let external =
            proto.initializer.iter().filter(|tensor| tensor.data_location() == DataLocation::External);
        let declared: Vec<_> = external.map(|tensor| (tensor.name.as_str(), tensor.dims.clone())).collect();
        let weights = graph.weights.iter();
        let given: Vec<_> = weights
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
}
