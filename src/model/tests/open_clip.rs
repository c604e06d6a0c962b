//! What `open_clip_config.json` may say.

use serde_json::json;

use super::*;
use crate::clip::spec::{
    Cleaning, End, Interpolation, PaddedTo, Padding, ResizeMode, Scores, Side, Tokenization,
};
use crate::model::config::{Activation, Config, ImageEncoder};

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

/// What open_clip 3.3 lists for models that are published. Patches, then width, layers, heads and MLP width of
/// the image encoder, width, layers and heads of the text encoder.
#[test]
fn published_architectures_have_their_sizes() {
    let text = |width, heads, layers| json!({"width": width, "heads": heads, "layers": layers});
    for (name, vision, text, expected) in [
        (
            "ViT-B-32",
            json!({"width": 768, "layers": 12, "patch_size": 32}),
            text(512, 8, 12),
            [49, 768, 12, 12, 3072, 512, 12, 8],
        ),
        (
            "ViT-L-14-336",
            json!({"image_size": 336, "width": 1024, "layers": 24, "patch_size": 14}),
            text(768, 12, 12),
            [576, 1024, 24, 16, 4096, 768, 12, 12],
        ),
        (
            "ViT-H-14",
            json!({"width": 1280, "layers": 32, "head_width": 80, "patch_size": 14}),
            text(1024, 16, 24),
            [256, 1280, 32, 16, 5120, 1024, 24, 16],
        ),
        (
            "ViT-g-14",
            json!({"width": 1408, "layers": 40, "head_width": 88, "mlp_ratio": 4.3637, "patch_size": 14}),
            text(1024, 16, 24),
            [256, 1408, 40, 16, 6144, 1024, 24, 16],
        ),
        (
            "ViT-bigG-14",
            json!({"width": 1664, "layers": 48, "head_width": 104, "mlp_ratio": 4.9231, "patch_size": 14}),
            text(1280, 20, 32),
            [256, 1664, 48, 16, 8192, 1280, 32, 20],
        ),
    ] {
        let model = json!({"embed_dim": 1024, "quick_gelu": true, "vision_cfg": vision, "text_cfg": text});
        let file = json!({"model_cfg": model}).to_string();
        let config = Config::from_open_clip(file.as_bytes(), &|_| None).unwrap();
        let text_config = config.text.unwrap();
        let ImageEncoder::Transformer(encoder) = &config.image.encoder else { panic!("{name} is a ViT") };
        let (image, text) = (&encoder.transformer, &text_config.transformer);
        let patches = (config.image.height / encoder.patch) * (config.image.width / encoder.patch);
        let found = [patches, image.width, image.layers, image.heads, image.mlp_width];
        assert_eq!(found, expected[..5], "{name}");
        assert_eq!([text.width, text.layers, text.heads], expected[5..], "{name}");
        assert_eq!((text.mlp_width, text_config.context_length), (4 * text.width, 77), "{name}");
        assert_eq!((image.activation, text.activation), (Activation::QuickGelu, Activation::QuickGelu));
    }
}

