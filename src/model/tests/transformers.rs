//! What transformers' files may say.

use serde_json::json;

use super::*;
use crate::clip::spec::{
    Cleaning, End, Interpolation, PaddedTo, Padding, ResizeMode, Scores, Side, Tokenization,
};

const CONFIG: &str = "config.json";
const PREPROCESSOR: &str = "preprocessor_config.json";

#[test]
fn the_config_becomes_the_spec() {
    let fixture = Fixture::copy("transformers-patch8");
    fixture.set(PREPROCESSOR, "size", json!({"height": 32, "width": 32}));
    fixture.set(PREPROCESSOR, "crop_size", json!(32));
    fixture.set(PREPROCESSOR, "resample", json!(2));
    let spec = fixture.load().unwrap().spec;
    assert_eq!((spec.embed_dim, spec.image.height, spec.image.width), (24, 32, 32));
    let text = spec.text.unwrap();
    assert_eq!((text.context_length, text.vocab_size), (16, 300));
    assert_eq!(
        (spec.image.interpolation, spec.image.resize_mode),
        (Interpolation::Bilinear, ResizeMode::Squash)
    );
    fixture.set(PREPROCESSOR, "size", json!(32));
    fixture.set(PREPROCESSOR, "resample", json!(null));
    let image = fixture.load().unwrap().spec.image;
    assert_eq!((image.interpolation, image.resize_mode), (Interpolation::Bicubic, ResizeMode::Shortest));
}

#[test]
fn values_that_would_change_the_result_are_refused() {
    let side = "32, the image encoder's";
    for (file, path, value, supported) in [
        (CONFIG, "model_type", json!("blip"), "clip or siglip, or either with _vision_model"),
        (
            CONFIG,
            "model_type",
            json!("siglip2"),
            "siglip: NaFlex is not served; SigLIP 2 of a fixed size is, such as google/siglip2-base-patch16-224",
        ),
        (CONFIG, "vision_config.layer_norm_eps", json!(-1e-6), "a positive number"),
        (CONFIG, "vision_config.hidden_act", json!("gelu_new"), "quick_gelu, gelu, gelu_pytorch_tanh"),
        (CONFIG, "vision_config.num_channels", json!(4), "3"),
        (CONFIG, "vision_config.patch_size", json!(64), "at most image_size"),
        (CONFIG, "text_config.eos_token_id", json!(298), "the last id, 299, or 2"),
        (CONFIG, "text_config.eos_token_id", json!(null), "the last id, 299, or 2"),
        (CONFIG, "text_config.hidden_size", json!(33), "a multiple of the 2 heads"),
        (CONFIG, "text_config", json!([]), "an object"),
        (PREPROCESSOR, "do_center_crop", json!(false), "true"),
        (PREPROCESSOR, "rescale_factor", json!(1), "1/255"),
        (PREPROCESSOR, "size", json!({"shortest_edge": 36}), side),
        (PREPROCESSOR, "crop_size", json!(31), side),
        (PREPROCESSOR, "resample", json!(0), "2 (bilinear) or 3 (bicubic)"),
        (PREPROCESSOR, "image_std", json!(["1"]), "a number or three"),
        (PREPROCESSOR, "do_flip", json!(true), "nothing: clipd does not know this key"),
    ] {
        // What is absent has transformers' default, for a vocabulary of 49,408.
        let value_read = if value.is_null() { json!(49_407) } else { value.clone() };
        check(
            "transformers-patch8",
            |fixture| fixture.set(file, path, value),
            &format!("{file}: {path} is {value_read}, supported is {supported}"),
        );
    }
}

