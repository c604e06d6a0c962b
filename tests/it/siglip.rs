//! Models trained with a sigmoid: scores by scale and bias, each by itself, over gRPC and HTTP.

use clipd::grpc::proto::rank_item::Content;
use clipd::grpc::proto::{ClassifyRequest, GetModelRequest, RankItem, RankRequest, ScoreFunction};
use serde_json::json;

use crate::support::post::{get, post};
use crate::support::*;

fn model(name: &str) -> String {
    format!("--model={}", fixtures().join("golden").join(name).display())
}

fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

#[tokio::test(flavor = "multi_thread")]
async fn scores_are_the_sigmoid_of_scale_and_bias() {
    for name in ["siglip-patch8", "siglip-timm"] {
        let mut server = Server::start(&[&model(name)]).await;
        let model = server.client.get_model(GetModelRequest {}).await.unwrap().into_inner();
        assert_eq!(model.score_function(), ScoreFunction::Sigmoid);
        assert_eq!((model.logit_bias, model.context_length), (-12.5, 16));
        assert!((model.logit_scale - 4.7_f32.exp()).abs() < 1e-3);
        assert_eq!(model.modalities, ["image", "text"]);
        let texts = model.batch_costs.iter().filter(|cost| cost.modality == "text");
        assert!(texts.clone().count() > 0 && texts.clone().all(|cost| cost.tokens == 16), "rows are full");

        let score = |similarity: f32| sigmoid(model.logit_scale * similarity + model.logit_bias);
        let pictures = vec![picture(1), picture(200)];
        let labels = ["a dog", "two cats", "bread"].map(str::to_owned).to_vec();
        let request = ClassifyRequest {
            images: pictures.clone(),
            labels: labels.iter().map(|label| label.clone().into()).collect(),
            templates: vec!["{}".to_owned()],
            ..ClassifyRequest::default()
        };
        let classified = server.client.classify(request).await.unwrap().into_inner();
        let mut similarities = Vec::new();
        for result in &classified.results {
            for prediction in predictions(result) {
                let expected = score(prediction.similarity);
                assert!((prediction.score - expected).abs() <= 1e-5 * expected.max(1e-3), "{prediction:?}");
                similarities.push((prediction.label.clone(), prediction.similarity, prediction.score));
            }
        }

        let item = |content| RankItem { content: Some(content) };
        let request = RankRequest {
            query: Some(item(Content::Image(pictures[0].clone()))),
            documents: labels.iter().map(|label| item(Content::Text(label.clone()))).collect(),
            ..RankRequest::default()
        };
        let ranked = server.client.rank(request).await.unwrap().into_inner();
        for (ranked, (label, similarity, score)) in ranked.results.iter().zip(&similarities) {
            assert_eq!(labels[ranked.index as usize], *label);
            assert!((ranked.similarity - similarity).abs() < 1e-5);
            assert!((ranked.score.unwrap() - score).abs() < 1e-4 * score.max(1e-3), "{ranked:?}");
        }

        let body = json!({"query": "a dog", "documents": ["a dog", "bread"]});
        let best = &post(&server, "/v1/rerank", &body).await.ok()["results"][0];
        let expected = f64::from(score(1.0));
        assert!((best["relevance_score"].as_f64().unwrap() - 1.0).abs() < 1e-5, "{best}");
        assert!((best["score"].as_f64().unwrap() - expected).abs() < 1e-4, "{best}");
        let card = &get(&server, "/v1/models").await.ok()["data"][0];
        assert_eq!((&card["score_function"], &card["logit_bias"]), (&json!("sigmoid"), &json!(-12.5)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clip_ranks_without_probabilities() {
    let server = Server::start(&[]).await;
    let body = json!({"query": "a dog", "documents": ["a dog"]});
    assert!(post(&server, "/v1/rerank", &body).await.ok()["results"][0].get("score").is_none());
    let card = &get(&server, "/v1/models").await.ok()["data"][0];
    assert_eq!(
        (&card["score_function"], &card["modalities"]),
        (&json!("softmax"), &json!(["image", "text"]))
    );
}
