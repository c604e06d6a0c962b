//! An image encoder alone: it embeds images, ranks them, and classifies by linear heads; the rest says that it cannot.

use clipd::app;
use clipd::app::ports::Ports;
use clipd::grpc::proto::rank_item::Content;
use clipd::grpc::proto::stream_embed_response::Result as Embedded;
use clipd::grpc::proto::{
    ClassifyRequest, GetModelRequest, RankItem, RankRequest, StreamEmbedRequest, StreamEmbedResponse,
};
use clipd::model::graph::Form;
use clipd::model::variant::Variant;
use clipd::model::{Model, ModelError};
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize_to_file};
use serde_json::json;
use tonic::Code;

use crate::support::post::{get, post};
use crate::support::*;

const DIM: usize = 24;

fn model() -> String {
    format!("--model={}", fixtures().join("golden/vision-only").display())
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_embedded_ranked_and_classified_by_heads() {
    let classifiers = tempfile::tempdir().unwrap();
    let weights: Vec<u8> = (0..2 * DIM).flat_map(|index| (index as f32).sin().to_le_bytes()).collect();
    let tensors = [
        ("weight", TensorView::new(Dtype::F32, vec![2, DIM], &weights).unwrap()),
        ("bias", TensorView::new(Dtype::F32, vec![2], &[0; 8]).unwrap()),
    ];
    serialize_to_file(tensors, None, &classifiers.path().join("head.safetensors")).unwrap();
    let file = "{\"labels\": [\"a\", \"b\"], \"head\": \"head.safetensors\"}";
    std::fs::write(classifiers.path().join("probe.json"), file).unwrap();
    let flag = format!("--classifiers={}", classifiers.path().display());
    let mut server = Server::start(&[&model(), &flag]).await;

    let card = server.client.get_model(GetModelRequest {}).await.unwrap().into_inner();
    assert_eq!((card.modalities.as_slice(), card.context_length), (&["image".to_owned()][..], 0));
    assert!(card.batch_costs.iter().all(|cost| cost.modality == "image") && !card.batch_costs.is_empty());

    let both = embed_request(vec![image_input(picture(1)), image_input(picture(200))]);
    let embedded = server.client.embed(both).await.unwrap().into_inner();
    assert_eq!(embedding(&embedded.results[1]).values.len(), DIM);

    let by_head = ClassifyRequest {
        images: vec![picture(1)],
        classifier: "probe".to_owned(),
        ..ClassifyRequest::default()
    };
    let classified = server.client.classify(by_head).await.unwrap().into_inner();
    let scores: f32 = predictions(&classified.results[0]).iter().map(|each| each.score).sum();
    assert!((scores - 1.0).abs() < 1e-5);

    let item = |seed| RankItem { content: Some(Content::Image(picture(seed))) };
    let request =
        RankRequest { query: Some(item(1)), documents: vec![item(200), item(1)], ..RankRequest::default() };
    let ranked = server.client.rank(request).await.unwrap().into_inner();
    assert_eq!((ranked.results[0].index, ranked.results[0].score), (1, None));
    assert_eq!(get(&server, "/v1/models").await.ok()["data"][0]["modalities"], json!(["image"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_texts_is_refused_in_words() {
    let mut server = Server::start(&[&model()]).await;
    let told = |status: tonic::Status| {
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        assert!(status.message().starts_with("the model has no text encoder: "), "{status:?}");
    };
    let mixed = embed_request(vec![image_input(picture(1)), text_input("a dog")]);
    told(server.client.embed(mixed).await.unwrap_err());
    let labels = ClassifyRequest {
        images: vec![picture(1)],
        labels: vec!["a dog".into()],
        ..ClassifyRequest::default()
    };
    told(server.client.classify(labels).await.unwrap_err());
    let item = |content| RankItem { content: Some(content) };
    let rank = RankRequest {
        query: Some(item(Content::Text("a dog".to_owned()))),
        documents: vec![item(Content::Image(picture(1)))],
        ..RankRequest::default()
    };
    told(server.client.rank(rank).await.unwrap_err());

    for (path, body) in [
        ("/v1/embeddings", json!({"input": "a dog"})),
        ("/v1/rerank", json!({"query": "a dog", "documents": ["a cat"]})),
    ] {
        let (message, _) = post(&server, path, &body).await.error(400);
        assert!(message.starts_with("the model has no text encoder: "), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_behind_a_text() {
    let server = Server::start(&[&model()]).await;
    let inputs = [text_input("a dog"), image_input(picture(1))];
    let messages = (0..).zip(inputs).map(|(tag, input)| StreamEmbedRequest {
        tag,
        input: Some(input),
        ..StreamEmbedRequest::default()
    });
    let messages = tokio_stream::iter(messages.collect::<Vec<_>>());
    let mut responses = server.client.clone().stream_embed(messages).await.unwrap().into_inner();
    let mut results = [None, None];
    while let Some(StreamEmbedResponse { tag, result, .. }) = responses.message().await.unwrap() {
        results[tag as usize] = result;
    }
    assert!(
        matches!(&results[0], Some(Embedded::Error(error)) if error.code == Code::FailedPrecondition as i32)
    );
    assert!(matches!(&results[1], Some(Embedded::Embedding(embedding)) if embedding.values.len() == DIM));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_label_set_needs_texts_at_start() {
    let classifiers = tempfile::tempdir().unwrap();
    std::fs::write(classifiers.path().join("words.json"), "{\"labels\": [\"a\", \"b\"]}").unwrap();
    let config = config(&[&model(), &format!("--classifiers={}", classifiers.path().display())]);
    let served = app::load::load(&config).unwrap();
    let error = app::start(&config, Ports::open(&config).unwrap(), served).err().unwrap().to_string();
    assert!(error.contains("words") && error.contains("the model has no text encoder"), "{error}");
}

/// A directory with texts only is no model.
#[test]
fn a_text_encoder_alone_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.json"), "{\"model_type\": \"clip_text_model\"}").unwrap();
    std::fs::write(directory.path().join("preprocessor_config.json"), "{}").unwrap();
    let error = Model::from_dir(directory.path(), &Variant::default(), Form::PORTABLE).unwrap_err();
    assert!(matches!(&error, ModelError::Config { key, .. } if key == "model_type"), "{error}");
}