#[test]
fn siglips_are_read_with_defaults_of_their_own() {
    let spec = Fixture::copy("siglip-patch8").load().unwrap().spec;
    assert_eq!((spec.scores, spec.logit_bias), (Scores::Sigmoid, -12.5));
    assert_eq!(spec.image.resize_mode, ResizeMode::Squash);
    let text = spec.text.unwrap();
    assert_eq!(text.tokenization, Tokenization::File(Cleaning::Siglip, End::Kept));
    // Its end token pads.
    assert_eq!(text.padding, Padding { id: 1, rows: PaddedTo::Context(Side::Right) });
    let gemmas = Fixture::copy("siglip2-patch7");
    let tokenization = |fixture: &Fixture| fixture.load().unwrap().spec.text.unwrap().tokenization;
    assert_eq!(tokenization(&gemmas), Tokenization::File(Cleaning::Lower, End::Kept));
    gemmas.set("tokenizer_config.json", "tokenizer_class", json!("GemmaTokenizerFast"));
    assert_eq!(tokenization(&gemmas), Tokenization::File(Cleaning::Lower, End::Kept));
    check(
        "siglip-patch8",
        |fixture| fixture.set(CONFIG, "vision_config.vision_use_head", json!(false)),
        "config.json: vision_config.vision_use_head is false, supported is true",
    );
    check(
        "siglip-patch8",
        |fixture| fixture.set(PREPROCESSOR, "size", json!({"height": 64, "width": 64})),
        "preprocessor_config.json: size is {\"height\":64,\"width\":64}, supported is 32, the image encoder's",
    );
}

#[test]
fn an_image_encoder_may_be_alone() {
    let model = Fixture::copy("vision-only").load().unwrap();
    assert!(model.text.is_none() && model.spec.text.is_none() && model.tokenizer_json.is_empty());
    assert_eq!((model.spec.embed_dim, model.spec.logit_bias), (24, 0.0));
    check(
        "vision-only",
        |fixture| {
            let projection = "visual_projection.weight";
            fixture.tensors("model.safetensors", |tensors| drop(tensors.remove(projection)));
        },
        "model.safetensors: tensor visual_projection.weight is missing",
    );
}

/// transformers 5 saves an encoder without what its names begin with inside a model.
#[test]
fn an_image_encoder_may_have_bare_names() {
    let fixture = Fixture::copy("siglip-patch8");
    let whole = fixture.load().unwrap();
    fixture.edit(CONFIG, |bytes| {
        let config: Value = serde_json::from_slice(bytes).unwrap();
        let mut vision = config["vision_config"].clone();
        vision["model_type"] = json!("siglip_vision_model");
        *bytes = vision.to_string().into_bytes();
    });
    fixture.tensors("model.safetensors", |tensors| {
        let all = std::mem::take(tensors).into_iter();
        let bare =
            |(name, tensor): (String, _)| Some((name.strip_prefix("vision_model.")?.to_owned(), tensor));
        *tensors = all.filter_map(bare).collect();
    });
    let alone = fixture.load().unwrap();
    assert_eq!((alone.image, alone.spec.embed_dim), (whole.image, 48));
    assert!(alone.text.is_none());
}

/// Releases before 4.28 saved the sections twice, and let the older name win.
#[test]
fn a_section_under_its_older_name_wins() {
    let fixture = Fixture::copy("transformers-patch8");
    let config = std::fs::read(fixture.path(CONFIG)).unwrap();
    let text = serde_json::from_slice::<Value>(&config).unwrap()["text_config"].clone();
    fixture.set(CONFIG, "text_config_dict", text);
    fixture.set(CONFIG, "text_config.hidden_size", json!(512));
    fixture.load().unwrap();
    fixture.set(CONFIG, "text_config_dict", json!(null));
    fixture.load().unwrap_err();
}

#[test]
fn the_preprocessor_may_be_part_of_the_processor() {
    let fixture = Fixture::copy("transformers-patch8");
    fixture.edit(PREPROCESSOR, |bytes| {
        let preprocessor: Value = serde_json::from_slice(bytes).unwrap();
        *bytes = json!({"image_processor": preprocessor}).to_string().into_bytes();
    });
    std::fs::rename(fixture.path(PREPROCESSOR), fixture.path("processor_config.json")).unwrap();
    fixture.load().unwrap();
    fixture.set("processor_config.json", "image_processor.resample", json!(0));
    assert_eq!(
        fixture.load().unwrap_err().to_string(),
        "processor_config.json: image_processor.resample is 0, supported is 2 (bilinear) or 3 (bicubic)"
    );
}
