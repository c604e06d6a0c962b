//! What ONNX graphs of others may look like.

use prost::Message;
use serde_json::json;

use super::*;
use crate::clip::spec::Scores;
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
        "textual/model.onnx: outputs are [], supported is one alone",
    );
    refused(
        &|fixture| fixture.edit(TEXT, |bytes| bytes.truncate(50_000)),
        "textual/model.onnx: not ONNX: failed to decode Protobuf message: ModelProto.graph: buffer underflow",
    );
    refused(&|fixture| fixture.edit(TEXT, Vec::clear), "textual/model.onnx: not ONNX: no graph");
    refused(
        &|fixture| fixture.set("config.json", "embed_dim", json!(17)),
        "textual/model.onnx: output embedding is Float [1, 16], supported is [batch, 17]",
    );
    refused(
        &|fixture| fixture.set("config.json", "text_cfg.hf_tokenizer_name", json!("roberta")),
        "cannot read DIR/textual/tokenizer_config.json: No such file or directory (os error 2)",
    );
    refused(
        &|fixture| fixture.set("visual/preprocess_cfg.json", "mode", json!("L")),
        "visual/preprocess_cfg.json: mode is \"L\", supported is \"RGB\"",
    );
}

/// A SigLIP's graphs do not say what its scores are made of.
#[test]
fn scores_of_an_unknown_scale_are_those_of_clip() {
    let fixture = Fixture::copy("ready-made");
    fixture.set("config.json", "init_logit_bias", json!(-10));
    let spec = fixture.load().unwrap().spec;
    assert_eq!((spec.scores, spec.logit_scale, spec.logit_bias), (Scores::Softmax, 100.0, 0.0));
    let spec = Fixture::copy("inference").load().unwrap().spec;
    assert_eq!((spec.scores, spec.logit_bias), (Scores::Sigmoid, -12.5));
    assert!((spec.logit_scale - 4.7_f32.exp()).abs() < 1e-3);
}

#[test]
fn an_image_graph_may_be_alone() {
    for (name, texts) in
        [("ready-made", TEXT), ("transformers-js", "onnx/text_model.onnx"), ("inference", "text.onnx")]
    {
        let fixture = Fixture::copy(name);
        assert!(fixture.load().unwrap().text.is_some());
        fixture.remove(texts);
        let model = fixture.load().unwrap();
        assert!(
            model.text.is_none() && model.spec.text.is_none() && model.tokenizer_json.is_empty(),
            "{name}"
        );
    }
}

#[test]
fn a_variant_is_part_of_the_names_of_graphs() {
    let fixture = Fixture::copy("transformers-js");
    let load =
        |variant: &str| Model::from_dir(fixture.directory.path(), &variant.parse().unwrap(), Form::PORTABLE);
    let expected = fixture.load().unwrap();
    assert_eq!(load("fp32").unwrap().fingerprint, expected.fingerprint);
    let missing = load("q8").unwrap_err().to_string();
    assert!(missing.contains("no ONNX graphs onnx/vision_model_quantized.onnx"), "{missing}");
    for graph in ["vision", "text"] {
        let [from, to] =
            ["", "_quantized"].map(|suffix| fixture.path(&format!("onnx/{graph}_model{suffix}.onnx")));
        std::fs::rename(from, to).unwrap();
    }
    assert_eq!(load("q8").unwrap().image, expected.image);
    assert!(load("fp32").is_err());
}

/// What both encoders have in common is not in either, nor what the other one reads.
#[test]
fn one_graph_for_both_is_split() {
    let model = Fixture::copy("optimum").load().unwrap();
    let text = model.text.unwrap();
    let [image_bytes, text_bytes] = [&model.image, &text].map(|graph| graph.proto.len());
    let whole = std::fs::metadata(Fixture::copy("optimum").path("model.onnx")).unwrap().len() as usize;
    assert!(image_bytes + text_bytes < whole + (20 << 10), "{image_bytes} + {text_bytes} of {whole}");
    let names = |graph: &[u8]| -> Vec<String> {
        let graph = ModelProto::decode(graph).unwrap().graph.unwrap();
        graph.initializer.into_iter().map(|tensor| tensor.name).collect()
    };
    assert!(!names(&model.image.proto).iter().any(|name| name.contains("text_model")));
    assert!(!names(&text.proto).iter().any(|name| name.contains("vision_model")));
}

#[test]
fn outputs_and_inputs_of_others_are_named() {
    let output =
        |model: &mut ModelProto, name: &str| model.graph.as_mut().unwrap().output[1].name = name.to_owned();
    check(
        "transformers-js",
        |fixture| edit(fixture, "onnx/vision_model.onnx", |model| output(model, "something")),
        "onnx/vision_model.onnx: outputs are [last_hidden_state, something], supported is image_embeds or \
         pooler_output",
    );
    check(
        "bert",
        |fixture| {
            edit(fixture, "onnx/text_model.onnx", |model| {
                rename_input(model, "position_ids", "attention_mask")
            })
        },
        "onnx/text_model.onnx: text_embeds depends on inputs [input_ids, position_ids, token_type_ids], supported is \
         input_ids or text or tokens, with attention_mask and token_type_ids",
    );
    check(
        "bert",
        |fixture| {
            edit(fixture, "onnx/text_model.onnx", |model| {
                rename_input(model, "token_type_ids", "attention_mask")
            })
        },
        "onnx/text_model.onnx: it has no input attention_mask, by which such an encoder knows what pads",
    );
}

/// Gives an input another name, or the first one if there is none of the old, in declarations and nodes.
fn rename_input(model: &mut ModelProto, name: &str, old: &str) {
    let graph = model.graph.as_mut().unwrap();
    let place = graph.input.iter().position(|input| input.name == old).unwrap_or(0);
    let old = std::mem::replace(&mut graph.input[place].name, name.to_owned());
    for input in graph.node.iter_mut().flat_map(|node| &mut node.input).filter(|input| **input == old) {
        *input = name.to_owned();
    }
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
