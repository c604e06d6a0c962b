//! Who goes first, and who is told at once that it is too late.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use clipd::batcher::OpenEngine;
use clipd::clock::Clock;
use clipd::engine::synthetic::{Pace, SyntheticEngine};
use clipd::grpc::proto::{self, EmbedRequest};
use clipd::model::Model;
use clipd::model::graph::Form;
use tonic::Code;

use crate::support::scrape::Scrape;
use crate::support::*;

/// Batches of one row.
const SINGLE: [&str; 1] = ["--max-batch-size=1"];

/// A server whose only worker needs 20 ms for a row.
pub(crate) async fn slow_server(flags: &[&str]) -> Server {
    let config = config(flags);
    let dim = Model::builtin(Form::PORTABLE).unwrap().spec.embed_dim;
    let pace = Pace { per_batch: Duration::ZERO, per_row: Duration::from_millis(20) };
    let engine = SyntheticEngine::spinning(dim, Clock::start(), pace);
    let open = OpenEngine::new("cpu", move || Ok(engine));
    let server = Server::listen(&config, synthetic(vec![open])).await;
    server.running.ready().await.unwrap();
    server
}

pub(crate) async fn queued(server: &Server, rows: f64) {
    while Scrape::of(server.running.metrics_address).await.value("clip_queue_rows{modality=\"image\"}") < rows
    {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_work_gives_way_whether_the_field_or_the_metadata_says_so() {
    let server = slow_server(&SINGLE).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let call = |name: &'static str, request: tonic::Request<EmbedRequest>| {
        let (mut client, order) = (server.client.clone(), order.clone());
        tokio::spawn(async move {
            client.embed(request).await.unwrap();
            order.lock().unwrap().push(name);
        })
    };
    // Ten rows keep the worker busy for 200 ms.
    let first = call("first", tonic::Request::new(embed_request(vec![image_input(picture(0)); 10])));
    queued(&server, 8.0).await;
    let field = EmbedRequest { class: proto::Class::Bulk.into(), ..one_image(1) };
    let mut metadata = tonic::Request::new(one_image(2));
    metadata.metadata_mut().insert("clip-class", "bulk".parse().unwrap());
    let bulk = [call("field", tonic::Request::new(field)), call("metadata", metadata)];
    queued(&server, 9.0).await;
    let interactive = call("interactive", tonic::Request::new(one_image(3)));
    for call in [first, interactive].into_iter().chain(bulk) {
        call.await.unwrap();
    }
    let order = order.lock().unwrap().clone();
    let place = |name| order.iter().position(|each| *each == name).unwrap();
    assert!(place("interactive") < place("field").min(place("metadata")), "{order:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_class_is_refused_by_name() {
    let server = slow_server(&SINGLE).await;
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
    let server = slow_server(&SINGLE).await;
    let mut client = server.client.clone();
    let long = tokio::spawn(async move {
        client.embed(embed_request(vec![image_input(picture(0)); 30])).await.map(|_| ())
    });
    queued(&server, 25.0).await;
    // Some 500 ms wait, and a picture that cannot be decoded shows that nobody tried.
    let hopeless = embed_request(vec![image_input(image(b"nonsense".to_vec()))]);
    let status =
        server.client.clone().embed(with_timeout(hopeless, Duration::from_millis(200))).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("deadline"), "{status}");
    let hint = status.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap();
    assert!(hint.parse::<u64>().unwrap() >= 50, "{hint}");
    long.await.unwrap().unwrap();
    let scrape = Scrape::quiet(server.running.metrics_address).await;
    assert_eq!(scrape.value("clip_rejections_total{reason=\"deadline\"}"), 1.0);
    assert_eq!(scrape.jobs("completed"), 30.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn get_model_and_metrics_show_what_batches_take() {
    let server = slow_server(&["--max-batch-size=2"]).await;
    let model = server.client.clone().get_model(proto::GetModelRequest {}).await.unwrap().into_inner();
    let image = |rows: u32| {
        let cost = model.batch_costs.iter().find(|cost| cost.modality == "image" && cost.rows == rows);
        Duration::try_from(cost.unwrap().duration.unwrap()).unwrap()
    };
    assert!(image(1) >= Duration::from_millis(20) && image(2) >= Duration::from_millis(40));
    assert!(model.batch_costs.iter().any(|cost| cost.modality == "text" && cost.tokens > 0));
    let scrape = Scrape::of(server.running.metrics_address).await;
    let name =
        "clip_predicted_batch_duration_seconds{device=\"cpu\",modality=\"image\",rows=\"2\",tokens=\"0\"}";
    assert!(scrape.value(name) >= 0.04, "{}", scrape.value(name));
}
