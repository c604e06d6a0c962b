//! What `open_clip_config.json` may say.

use serde_json::json;

use super::*;
use crate::clip::spec::{Interpolation, ResizeMode};

#[test]
fn the_config_becomes_the_spec() {
    let spec = Fixture::copy("gelu-patch14").load().unwrap().spec;
    assert_eq!(
        (spec.image.interpolation, spec.image.resize_mode),
        (Interpolation::Bilinear, ResizeMode::Squash)
    );
    assert_eq!(spec.logit_bias, -10.0);
    let spec = Fixture::copy("quick-gelu-patch8").load().unwrap().spec;
    assert_eq!((spec.image.height, spec.image.width), (32, 48));
    // open_clip's defaults; and the scale in this file is above OpenAI's limit.
    let spec = Fixture::copy("bf16-patch16").load().unwrap().spec;
    assert_eq!(
        (spec.image.interpolation, spec.image.resize_mode),
        (Interpolation::Bicubic, ResizeMode::Shortest)
    );
    assert_eq!((spec.logit_scale, spec.logit_bias), (100.0, 0.0));
}

#[test]
fn keys_that_would_change_the_result_are_refused() {
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
            "bf16-patch16",
            |fixture| fixture.set(CONFIG_FILE, path, value.clone()),
            &format!("open_clip_config.json: {path} is {value}, supported is {supported}"),
        );
    }
    check(
        "bf16-patch16",
        |fixture| fixture.set(CONFIG_FILE, "model_cfg.text_cfg.heads", json!(7)),
        "open_clip_config.json: model_cfg.text_cfg.width is 64, supported is a multiple of the 7 heads",
    );
}

#[test]
fn keys_that_change_nothing_are_accepted() {
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
        let fixture = Fixture::copy("bf16-patch16");
        fixture.set(CONFIG_FILE, path, value);
        fixture.load().unwrap();
    }
}
