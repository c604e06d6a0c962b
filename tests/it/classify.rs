//! Classify: predictions and the label cache.

use std::time::Duration;

use clipd::batcher::OpenEngine;
use clipd::clock::Clock;
use clipd::engine::synthetic::{Pace, SyntheticEngine};
use clipd::grpc::proto::ClassifyRequest;
use clipd::model::Model;
use clipd::model::graph::Form;
use tonic::Code;

use crate::support::scrape::Scrape;
use crate::support::*;

const WORDS: [&str; 8] = ["dog", "cat", "pizza", "car", "guitar", "airplane", "umbrella", "apple"];

fn request(images: &[&str]) -> ClassifyRequest {
    ClassifyRequest {
        images: images.iter().map(|name| image(fixture(&format!("images/{name}.png")))).collect(),
        labels: WORDS.map(Into::into).to_vec(),
        templates: vec!["an emoji of {}".to_owned()],
        ..ClassifyRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_image_gets_its_word() {
    let mut server = Server::start(&[]).await;
    let response = server.client.classify(request(&WORDS)).await.unwrap().into_inner();
    for (word, result) in WORDS.iter().zip(&response.results) {
        let predictions = predictions(result);
        assert_eq!(predictions[0].label, *word);
        assert_eq!(WORDS[predictions[0].index as usize], *word);
        assert_eq!(predictions.len(), WORDS.len());
        let sum: f32 = predictions.iter().map(|each| each.score).sum();
        assert!((sum - 1.0).abs() < 1e-4, "scores are probabilities: {sum}");
        assert!(predictions.is_sorted_by(|a, b| a.score >= b.score));
        assert!(predictions.iter().all(|each| each.similarity.abs() <= 1.0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn top_k_cuts_the_list_and_changes_no_score() {
    let mut server = Server::start(&[]).await;
    let all = server.client.classify(request(&["cat"])).await.unwrap().into_inner();
    let best = ClassifyRequest { top_k: 3, ..request(&["cat"]) };
    let best = server.client.classify(best).await.unwrap().into_inner();
    assert_eq!(predictions(&best.results[0]), &predictions(&all.results[0])[..3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_score_is_the_softmax_of_scaled_cosines_of_the_embeddings() {
    let mut server = Server::start(&[]).await;
    let mut inputs = vec![image_input(image(fixture("images/apple.png")))];
    inputs.extend(WORDS.iter().map(|word| text_input(&format!("an emoji of {word}"))));
    let embedded = server.client.embed(embed_request(inputs)).await.unwrap().into_inner();
    let values: Vec<&[f32]> = embedded.results.iter().map(|result| &*embedding(result).values).collect();
    let model = server.client.get_model(clipd::grpc::proto::GetModelRequest {}).await.unwrap().into_inner();
    let logits: Vec<f32> = values[1..].iter().map(|text| model.logit_scale * dot(values[0], text)).collect();
    let sum: f32 = logits.iter().map(|logit| logit.exp()).sum();

    let classified = server.client.classify(request(&["apple"])).await.unwrap().into_inner();
    for prediction in predictions(&classified.results[0]) {
        let logit = logits[prediction.index as usize];
        assert!((prediction.score - logit.exp() / sum).abs() < 1e-4, "{prediction:?}");
        assert!((prediction.similarity - logit / model.logit_scale).abs() < 1e-4, "{prediction:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_label_set_costs_no_text_run() {
    let mut server = Server::start(&[]).await;
    let texts = async |server: &Server| {
        let scrape = Scrape::of(server.running.metrics_address).await;
        (
            scrape.value("clip_batch_rows_sum{modality=\"text\"}"),
            scrape.value("clip_label_cache_hits_total"),
            scrape.value("clip_label_cache_misses_total"),
        )
    };
    server.client.classify(request(&["cat"])).await.unwrap();
    assert_eq!(texts(&server).await, (8.0, 0.0, 8.0));
    server.client.classify(request(&["dog"])).await.unwrap();
    assert_eq!(texts(&server).await, (8.0, 8.0, 8.0), "the same label set");

    let mut overlapping = request(&["dog"]);
    overlapping.labels.push("banana".into());
    server.client.classify(overlapping).await.unwrap();
    assert_eq!(texts(&server).await, (9.0, 16.0, 9.0), "one label is new");
}

#[tokio::test(flavor = "multi_thread")]
async fn label_sets_that_arrive_together_are_embedded_once() {
    let (server, gate) = Server::gated(&["--max-batch-size=64"]).await;
    gate.close();
    let calls: Vec<_> = (0..4)
        .map(|seed| {
            let mut client = server.client.clone();
            let request = ClassifyRequest { images: vec![picture(seed)], ..request(&[]) };
            tokio::spawn(async move { client.classify(request).await })
        })
        .collect();
    gate.wait_started(1);
    gate.open_again();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let scrape = Scrape::of(server.running.metrics_address).await;
    assert_eq!(scrape.value("clip_label_cache_misses_total"), 8.0);
    assert_eq!(scrape.value("clip_batch_rows_sum{modality=\"text\"}"), 8.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_set_is_finished_though_its_client_has_gone() {
    let (server, gate) = Server::gated(&["--max-batch-size=4"]).await;
    gate.close();
    let mut client = server.client.clone();
    let cold = ClassifyRequest { images: vec![picture(0)], ..request(&[]) };
    let call = tokio::spawn({
        let cold = cold.clone();
        async move { client.classify(cold).await }
    });
    gate.wait_started(1);
    call.abort();
    gate.open_again();

    // The second client finds the label set embedded, or being embedded: never twice.
    server.client.clone().classify(cold).await.unwrap();
    let scrape = Scrape::of(server.running.metrics_address).await;
    assert_eq!(scrape.value("clip_batch_rows_sum{modality=\"text\"}"), 8.0);
}

/// 20,000 cold labels take longer than their client waits.
#[tokio::test(flavor = "multi_thread")]
async fn the_largest_label_set_is_embedded_once_though_its_first_client_gives_up() {
    let (server, gate) = Server::gated(&["--max-batch-size=1024", "--max-queue-size=8192"]).await;
    gate.close();
    let cold = ClassifyRequest {
        images: vec![picture(0)],
        labels: (0..20_000).map(|label| format!("label {label}").into()).collect(),
        top_k: 1,
        ..ClassifyRequest::default()
    };
    let mut client = server.client.clone();
    let late = client.classify(with_timeout(cold.clone(), Duration::from_millis(500))).await.unwrap_err();
    // The server's answer, or the client's own timer where that is faster.
    assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late}");
    gate.wait_started(1);
    gate.open_again();

    let answer = client.classify(cold.clone()).await.unwrap().into_inner();
    assert_eq!(predictions(&answer.results[0]).len(), 1);
    client.classify(cold).await.unwrap();
    let scrape = Scrape::of(server.running.metrics_address).await;
    assert_eq!(scrape.value("clip_batch_rows_sum{modality=\"text\"}"), 20_000.0);
    assert_eq!(scrape.value("clip_label_cache_hits_total"), 20_000.0, "the third call");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_label_set_counts_once_for_all_who_wait_for_it() {
    let (server, gate) = Server::gated(&["--max-prompts=50", "--max-templates=1"]).await;
    let labels: Vec<_> = (0..40).map(|label| format!("label {label}").into()).collect();
    let request = ClassifyRequest { images: vec![picture(0)], labels, ..ClassifyRequest::default() };
    gate.close();
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let (mut client, request) = (server.client.clone(), request.clone());
            tokio::spawn(async move { client.classify(request).await })
        })
        .collect();
    gate.wait_started(1);
    // Or until one is refused.
    let in_flight =
        async || Scrape::of(server.running.metrics_address).await.value("clip_requests_in_flight");
    while in_flight().await != 4.0 && !calls.iter().any(tokio::task::JoinHandle::is_finished) {
        tokio::task::yield_now().await;
    }
    gate.open_again();
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn label_sets_are_embedded_in_full_batches() {
    let config = config(&["--max-text-batch-size=8"]);
    let pace = Pace { per_batch: Duration::from_millis(5), per_row: Duration::from_micros(10) };
    let dim = Model::builtin(Form::PORTABLE).unwrap().spec.embed_dim;
    let engine = OpenEngine::new("cpu", move || Ok(SyntheticEngine::spinning(dim, Clock::start(), pace)));
    let mut server = Server::listen(&config, synthetic(vec![engine])).await;
    server.running.ready().await.unwrap();

    let labels = (0..50).map(|label| format!("label {}", 10 + label).into()).collect();
    let request = ClassifyRequest { images: vec![picture(0)], labels, ..ClassifyRequest::default() };
    server.client.classify(request).await.unwrap();
    let scrape = Scrape::of(server.running.metrics_address).await;
    assert_eq!(scrape.value("clip_batch_rows_sum{modality=\"text\"}"), 50.0);
    assert_eq!(scrape.value("clip_batch_rows_count{modality=\"text\"}"), 7.0, "six of eight, one of two");
}
