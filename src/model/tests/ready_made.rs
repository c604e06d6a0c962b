//! What ONNX graphs of others may look like.

use prost::Message;
use serde_json::json;

use super::*;
use crate::model::graph::onnx::{DimensionProto, ModelProto, TensorTypeProto};

const IMAGE: &str = "visual/model.onnx";
const TEXT: &str = "textual/model.onnx";

/// Changes what a graph says of itself; its weights are lost.
fn edit(fixture: &Fixture, file: &str, change: impl FnOnce(&mut ModelProto)) {
    fixture.edit(file, |bytes| {
        let mut model = ModelProto::decode(bytes.as_slice()).unwrap();
        change(&mut model);
        *bytes = model.encode_to_vec();
    });
}

fn input(model: &mut ModelProto) -> &mut TensorTypeProto {
    let input = &mut model.graph.as_mut().unwrap().input[0];
    input.r#type.as_mut().unwrap().tensor_type.as_mut().unwrap()
}

fn dim(model: &mut ModelProto, axis: usize) -> &mut DimensionProto {
    &mut input(model).shape.as_mut().unwrap().dim[axis]
}

#[test]
fn fixed_sizes_are_read_from_the_graphs() {
    let model = Fixture::copy("ready-made").load().unwrap();
    let (text, spec) = (model.text.unwrap(), model.spec.text.unwrap());
    assert_eq!((model.image.rows, text.rows), (None, Some(1)));
    assert_eq!((model.image.length, text.length), (None, Some(12)));
    assert_eq!((model.spec.embed_dim, model.spec.image.height, spec.vocab_size), (16, 32, 128));
    assert_eq!((model.spec.logit_scale, model.spec.logit_bias), (100.0, 0.0));
}

#[test]
fn weights_beside_a_graph_are_part_of_the_fingerprint() {
    let fixture = Fixture::copy("ready-made");
    let before = fixture.load().unwrap().fingerprint;
    fixture.edit("visual/weights.bin", |bytes| bytes[0] ^= 1);
    assert_ne!(fixture.load().unwrap().fingerprint, before);
}

#[test]
fn graphs_that_take_something_else_are_refused() {
    let refused = |damage: &dyn Fn(&Fixture), message: &str| check("ready-made", damage, message);
    refused(
        &|fixture| fixture.set("config.json", "vision_cfg.image_size", json!(48)),
        "visual/model.onnx: input image is Float [?, 3, 32, 32], supported is float [batch, 3, 48, 48]",
    );
    refused(
        &|fixture| fixture.set("config.json", "text_cfg.context_length", json!(77)),
        "textual/model.onnx: input text is Int32 [1, 12], supported is int32 or int64 [batch, 77]",
    );
    refused(
        &|fixture| edit(fixture, IMAGE, |model| input(model).elem_type = 2),
        "visual/model.onnx: input image is Uint8 [?, 3, 32, 32], supported is float [batch, 3, 32, 32]",
    );
    refused(
        &|fixture| edit(fixture, TEXT, |model| dim(model, 0).dim_value = Some(8)),
        "textual/model.onnx: input text is Int32 [8, 12], supported is a batch of any size, or of 1",
    );
    refused(
        &|fixture| edit(fixture, TEXT, |model| model.graph.as_mut().unwrap().output.clear()),
        "textual/model.onnx: supported are graphs with one input and one output",
    );
    refused(
        &|fixture| fixture.edit(TEXT, |bytes| bytes.truncate(50_000)),
        "textual/model.onnx: not ONNX: failed to decode Protobuf message: ModelProto.graph: buffer underflow",
    );
    refused(&|fixture| fixture.edit(TEXT, Vec::clear), "textual/model.onnx: not ONNX: no graph");
    refused(
        &|fixture| fixture.set("config.json", "init_logit_bias", json!(-10)),
        "config.json: init_logit_bias is -10, supported is null",
    );
    refused(
        &|fixture| fixture.set("config.json", "text_cfg.hf_model_name", json!("roberta")),
        "config.json: text_cfg.hf_model_name is \"roberta\", supported is null",
    );
    refused(
        &|fixture| fixture.set("visual/preprocess_cfg.json", "mode", json!("L")),
        "visual/preprocess_cfg.json: mode is \"L\", supported is \"RGB\"",
    );
}

#[test]
fn weights_lie_beside_their_graph() {
    check(
        "ready-made",
        |fixture| fixture.remove("visual/weights.bin"),
        "cannot read DIR/visual/weights.bin: No such file or directory (os error 2)",
    );
    check(
        "ready-made",
        |fixture| {
            edit(fixture, IMAGE, |model| {
                let tensors = &mut model.graph.as_mut().unwrap().initializer;
                let entries = tensors.iter_mut().flat_map(|tensor| &mut tensor.external_data);
                let location = entries.into_iter().find(|entry| entry.key == "location");
                location.unwrap().value = "../weights.bin".to_owned();
            });
        },
        "visual/model.onnx: weights in \"../weights.bin\", which is not the name of a file beside it",
    );
}
