use std::collections::BTreeMap;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use super::*;
use crate::clip::spec::{Interpolation, ResizeMode};

/// A checkpoint of `tests/fixtures/golden`, to be damaged.
struct Fixture {
    config: Value,
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl Fixture {
    fn read(name: &str) -> Fixture {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden").join(name);
        let weights = std::fs::read(directory.join(WEIGHTS_FILE)).unwrap();
        let tensors = SafeTensors::deserialize(&weights).unwrap();
        let config = std::fs::read(directory.join(CONFIG_FILE)).unwrap();
        Fixture {
            config: serde_json::from_slice(&config).unwrap(),
            tensors: tensors
                .iter()
                .map(|(name, tensor)| {
                    (name.to_owned(), (tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec()))
                })
                .collect(),
        }
    }

    /// `path` as in `model_cfg.text_cfg.width`.
    fn set(&mut self, path: &str, value: Value) {
        let place = path.split('.').fold(&mut self.config, |place, key| &mut place[key]);
        *place = value;
    }

    fn assemble(&self) -> Result<Model, ModelError> {
        let views = self.tensors.iter().map(|(name, (dtype, shape, bytes))| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        let weights = safetensors::serialize(views, None).unwrap();
        let config = self.config.to_string();
        Model::assemble(
            "fixture".to_owned(),
            Files { weights: &weights, config: config.as_bytes(), tokenizer: b"{}" },
        )
    }
}

/// Damages a good checkpoint and compares the error.
fn check(damage: impl FnOnce(&mut Fixture), message: &str) {
    let mut fixture = Fixture::read("bf16-patch16");
    fixture.assemble().unwrap();
    damage(&mut fixture);
    assert_eq!(fixture.assemble().unwrap_err().to_string(), message);
}

#[test]
fn the_builtin_model_loads() {
    let model = Model::builtin().unwrap();
    assert_eq!(model.name, "emoji-clip");
    assert_eq!(model.fingerprint.len(), 64);
    assert_eq!((model.spec.image.height, model.spec.image.width, model.spec.embed_dim), (64, 64, 128));
    assert_eq!((model.spec.text.context_length, model.spec.text.vocab_size), (32, 3072));
    assert!(model.spec.logit_scale > 1.0 && model.spec.logit_scale <= 100.0);
    assert!(serde_json::from_slice::<Value>(&model.tokenizer_json).is_ok());
}

#[test]
fn the_config_becomes_the_spec() {
    let spec = Fixture::read("gelu-patch14").assemble().unwrap().spec;
    assert_eq!(
        (spec.image.interpolation, spec.image.resize_mode),
        (Interpolation::Bilinear, ResizeMode::Squash)
    );
    assert_eq!(spec.logit_bias, -10.0);
    let spec = Fixture::read("quick-gelu-patch8").assemble().unwrap().spec;
    assert_eq!((spec.image.height, spec.image.width), (32, 48));
    // open_clip's defaults; and the scale in this file is above OpenAI's limit.
    let spec = Fixture::read("bf16-patch16").assemble().unwrap().spec;
    assert_eq!(
        (spec.image.interpolation, spec.image.resize_mode),
        (Interpolation::Bicubic, ResizeMode::Shortest)
    );
    assert_eq!((spec.logit_scale, spec.logit_bias), (100.0, 0.0));
}

#[test]
fn the_fingerprint_covers_every_file() {
    let files = |weights, config, tokenizer| fingerprint(&Files { weights, config, tokenizer });
    let all =
        [files(b"a", b"b", b"c"), files(b"x", b"b", b"c"), files(b"a", b"x", b"c"), files(b"a", b"b", b"x")];
    // printf abc | sha256sum
    assert_eq!(all[0], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert!(all[1..].iter().all(|other| *other != all[0]));
}

#[test]
fn a_missing_file_is_named_with_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    for file in [CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE] {
        let message = Model::from_dir(directory.path()).unwrap_err().to_string();
        let expected = format!("{}: cannot read {file}: ", directory.path().display());
        assert!(message.starts_with(&expected), "{message}");
        std::fs::write(directory.path().join(file), "").unwrap();
    }
}

#[test]
fn files_that_are_something_else_are_refused() {
    let assemble = |weights, config| {
        Model::assemble(String::new(), Files { weights, config, tokenizer: b"" }).unwrap_err().to_string()
    };
    assert!(assemble(b"", b"not json").starts_with("open_clip_config.json: expected"));
    let config = br#"{"model_cfg": {"embed_dim": 1, "vision_cfg": {}, "text_cfg": {}}}"#;
    assert!(assemble(b"not a tensor", config).starts_with("open_clip_model.safetensors: "));
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    check(
        |fixture| drop(fixture.tensors.remove("visual.proj")),
        "open_clip_model.safetensors: tensor visual.proj is missing",
    );
    check(
        |fixture| fixture.set("model_cfg.text_cfg.context_length", json!(9)),
        "open_clip_model.safetensors: tensor positional_embedding has shape [8, 64], open_clip_config.json \
         asks for [9, 64]",
    );
    check(
        |fixture| {
            drop(fixture.tensors.insert("ln_final.bias".to_owned(), (Dtype::I32, vec![64], vec![0; 256])))
        },
        "open_clip_model.safetensors: tensor ln_final.bias is of type I32, supported are F32, F16 and BF16",
    );
    check(
        |fixture| {
            let gamma = (Dtype::F32, vec![64], vec![0; 256]);
            fixture.tensors.insert("transformer.resblocks.0.ls_1.gamma".to_owned(), gamma);
        },
        "open_clip_model.safetensors: tensor transformer.resblocks.0.ls_1.gamma has no place in the \
         architecture of open_clip_config.json",
    );
}

#[test]
fn config_keys_that_would_change_the_result_are_refused() {
    for (path, value, supported) in [
        ("model_cfg.vision_cfg.attentional_pool", json!(true), "false"),
        ("model_cfg.vision_cfg.pool_type", json!("avg"), "\"tok\""),
        ("model_cfg.vision_cfg.timm_model_name", json!("vit_base"), "null"),
        ("model_cfg.vision_cfg.ls_init_value", json!(0.1), "null"),
        ("model_cfg.vision_cfg.layers", json!([3, 4, 6, 3]), "a positive integer"),
        ("model_cfg.vision_cfg.image_size", json!([32, 32, 3]), "a positive integer or [height, width]"),
        ("model_cfg.vision_cfg.patch_size", json!(33), "at most image_size"),
        ("model_cfg.vision_cfg.head_width", json!(0), "a positive integer"),
        ("model_cfg.text_cfg.hf_model_name", json!("roberta"), "null"),
        ("model_cfg.text_cfg.no_causal_mask", json!(true), "false"),
        ("model_cfg.text_cfg.tokenizer_kwargs", json!({"clean": "canonicalize"}), "null"),
        ("model_cfg.text_cfg.norm_kwargs", json!({"eps": 1e-6}), "null"),
        ("model_cfg.text_cfg.mlp_ratio", json!("4"), "a positive number"),
        ("model_cfg.text_cfg.invented", json!(1), "nothing: clipd does not know this key"),
        ("model_cfg.multimodal_cfg", json!({}), "nothing: clipd does not know this key"),
        ("model_cfg.quick_gelu", json!("yes"), "true or false"),
        ("model_cfg.embed_dim", json!(-1), "a positive integer"),
        ("model_cfg.text_cfg", json!([]), "an object"),
        ("preprocess_cfg.mode", json!("L"), "\"RGB\""),
        ("preprocess_cfg.interpolation", json!("nearest"), "bicubic, bilinear, random"),
        ("preprocess_cfg.mean", json!([0.5, 0.5]), "a number or three"),
    ] {
        check(
            |fixture| {
                fixture.set(path, value.clone());
            },
            &format!("open_clip_config.json: {path} is {value}, supported is {supported}"),
        );
    }
    check(
        |fixture| fixture.set("model_cfg.text_cfg.heads", json!(7)),
        "open_clip_config.json: model_cfg.text_cfg.width is 64, supported is a multiple of the 7 heads",
    );
}

#[test]
fn config_keys_that_change_nothing_are_accepted() {
    for (path, value) in [
        ("model_cfg.vision_cfg.attentional_pool", json!(false)),
        ("model_cfg.vision_cfg.patch_dropout", json!(0.5)),
        ("model_cfg.vision_cfg.ls_init_value", json!(null)),
        ("model_cfg.text_cfg.invented", json!(null)),
        ("model_cfg.init_logit_scale", json!(2.6)),
        ("preprocess_cfg.size", json!([224, 224])),
        ("preprocess_cfg.std", json!(0.5)),
        ("somebody_elses_cfg", json!({"pool_type": "avg"})),
    ] {
        let mut fixture = Fixture::read("bf16-patch16");
        fixture.set(path, value);
        fixture.assemble().unwrap();
    }
}
