//! What Kubernetes sees.

use clipd::app;
use clipd::batcher::OpenEngine;
use clipd::engine::EngineError;
use clipd::engine::synthetic::Gate;
use clipd::engine::synthetic::SyntheticEngine;
use tonic::{Code, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::support::*;

const CLIP: &str = "clip.v1.ClipService";

async fn watch(server: &Server, service: &str) -> Streaming<HealthCheckResponse> {
    let request = HealthCheckRequest { service: service.to_owned() };
    HealthClient::new(channel(&server.running).await).watch(request).await.unwrap().into_inner()
}

/// The health service hears of a ready worker a moment after `Running::ready`.
async fn until_serving(stream: &mut Streaming<HealthCheckResponse>) {
    while next(stream).await != ServingStatus::Serving {}
}

async fn next(stream: &mut Streaming<HealthCheckResponse>) -> ServingStatus {
    stream.message().await.unwrap().expect("the watch goes on").status()
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_when_every_worker_is_warm_and_calls_before_that_are_unavailable() {
    let gate = Gate::open();
    gate.close();
    let mut server = Server::cold(&["--workers-per-device=2"], &gate).await;
    let mut ready = watch(&server, "").await;
    let mut clip = watch(&server, CLIP).await;
    let mut live = watch(&server, "live").await;
    assert_eq!(next(&mut ready).await, ServingStatus::NotServing);
    assert_eq!(next(&mut clip).await, ServingStatus::NotServing);
    assert_eq!(next(&mut live).await, ServingStatus::Serving, "a pod that warms up must not be killed");

    let status = server.client.embed(one_image(0)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("starting"), "{status}");
    let status = server.client.get_model(clipd::grpc::proto::GetModelRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");

    gate.open_again();
    assert_eq!(next(&mut ready).await, ServingStatus::Serving);
    assert_eq!(next(&mut clip).await, ServingStatus::Serving);
    server.client.embed(one_image(0)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_worker_of_two_leaves_the_server_ready() {
    let (mut server, gate) = Server::gated(&["--workers-per-device=2"]).await;
    let mut ready = watch(&server, "").await;
    until_serving(&mut ready).await;
    gate.panic_next();
    let status = server.client.embed(one_image(0)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    server.client.embed(one_image(1)).await.unwrap();
    // The jobs of a lost worker are answered before the scheduler hears of it.
    let workers = async |state: &str| {
        let scrape = scrape::Scrape::of(server.running.metrics_address).await;
        scrape.value(&format!("clip_workers{{device=\"cpu\",state=\"{state}\"}}"))
    };
    while workers("lost").await == 0.0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((workers("lost").await, workers("ready").await), (1.0, 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_lost_worker_ends_readiness_liveness_and_the_server() {
    let (mut server, gate) = Server::gated(&[]).await;
    let mut ready = watch(&server, "").await;
    let mut live = watch(&server, "live").await;
    until_serving(&mut ready).await;
    assert_eq!(next(&mut live).await, ServingStatus::Serving);
    gate.panic_next();
    let status = server.client.embed(one_image(0)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(next(&mut ready).await, ServingStatus::NotServing);
    assert_eq!(next(&mut live).await, ServingStatus::NotServing);
    assert!(server.running.all_lost().await.contains("panicked"));
    let status = server.client.embed(one_image(0)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_cannot_open_says_why() {
    let open = || Err::<SyntheticEngine, _>(EngineError::Device("no such device".to_owned()));
    let broken = OpenEngine::new("cpu", open);
    let running = app::start(&config(&[]), synthetic(vec![broken])).unwrap();
    assert_eq!(running.ready().await.unwrap_err(), "no such device");
    assert_eq!(running.all_lost().await, "no such device");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_service_is_not_found() {
    let (server, _gate) = Server::gated(&[]).await;
    let request = HealthCheckRequest { service: "nobody".to_owned() };
    let status = HealthClient::new(channel(&server.running).await).check(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_the_services() {
    let (server, _gate) = Server::gated(&[]).await;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(channel(&server.running).await);
    let mut answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let answer: ServerReflectionResponse = answers.message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}")
    };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    assert!(names.iter().any(|name| name == CLIP), "{names:?}");
    assert!(names.iter().any(|name| name == "grpc.health.v1.Health"), "{names:?}");
}