#[test]
fn keys_that_would_change_the_result_are_refused() {
    for (path, value, supported) in [
        ("model_cfg.vision_cfg.attentional_pool", json!(true), "false"),
        ("model_cfg.vision_cfg.pool_type", json!("none"), "tok, avg"),
        ("model_cfg.vision_cfg.pos_embed_type", json!("none"), "learnable, sin_cos_2d"),
        (
            "model_cfg.vision_cfg.timm_model_name",
            json!("convnext_base"),
            "vit_{base,large,so400m,giantopt}_patchP_siglip_SIZE; other image encoders of timm's can be served as ONNX \
             graphs",
        ),
        ("model_cfg.vision_cfg.layers", json!([3, 4, 6]), "a positive integer, or four of them"),
        ("model_cfg.vision_cfg.image_size", json!([32, 32, 3]), "a positive integer or [height, width]"),
        ("model_cfg.vision_cfg.patch_size", json!(33), "at most image_size"),
        ("model_cfg.vision_cfg.head_width", json!(0), "a positive integer"),
        ("model_cfg.text_cfg.hf_model_name", json!("roberta"), "null"),
        ("model_cfg.text_cfg.embed_cls", json!(true), "false"),
        ("model_cfg.text_cfg.proj_type", json!("mlp"), "linear, none"),
        ("model_cfg.text_cfg.tokenizer_mode", json!("clips"), "null"),
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
    // What is asked for besides changes what is supported.
    for (path, value, message) in [
        (
            "model_cfg.text_cfg.tokenizer_kwargs",
            json!({"clean": "canonicalize"}),
            "tokenizer_kwargs.clean is \"canonicalize\", supported is nothing: clipd does not know this key",
        ),
        (
            "model_cfg.text_cfg.hf_tokenizer_name",
            json!("roberta"),
            "pool_type is \"argmax\", supported is last or eos with hf_tokenizer_name",
        ),
        (
            "model_cfg.text_cfg.norm_kwargs",
            json!({"eps": 0}),
            "norm_kwargs.eps is 0, supported is a positive number",
        ),
        (
            "model_cfg.text_cfg.act_kwargs",
            json!({"approximate": "sigmoid"}),
            "act_kwargs.approximate is \"sigmoid\", supported is none, tanh",
        ),
    ] {
        let message = format!("open_clip_config.json: model_cfg.text_cfg.{message}");
        check("bf16-patch16", |fixture| fixture.set(CONFIG_FILE, path, value), &message);
    }
    check(
        "bf16-patch16",
        |fixture| fixture.set(CONFIG_FILE, "model_cfg.vision_cfg.pool_type", json!("avg")),
        "open_clip_config.json: model_cfg.vision_cfg.final_ln_after_pool is false, supported is true with pool_type \
         avg",
    );
    check(
        "bf16-patch16",
        |fixture| fixture.set(CONFIG_FILE, "model_cfg.text_cfg.heads", json!(7)),
        "open_clip_config.json: model_cfg.text_cfg.width is 64, supported is a multiple of the 7 heads",
    );
}

#[test]
fn siglips_are_read_with_what_their_names_stand_for() {
    let spec = Fixture::copy("siglip-timm").load().unwrap().spec;
    assert_eq!((spec.embed_dim, spec.image.height, spec.image.resize_mode), (64, 32, ResizeMode::Squash));
    assert_eq!((spec.scores, spec.logit_bias), (Scores::Sigmoid, -12.5));
    assert!(spec.logit_scale > 109.0, "it is not clipped");
    let text = spec.text.unwrap();
    assert_eq!((text.context_length, text.vocab_size), (16, 400));
    assert_eq!(text.tokenization, Tokenization::File(Cleaning::OpenClipCanonical, End::Kept));
    assert_eq!(text.padding, Padding { id: 0, rows: PaddedTo::Context(Side::Right) });

    let name = "model_cfg.vision_cfg.timm_model_name";
    let refused = |damage: &dyn Fn(&Fixture), message: &str| check("siglip-timm", damage, message);
    refused(
        &|fixture| fixture.set(CONFIG_FILE, name, json!("vit_so400m_patch14_siglip_224")),
        "open_clip_config.json: model_cfg.vision_cfg.timm_model_name is \"vit_so400m_patch14_siglip_224\", supported \
         is one of embed_dim's width",
    );
    refused(
        &|fixture| fixture.set(CONFIG_FILE, "model_cfg.vision_cfg.invented", json!(1)),
        "open_clip_config.json: model_cfg.vision_cfg.invented is 1, supported is nothing: clipd does not know this key",
    );
    refused(
        &|fixture| fixture.set(CONFIG_FILE, "model_cfg.vision_cfg.timm_pool", json!("avg")),
        "open_clip_config.json: model_cfg.vision_cfg.timm_pool is \"avg\", supported is \"map\"",
    );
    refused(
        &|fixture| {
            fixture.tensors(WEIGHTS_FILE, |tensors| drop(tensors.remove("visual.trunk.attn_pool.kv.bias")));
        },
        "open_clip_model.safetensors: tensor visual.trunk.attn_pool.kv.bias is missing",
    );
    refused(
        &|fixture| fixture.remove("tokenizer_config.json"),
        "cannot read DIR/tokenizer_config.json: No such file or directory (os error 2)",
    );
    refused(
        &|fixture| fixture.set("tokenizer_config.json", "pad_token", json!("<void>")),
        "tokenizer_config.json: pad_token is \"<void>\", supported is one of the added_tokens of tokenizer.json",
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
