use crate::engine::choice::{DeviceChoice, choose};
use crate::engine::device::{Precision, Seat};
use crate::engine::onnx::OnnxModel;
use crate::model::Model;

/// From the flag to an engine. What it computes is tested in [`crate::engine::bound`].
#[test]
fn a_provider_is_a_file_and_a_row() {
    let asked: DeviceChoice = "stand-in:1,stand-in:0".parse().unwrap();
    for wrong in ["stand-in", "stand-in:1,cuda:0", "stand-in:0,stand-in:0"] {
        assert_eq!(wrong.parse::<DeviceChoice>(), Err(()), "{wrong}");
    }
    let choice = choose(&asked, None).unwrap();
    assert_eq!(choice.precision, Precision::Fp32);
    let names: Vec<String> = choice.devices.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["stand-in:1", "stand-in:0"]);

    let device = choice.devices[0];
    let Model { spec, image, text, .. } = Model::builtin(device.form(choice.precision)).unwrap();
    let onnx = OnnxModel::new(device, &spec, image, text).unwrap();
    let engine = onnx.open(&Seat::new(device, choice.precision)).unwrap();
    let description = engine.description();
    assert_eq!(description.device, "stand-in:1");
    assert!(description.engine.ends_with("(StandIn)"), "{}", description.engine);
    assert!(engine.buckets().is_some());
    let error = onnx.open(&Seat::new(device, Precision::Int8)).err().unwrap().to_string();
    assert!(error.starts_with("precision int8 needs"), "{error}");
}
