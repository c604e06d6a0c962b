//! Who goes first, and who is told at once that it is too late.

use std::time::Duration;

use clipd::batcher::OpenEngine;
use clipd::engine::synthetic::{Gate, Pace, SyntheticEngine};
use clipd::grpc::proto::{self, EmbedRequest};
use clipd::model::Model;
use clipd::model::graph::Form;
use tokio::task::JoinHandle;
use tonic::Code;

use crate::support::scrape::Scrape;
use crate::support::*;

/// Batches of one row.
const SINGLE: [&str; 1] = ["--max-batch-size=1"];

/// A server whose only worker is said to need 100 ms for a row, and is held by a gate.
pub(crate) async fn slow_server(flags: &[&str]) -> (Server, Gate) {
    let config = config(flags);
    let dim = Model::builtin(Form::PORTABLE).unwrap().spec.embed_dim;
    let pace = Pace { per_batch: Duration::ZERO, per_row: Duration::from_millis(100) };
    let gate = Gate::open();
    let engine = SyntheticEngine::gated(dim, gate.clone()).paced(pace);
    let open = OpenEngine::new("cpu", move || Ok(engine));
    let server = Server::listen(&config, synthetic(vec![open])).await;
    server.running.ready().await.unwrap();
    (server, gate)
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_work_gives_way_whether_the_field_or_the_metadata_says_so() {
    let (server, gate) = slow_server(&SINGLE).await;
    let call = |request: tonic::Request<EmbedRequest>| {
        let mut client = server.client.clone();
        tokio::spawn(async move { client.embed(request).await.map(|_| ()) })
    };
    gate.close();
    let first = call(tonic::Request::new(one_image(0)));
    gate.wait_started(1);
    let field = EmbedRequest { class: proto::Class::Bulk.into(), ..one_image(1) };
    let mut metadata = tonic::Request::new(one_image(2));
    metadata.metadata_mut().insert("clip-class", "bulk".parse().unwrap());
    let bulk = [call(tonic::Request::new(field)), call(metadata)];
    queued(&server, 2.0).await;
    let interactive = call(tonic::Request::new(one_image(3)));
    queued(&server, 3.0).await;
    // Whichever is next: the others stay where they are.
    gate.let_pass(2);
    first.await.unwrap().unwrap();
    interactive.await.unwrap().unwrap();
    assert!(!bulk.iter().any(JoinHandle::is_finished));
    gate.open_again();
    for call in bulk {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_class_is_refused_by_name() {
    let (server, _gate) = slow_server(&SINGLE).await;
    let mut request = tonic::Request::new(one_image(1));
    request.metadata_mut().insert("clip-class", "urgent".parse().unwrap());
    let status = server.client.clone().embed(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("metadata clip-class: must be interactive or bulk"), "{status}");
    let request = EmbedRequest { class: 9, ..one_image(1) };
    let status = server.client.clone().embed(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("class"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_late_is_refused_with_a_hint_and_costs_nothing() {
    let (server, gate) = slow_server(&SINGLE).await;
    gate.close();
    let mut client = server.client.clone();
    let long = tokio::spawn(async move {
        client.embed(embed_request(vec![image_input(picture(0)); 30])).await.map(|_| ())
    });
    queued(&server, 29.0).await;
    // Some three seconds wait, and a picture that cannot be decoded shows that nobody tried.
    let hopeless = embed_request(vec![image_input(image(b"nonsense".to_vec()))]);
    let status =
        server.client.clone().embed(with_timeout(hopeless, Duration::from_secs(2))).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("deadline"), "{status}");
    let hint = status.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap();
    assert!(hint.parse::<u64>().unwrap() >= 50, "{hint}");
    gate.open_again();
    long.await.unwrap().unwrap();
    let scrape = Scrape::quiet(server.running.metrics_address).await;
    assert_eq!(scrape.value("clip_rejections_total{reason=\"deadline\"}"), 1.0);
    assert_eq!(scrape.jobs("completed"), 30.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn get_model_and_metrics_show_what_batches_take() {
    let (server, _gate) = slow_server(&["--max-batch-size=2"]).await;
    let model = server.client.clone().get_model(proto::GetModelRequest {}).await.unwrap().into_inner();
    let image = |rows: u32| {
        let cost = model.batch_costs.iter().find(|cost| cost.modality == "image" && cost.rows == rows);
        Duration::try_from(cost.unwrap().duration.unwrap()).unwrap()
    };
    assert!(image(1) >= Duration::from_millis(100) && image(2) >= Duration::from_millis(200));
    assert!(model.batch_costs.iter().any(|cost| cost.modality == "text" && cost.tokens > 0));
    let scrape = Scrape::of(server.running.metrics_address).await;
    let name =
        "clip_predicted_batch_duration_seconds{device=\"cpu\",modality=\"image\",rows=\"2\",tokens=\"0\"}";
    assert!(scrape.value(name) >= 0.2, "{}", scrape.value(name));
}
