//! Files that are missing, broken or contradict each other: one line that names file and tensor.

use serde_json::json;

use super::*;

const SHARD: &str = "model-00002-of-00004.safetensors";
const INDEX: &str = "model.safetensors.index.json";

#[test]
fn missing_files_are_named_with_their_directory() {
    let no_such_file = "No such file or directory (os error 2)";
    for (model, file) in [
        ("bf16-patch16", WEIGHTS_FILE),
        ("bf16-patch16", TOKENIZER_FILE),
        ("transformers-patch8", "model.safetensors"),
        ("transformers-patch8", "preprocessor_config.json"),
        ("transformers-shards", SHARD),
    ] {
        let message = format!("cannot read DIR/{file}: {no_such_file}");
        check(model, |fixture| fixture.remove(file), &message);
    }
    check(
        "bf16-patch16",
        |fixture| fixture.remove(CONFIG_FILE),
        "DIR: no model: neither open_clip_config.json (open_clip) nor config.json (transformers) nor ONNX graphs",
    );
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let bf16 = |change: fn(&mut Tensors), message: &str| {
        let message = format!("{WEIGHTS_FILE}: tensor {message}");
        check("bf16-patch16", |fixture| fixture.tensors(WEIGHTS_FILE, change), &message);
    };
    bf16(|tensors| drop(tensors.remove("visual.proj")), "visual.proj is missing");
    bf16(
        |tensors| drop(tensors.insert("ln_final.bias".to_owned(), (Dtype::I32, vec![64], vec![0; 256]))),
        "ln_final.bias is of type I32, supported are F32, F16 and BF16",
    );
    bf16(
        |tensors| {
            let gamma = (Dtype::F32, vec![64], vec![0; 256]);
            tensors.insert("transformer.resblocks.0.ls_1.gamma".to_owned(), gamma);
        },
        "transformer.resblocks.0.ls_1.gamma has no place in the configured architecture",
    );
    check(
        "bf16-patch16",
        |fixture| fixture.set(CONFIG_FILE, "model_cfg.text_cfg.context_length", json!(9)),
        "open_clip_model.safetensors: tensor positional_embedding has shape [8, 64], the configuration asks \
         for [9, 64]",
    );
    // By the names that are in the file.
    check(
        "transformers-patch8",
        |fixture| fixture.set("config.json", "projection_dim", json!(25)),
        "model.safetensors: tensor visual_projection.weight has shape [24, 48], the configuration asks for \
         [25, 48]",
    );
    check(
        "transformers-patch8",
        |fixture| {
            let name = "vision_model.encoder.layers.1.self_attn.k_proj.bias";
            fixture.tensors("model.safetensors", |tensors| drop(tensors.remove(name)));
        },
        "model.safetensors: tensor vision_model.encoder.layers.1.self_attn.k_proj.bias is missing",
    );
}

#[test]
fn broken_weights_files_are_refused() {
    let broken = |change: fn(&mut Vec<u8>), reason: &str| {
        let message = format!("{WEIGHTS_FILE}: {reason}");
        check("bf16-patch16", |fixture| fixture.edit(WEIGHTS_FILE, change), &message);
    };
    broken(Vec::clear, "not safetensors: it has 0 bytes");
    broken(|bytes| bytes.truncate(7), "not safetensors: it has 7 bytes");
    broken(|bytes| bytes.truncate(100_000), "it has 100000 bytes, its header asks for 324986");
    broken(|bytes| bytes.push(0), "it has 324987 bytes, its header asks for 324986");
    broken(
        |bytes| bytes[..8].fill(0xff),
        "not safetensors: a header of 18446744073709551615 bytes in a file of 324986",
    );
    broken(
        |bytes| bytes[..8].copy_from_slice(&2_u64.to_le_bytes()),
        "not safetensors: EOF while parsing a string at line 1 column 2",
    );
    // Offsets that leave a gap, or a size that the shape contradicts.
    broken(
        |bytes| *bytes = file(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, 8),
        "not safetensors: invalid offset for tensor `a`",
    );
    broken(
        |bytes| *bytes = file(r#"{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,8]}}"#, 8),
        "not safetensors: invalid shape, data type, or offset for tensor",
    );
}

fn file(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat()
}

#[test]
fn an_index_of_shards_names_files_beside_it() {
    for name in ["../model.safetensors", "/etc/passwd", "a/b", "..", ""] {
        check(
            "transformers-shards",
            |fixture| fixture.set(INDEX, "weight_map.logit_scale", json!(name)),
            &format!("{INDEX}: {name:?} is not the name of a file in this directory"),
        );
    }
    check(
        "transformers-shards",
        |fixture| fixture.edit(INDEX, |bytes| *bytes = b"{}".to_vec()),
        "model.safetensors.index.json: missing field `weight_map` at line 1 column 2",
    );
    // A tensor counts where it is, wherever the index says it is; one that is nowhere is missing.
    check(
        "transformers-shards",
        |fixture| fixture.tensors(SHARD, |tensors| drop(tensors.pop_first())),
        "model.safetensors.index.json: tensor text_model.encoder.layers.0.layer_norm2.bias is missing",
    );
    check(
        "transformers-shards",
        |fixture| drop(std::fs::copy(fixture.path(SHARD), fixture.path("model-00003-of-00004.safetensors"))),
        "model-00003-of-00004.safetensors: tensor text_model.encoder.layers.0.layer_norm2.bias is in another \
         shard as well",
    );
}
