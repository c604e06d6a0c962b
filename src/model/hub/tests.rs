use super::*;

#[test]
fn a_repository_is_an_organisation_a_name_and_a_revision() {
    let check = |text: &str, expected: Option<(&str, &str)>| {
        let parsed = text.parse::<Repository>().ok();
        let parsed = parsed.as_ref().map(|parsed| (parsed.id.as_str(), parsed.revision.as_str()));
        assert_eq!(parsed, expected, "{text}");
    };
    check("laion/CLIP-ViT-B-16", Some(("laion/CLIP-ViT-B-16", "main")));
    check("a/b@v1.0", Some(("a/b", "v1.0")));
    check("a/b@refs/pr/1", Some(("a/b", "refs/pr/1")));
    for bad in ["", "a", "a/", "/b", "a/b/c", "../b", "a/..", "a/b@", "a/b@../x", "a b/c", "https://x/y"] {
        check(bad, None);
    }
    assert_eq!("a/b@v1".parse::<Repository>().unwrap().to_string(), "a/b@v1");
    assert_eq!("a/b".parse::<Repository>().unwrap().to_string(), "a/b");
}

#[track_caller]
fn check(files: &[&str], expected: Result<&[&str], &str>) {
    let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
    match (Purpose::Model { variant: &Variant::default() }.choose(&files), expected) {
        (Ok(chosen), Ok(expected)) => assert_eq!(chosen, expected),
        (Err(message), Err(part)) => assert!(message.contains(part), "{message}"),
        (got, expected) => panic!("{got:?} instead of {expected:?}"),
    }
}

#[test]
fn the_files_of_a_model_are_chosen() {
    // Weights come last: without them what there is of an interrupted download is no model.
    let open_clip = ["tokenizer.json", "open_clip_config.json", "open_clip_model.safetensors"];
    let transformers = ["tokenizer.json", "preprocessor_config.json", "config.json", "model.safetensors"];
    check(&open_clip, Ok(&open_clip));
    check(&transformers, Ok(&transformers));
    // Of both, open_clip's.
    check(&[&transformers[..], &open_clip].concat(), Ok(&open_clip));
    let shards = [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ];
    let sharded = [&transformers[..3], &shards].concat();
    check(&sharded, Ok(&sharded));
    // Pickled where there is nothing else.
    let pickled = [&transformers[..3], &["pytorch_model.bin"]].concat();
    check(&pickled, Ok(&pickled));
    check(&[&["pytorch_model.bin"], &transformers[..]].concat(), Ok(&transformers));
    let pickled = ["tokenizer.json", "open_clip_config.json", "open_clip_pytorch_model.bin"];
    check(&pickled, Ok(&pickled));
    let shards = [
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
        "pytorch_model.bin.index.json",
    ];
    let all = [&transformers[..3], &shards].concat();
    check(&all, Ok(&all));
    check(&["README.md"], Err("no weights that clipd reads"));
    check(&open_clip[1..], Err("tokenizer.json"));
    check(&["tokenizer.json", "config.json", "model.safetensors"], Err("preprocessor_config.json"));
    // An image encoder alone, and SigLIP's tokenizer.
    check(&transformers[1..], Ok(&transformers[1..]));
    let siglip = [&["tokenizer_config.json"], &transformers[..]].concat();
    check(&siglip, Ok(&siglip));
}

#[test]
fn onnx_graphs_are_chosen_where_there_are_no_weights_or_a_variant_is_asked_for() {
    let files = [
        "README.md",
        "config.json",
        "model.safetensors",
        "onnx/model.onnx",
        "onnx/text_model.onnx",
        "onnx/text_model_fp16.onnx",
        "onnx/vision_model.onnx",
        "onnx/vision_model.onnx_data",
        "onnx/vision_model_fp16.onnx",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    let of = |files: &[&str], variant: &str| {
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        let variant = if variant.is_empty() { Variant::default() } else { variant.parse().unwrap() };
        Purpose::Model { variant: &variant }
            .choose(&files)
            .map(|chosen| chosen.iter().map(|file| (*file).to_owned()).collect::<Vec<_>>())
    };
    let onnx =
        |chosen: &[String]| chosen.iter().filter(|file| file.contains("onnx")).cloned().collect::<Vec<_>>();
    assert!(of(&files, "").unwrap().contains(&"model.safetensors".to_owned()));
    let without_weights: Vec<&str> = files.into_iter().filter(|file| *file != "model.safetensors").collect();
    let chosen = of(&without_weights, "").unwrap();
    assert_eq!(
        onnx(&chosen),
        ["onnx/vision_model.onnx_data", "onnx/text_model.onnx", "onnx/vision_model.onnx"]
    );
    assert_eq!(chosen.len(), 7, "and what tells how to feed them: {chosen:?}");
    assert_eq!(
        onnx(&of(&files, "fp16").unwrap()),
        ["onnx/text_model_fp16.onnx", "onnx/vision_model_fp16.onnx"]
    );
    let merged = ["config.json", "preprocessor_config.json", "tokenizer.json", "model.onnx"];
    assert_eq!(of(&merged, "").unwrap(), merged);
    assert_eq!(of(&merged[1..], "").unwrap_err(), "it has no config.json");
    let alone = ["config.json", "preprocessor_config.json", "onnx/vision_model.onnx"];
    assert_eq!(of(&alone, "").unwrap(), alone);
    let half = ["config.json", "preprocessor_config.json", "tokenizer.json", "onnx/text_model.onnx"];
    assert_eq!(of(&half, "").unwrap_err(), "it has no onnx/vision_model.onnx");
    assert_eq!(
        of(&files, "q4").unwrap_err(),
        "it has no ONNX graphs onnx/vision_model_q4.onnx and onnx/text_model_q4.onnx"
    );
}

#[test]
fn of_a_large_graph_in_a_folder_of_its_own_each_tensor_may_be_a_file() {
    let taken = [
        "textual/onnx__MatMul_9000",
        "visual/Constant_12_attr__value",
        "visual/visual.proj",
        "textual/tokenizer_config.json",
        "textual/model.onnx",
        "config.json",
        "visual/preprocess_cfg.json",
        "textual/tokenizer.json",
        "visual/model.onnx",
    ];
    let others = [
        "README.md",
        "textual/merges.txt",
        "textual/vocab.json",
        "visual/model.armnn",
        "visual/fp16/model.armnn",
        "visual/rknpu/rk3588/model.rknn",
    ];
    let files = [&others[..], &taken].concat();
    check(&files, Ok(&taken));
}

#[test]
fn the_files_of_a_split_are_chosen() {
    let files = [
        "README.md",
        "classnames.txt",
        "dataset_type.txt",
        "test/0.tar",
        "test/01.tar",
        "test/../0.tar",
        "test/1.tar",
        "test/nshards.txt",
        "train/0.tar",
        "train/nshards.txt",
    ]
    .map(str::to_owned);
    let chosen = Purpose::Data { split: "test" }.choose(&files).unwrap();
    assert_eq!(
        chosen,
        ["classnames.txt", "dataset_type.txt", "test/0.tar", "test/1.tar", "test/nshards.txt"]
    );
    assert!(Purpose::Data { split: "validation" }.choose(&files).is_err());
}
