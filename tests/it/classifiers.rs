//! Named classifiers: label sets and linear heads from files.

use std::path::Path;

use clipd::app;
use clipd::app::ports::Ports;
use clipd::grpc::proto::{ClassifyRequest, GetModelRequest};
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize_to_file};
use tonic::Code;

use crate::support::*;

const WORDS: [&str; 4] = ["dog", "cat", "pizza", "car"];

fn named(classifier: &str, images: &[&str]) -> ClassifyRequest {
    ClassifyRequest {
        images: images.iter().map(|name| image(fixture(&format!("images/{name}.png")))).collect(),
        classifier: classifier.to_owned(),
        ..ClassifyRequest::default()
    }
}

fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn write_head(path: &Path, labels: usize, weights: &[f32], biases: &[f32]) {
    let (weights, biases, dim) = (bytes(weights), bytes(biases), weights.len() / labels);
    let tensors = [
        ("weight", TensorView::new(Dtype::F32, vec![labels, dim], &weights).unwrap()),
        ("bias", TensorView::new(Dtype::F32, vec![biases.len() / 4], &biases).unwrap()),
    ];
    serialize_to_file(tensors, None, path).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_label_set_answers_like_the_same_labels_in_the_request() {
    let directory = tempfile::tempdir().unwrap();
    let toml =
        "labels = [\"dog\", \"cat\", \"pizza\", \"car\"]\ntemplates = [\"an emoji of {}\"]\ntop_k = 2\n";
    std::fs::write(directory.path().join("things.toml"), toml).unwrap();
    let json = "{\"labels\": [\"red\", \"blue\"]}";
    std::fs::write(directory.path().join("colours.json"), json).unwrap();
    std::fs::write(directory.path().join("notes.txt"), "not a classifier").unwrap();
    let flag = format!("--classifiers={}", directory.path().display());
    let mut server = Server::start(&[&flag]).await;

    let model = server.client.get_model(GetModelRequest {}).await.unwrap().into_inner();
    assert_eq!(model.classifiers, ["colours", "things"]);

    let listed = ClassifyRequest {
        labels: WORDS.map(Into::into).to_vec(),
        templates: vec!["an emoji of {}".to_owned()],
        classifier: String::new(),
        top_k: 2,
        ..named("", &["cat", "car"])
    };
    let listed = server.client.classify(listed).await.unwrap().into_inner();
    let by_name = server.client.classify(named("things", &["cat", "car"])).await.unwrap().into_inner();
    for (listed, by_name) in listed.results.iter().zip(&by_name.results) {
        assert_eq!(predictions(by_name).len(), 2, "the file's own top_k");
        assert_eq!(predictions(listed), predictions(by_name));
    }
    let best = ClassifyRequest { top_k: 1, ..named("things", &["cat"]) };
    let best = server.client.classify(best).await.unwrap().into_inner();
    assert_eq!(predictions(&best.results[0]).len(), 1, "the request's top_k goes first");

    let status = server.client.classify(named("nobody", &["cat"])).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    let both = ClassifyRequest { labels: vec!["a".into()], ..named("things", &["cat"]) };
    let status = server.client.classify(both).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().starts_with("classifier: excludes labels"), "{status}");
}

/// The frozen-feature use: rows and biases of a head that somebody trained on embeddings.
#[tokio::test(flavor = "multi_thread")]
async fn a_linear_head_gives_the_softmax_of_its_own_logits() {
    let embedding_of = async |server: &mut Server, word: &str| {
        let input = image_input(image(fixture(&format!("images/{word}.png"))));
        let response = server.client.embed(embed_request(vec![input])).await.unwrap().into_inner();
        embedding(&response.results[0]).values.clone()
    };
    let mut plain = Server::start(&[]).await;
    let mut weights = Vec::new();
    for (word, length) in WORDS.iter().zip([3.0, 20.0, 7.0, 10.0]) {
        weights.extend(embedding_of(&mut plain, word).await.iter().map(|x| x * length));
    }
    let biases = [0.5, -4.0, 1.0, 0.0];
    let directory = tempfile::tempdir().unwrap();
    write_head(&directory.path().join("probe.safetensors"), 4, &weights, &biases);
    let toml = "labels = [\"dog\", \"cat\", \"pizza\", \"car\"]\nhead = \"probe.safetensors\"\n";
    std::fs::write(directory.path().join("probe.toml"), toml).unwrap();

    let flag = format!("--classifiers={}", directory.path().display());
    let mut server = Server::start(&[&flag]).await;
    let x = embedding_of(&mut server, "cat").await;
    let logits: Vec<f32> =
        weights.chunks(x.len()).zip(biases).map(|(row, bias)| dot(row, &x) + bias).collect();
    let total: f32 = logits.iter().map(|logit| logit.exp()).sum();
    let response = server.client.classify(named("probe", &["cat"])).await.unwrap().into_inner();
    let predictions = predictions(&response.results[0]);
    assert_eq!(predictions[0].label, "cat");
    for each in predictions {
        let expected = logits[each.index as usize].exp() / total;
        assert!((each.score - expected).abs() < 1e-4, "{each:?}: {expected}");
    }
}

#[tokio::test]
async fn a_bad_file_is_a_start_error_that_names_it() {
    let check = |name: &str, text: &str, says: &str| {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(name), text).unwrap();
        write_head(&directory.path().join("small.safetensors"), 1, &[1.0, 2.0], &[0.0]);
        let config = config(&[&format!("--classifiers={}", directory.path().display())]);
        let started = app::start(&config, Ports::open(&config).unwrap(), app::load::load(&config).unwrap());
        let error = started.err().unwrap_or_else(|| panic!("{name}: it started")).to_string();
        assert!(error.contains(name.split('.').next().unwrap()) && error.contains(says), "{error}");
    };
    check("syntax.toml", "labels = ", "TOML parse error");
    check("unknown.toml", "labels = [\"a\"]\ncolour = 1", "colour");
    check("empty.json", "{\"labels\": []}", "labels: must not be empty");
    check("twice.json", "{\"labels\": [\"a\", \"a\"]}", "is the same as labels[0]");
    check("template.toml", "labels = [\"a\"]\ntemplates = [\"no\"]", "templates[0]: has no {}");
    check("missing.toml", "labels = [\"a\"]\nhead = \"nothing.safetensors\"", "nothing.safetensors");
    check("both.toml", "labels = [\"a\"]\nhead = \"x\"\ntemplates = [\"{}\"]", "head excludes templates");
    check("shape.toml", "labels = [\"a\"]\nhead = \"small.safetensors\"", "1 labels need 128 numbers, got 2");
}
