use std::collections::BTreeSet;

use prost::Message;

use super::onnx::{DataLocation, ModelProto};
use super::*;
use crate::model::Model;

#[test]
fn graph_and_weights_belong_together() {
    let mut forms = vec![in_8_bits(), Form { products: Products::Observed, ..Form::PORTABLE }];
    for weights in [WeightType::Fp32, WeightType::Fp16] {
        for operators in [Operators::Standard, Operators::Fused] {
            forms.push(Form { weights, operators, ..Form::PORTABLE });
        }
    }
    for form in forms {
        let model = Model::builtin(form).unwrap();
        check(&model.image, IMAGE_INPUT);
        check(&model.text.unwrap(), TEXT_INPUT);
    }
    check(&probe::mlp(), "x");
}

fn in_8_bits() -> Form {
    let calibration = Calibration::builtin().unwrap();
    assert!(!calibration.tensors.is_empty());
    Form { products: Products::Int8(Arc::new(calibration)), ..Form::PORTABLE }
}

/// What the protobuf refers to outside is what lies beside it, and every name is defined once.
fn check(graph: &Graph, input: &str) {
    let proto = ModelProto::decode(graph.proto.as_slice()).unwrap().graph.unwrap();
    assert_eq!(proto.input.iter().map(|input| input.name.as_str()).collect::<Vec<_>>(), [input]);
    let observed = graph.observed.iter().map(|each| format!("observed/{}", each.name));
    let outputs: Vec<String> = [OUTPUT.to_owned()].into_iter().chain(observed).collect();
    assert_eq!(proto.output.iter().map(|output| output.name.clone()).collect::<Vec<_>>(), outputs);

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
    let rounded = Model::builtin(in_8_bits()).unwrap().image;
    let find = |graph: &Graph, name: &str| {
        graph.weights.iter().find(|weight| weight.name == name).unwrap().values.clone()
    };
    let name = "visual.transformer.resblocks.0.mlp.c_proj";
    let (Values::F32(floats), Values::F32(inverse), Values::I8(integers), Values::F32(steps)) = (
        find(&model.image, &format!("{name}.weight")),
        find(&rounded, &format!("{name}.factors")),
        find(&rounded, &format!("{name}.weight.int8")),
        find(&rounded, &format!("{name}.weight.step")),
    ) else {
        panic!("a matrix in floats, what its inputs are multiplied with, one in integers, and their steps");
    };
    assert!(inverse.iter().any(|factor| *factor != 1.0));
    for (index, (float, integer)) in floats.iter().zip(&integers).enumerate() {
        let (step, inverse) = (steps[index % steps.len()], inverse[index / steps.len()]);
        assert!((float - f32::from(*integer) * step * inverse).abs() <= 0.501 * step * inverse, "at {index}");
    }
    assert!(integers.contains(&127) || integers.contains(&-127));
}

/// Two of the 8-bit encoder's layers, taken out: all others have three operators more, or are as they were.
#[test]
fn what_the_calibration_does_not_name_stays_in_floating_point() {
    let Products::Int8(calibration) = in_8_bits().products else { unreachable!() };
    let rounded = |calibration: &Calibration| {
        let form = Form { products: Products::Int8(Arc::new(calibration.clone())), ..Form::PORTABLE };
        let model = Model::builtin(form).unwrap();
        operators(&model.image).into_iter().filter(|operator| operator == "QuantizeLinear").count()
    };
    let images = calibration.tensors.keys().filter(|name| name.starts_with("visual.")).count();
    assert_eq!(rounded(&calibration), images);
    let mut fewer = Calibration::clone(&calibration);
    fewer.tensors.remove("visual.conv1").unwrap();
    fewer.tensors.remove("visual.transformer.resblocks.1.attn").unwrap();
    assert_eq!(rounded(&fewer), images - 2);
}

#[test]
fn a_calibration_of_another_model_is_refused() {
    let refused = |change: fn(&mut Calibration)| {
        let mut calibration = Calibration::builtin().unwrap();
        change(&mut calibration);
        let form = Form { products: Products::Int8(Arc::new(calibration)), ..Form::PORTABLE };
        Model::builtin(form).unwrap_err().to_string()
    };
    let other = refused(|calibration| calibration.model = "0123456789abcdef0123".to_owned());
    assert!(other.starts_with("the calibration is of another model: 0123456789abcdef, this is "), "{other}");
    let narrow = refused(|calibration| {
        let layer = calibration.tensors.get_mut("visual.transformer.resblocks.1.mlp.c_fc").unwrap();
        layer.factors = vec![1; 7];
    });
    assert!(
        narrow.ends_with("resblocks.1.mlp.c_fc has factors for 7 channels, this model has 192"),
        "{narrow}"
    );
}

/// A kernel each on a GPU, where the same block in operators of the standard has 26 nodes.
#[test]
fn a_block_of_fused_operators_is_eleven_nodes() {
    let model =
        Model::builtin(Form { weights: WeightType::Fp16, operators: Operators::Fused, ..Form::PORTABLE })
            .unwrap();
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
