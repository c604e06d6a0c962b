//! What Kubernetes sees.

use std::io::{ErrorKind, Read, Write};

use clipd::app;
use clipd::app::ports::Ports;
use clipd::batcher::OpenEngine;
use clipd::engine::EngineError;
use clipd::engine::synthetic::Gate;
use clipd::engine::synthetic::SyntheticEngine;
use tokio::net::{TcpListener, TcpStream};
use tonic::{Code, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::support::scrape::{Scrape, probe};
use crate::support::*;

const CLIP: &str = "clip.v1.ClipService";

async fn watch(server: &Server, service: &str) -> Streaming<HealthCheckResponse> {
    let request = HealthCheckRequest { service: service.to_owned() };
    HealthClient::new(channel(&server.running)).watch(request).await.unwrap().into_inner()
}

/// The health service hears of a ready worker a moment after `Running::ready`.
async fn until_serving(stream: &mut Streaming<HealthCheckResponse>) {
    while next(stream).await != ServingStatus::Serving {}
}

async fn next(stream: &mut Streaming<HealthCheckResponse>) -> ServingStatus {
    stream.message().await.unwrap().expect("the watch goes on").status()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_opens_when_every_worker_is_warm_and_refuses_connections_before_that() {
    let gate = Gate::open();
    gate.close();
    let mut server = Server::cold(&["--workers-per-device=2"], &gate).await;
    let metrics = server.running.metrics_address;
    assert_eq!(probe(metrics, "/readyz").await, "503 starting");
    assert_eq!(probe(metrics, "/livez").await, "200 alive", "a pod that warms up must not be killed");
    assert_eq!(Scrape::of(metrics).await.value("clip_ready"), 0.0);
    let refused = TcpStream::connect(server.running.grpc_address).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let status = server.client.embed(one_image(0)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");

    gate.open_again();
    server.running.ready().await.unwrap();
    assert_eq!(probe(metrics, "/readyz").await, "200 ready");
    assert_eq!(Scrape::of(metrics).await.value("clip_ready"), 1.0);
    for service in ["", CLIP, "live"] {
        // From the first moment: whoever is let in finds it serving.
        assert_eq!(next(&mut watch(&server, service).await).await, ServingStatus::Serving, "{service}");
    }
    server.client.embed(one_image(0)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn before_there_is_a_model_the_ports_are_taken_and_the_probes_answer() {
    let ports = Ports::open(&config(&[])).unwrap();
    assert_eq!(probe(ports.metrics_address(), "/readyz").await, "503 starting");
    assert_eq!(probe(ports.metrics_address(), "/livez").await, "200 alive");

    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for flag in ["--listen", "--metrics-listen"] {
        let address = format!("{flag}={}", taken.local_addr().unwrap());
        let error = Ports::open(&config(&[&address])).err().unwrap().to_string();
        assert!(error.contains(flag) && error.contains("in use"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_start_on_one_port_the_first_that_is_warm_has_it() {
    let gates = [Gate::open(), Gate::open()];
    gates.iter().for_each(Gate::close);
    let first = Server::cold(&[], &gates[0]).await;
    let address = format!("--listen={}", first.running.grpc_address);
    let second = Server::cold(&[&address], &gates[1]).await;
    gates[1].open_again();
    second.running.ready().await.unwrap();
    gates[0].open_again();
    let failure = first.running.ready().await.unwrap_err();
    assert!(failure.contains("cannot listen on 127.0.0.1"), "{failure}");
    assert_eq!(first.running.failure().await, failure);
    assert!(first.running.shutdown().await.unwrap_err().to_string().contains("cannot listen"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_leaves_is_alive_and_not_ready() {
    let (server, gate) = Server::gated(&[]).await;
    let metrics = server.running.metrics_address;
    gate.close();
    let mut client = server.client.clone();
    let call = tokio::spawn(async move { client.embed(one_image(1)).await });
    gate.wait_started(1);
    let shutdown = tokio::spawn(server.running.shutdown());
    while probe(metrics, "/readyz").await != "503 draining" {
        tokio::task::yield_now().await;
    }
    assert_eq!(probe(metrics, "/livez").await, "200 alive", "a pod that drains must not be killed");
    let scrape = Scrape::of(metrics).await;
    assert_eq!((scrape.value("clip_ready"), scrape.value("clip_draining")), (0.0, 1.0));
    gate.open_again();
    call.await.unwrap().unwrap();
    shutdown.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_told_to_end_while_it_starts_never_listens() {
    let gate = Gate::open();
    gate.close();
    let server = Server::cold(&[], &gate).await;
    let address = server.running.grpc_address;
    let shutdown = tokio::spawn(server.running.shutdown());
    gate.open_again();
    shutdown.await.unwrap().unwrap();
    assert_eq!(TcpStream::connect(address).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

/// On one thread, so that the test can keep the server from running.
#[tokio::test]
async fn a_server_whose_threads_are_stuck_is_not_alive() {
    let ports = Ports::open(&config(&[])).unwrap();
    let mut stream = std::net::TcpStream::connect(ports.metrics_address()).unwrap();
    stream.write_all(scrape::request("/livez").as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 503") && response.ends_with("stuck"), "{response}");
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
        let scrape = Scrape::of(server.running.metrics_address).await;
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
    for path in ["/readyz", "/livez"] {
        assert_eq!(probe(server.running.metrics_address, path).await, "503 every worker is lost");
    }
    assert!(server.running.failure().await.contains("panicked"));
    let status = server.client.embed(one_image(0)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_cannot_open_says_why() {
    let open = || Err::<SyntheticEngine, _>(EngineError::Device("no such device".to_owned()));
    let broken = OpenEngine::new("cpu", open);
    let config = config(&[]);
    let running = app::start(&config, Ports::open(&config).unwrap(), synthetic(vec![broken])).unwrap();
    assert_eq!(running.ready().await.unwrap_err(), "no such device");
    assert_eq!(running.failure().await, "no such device");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_service_is_not_found() {
    let (server, _gate) = Server::gated(&[]).await;
    let request = HealthCheckRequest { service: "nobody".to_owned() };
    let status = HealthClient::new(channel(&server.running)).check(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_the_services() {
    let (server, _gate) = Server::gated(&[]).await;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(channel(&server.running));
    let mut answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let answer: ServerReflectionResponse = answers.message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}")
    };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    assert!(names.iter().any(|name| name == CLIP), "{names:?}");
    assert!(names.iter().any(|name| name == "grpc.health.v1.Health"), "{names:?}");
}
