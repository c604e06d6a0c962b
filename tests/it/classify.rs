//! Classify: predictions and the label cache.

use clipd::grpc::proto::ClassifyRequest;

use crate::support::scrape::Scrape;
use crate::support::*;

const WORDS: [&str; 8] = ["dog", "cat", "pizza", "car", "guitar", "airplane", "umbrella", "apple"];

fn request(images: &[&str]) -> ClassifyRequest {
    ClassifyRequest {
        images: images.iter().map(|name| image(fixture(&format!("images/{name}.png")))).collect(),
        labels: WORDS.map(str::to_owned).to_vec(),
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
    overlapping.labels.push("banana".to_owned());
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
