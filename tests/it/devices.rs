//! Several devices: who gets what, and what one that breaks takes with it.

use clipd::batcher::OpenEngine;
use clipd::engine::synthetic::{Gate, SyntheticEngine};
use clipd::grpc::proto::{EmbedRequest, EmbedResponse, GetModelRequest};
use clipd::model::Model;
use clipd::model::graph::Form;
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use crate::support::scrape::Scrape;
use crate::support::*;

/// Two devices with a worker each, batches of one row, and a gate for either.
async fn two_devices() -> (Server, [Gate; 2]) {
    let dim = Model::builtin(Form::PORTABLE).unwrap().spec.embed_dim;
    let gates = [Gate::open(), Gate::open()];
    let engine = |device: &'static str, gate: &Gate| {
        let gate = gate.clone();
        OpenEngine::new(device, move || Ok(SyntheticEngine::gated(dim, gate).on(device)))
    };
    let engines = vec![engine("cuda:0", &gates[0]), engine("cuda:1", &gates[1])];
    let config = config(&["--max-batch-size=1"]);
    let server = Server::listen(&config, synthetic(engines)).await;
    server.running.ready().await.unwrap();
    gates.iter().for_each(Gate::close);
    (server, gates)
}

fn call(server: &Server, request: EmbedRequest) -> JoinHandle<Result<EmbedResponse, Status>> {
    let mut client = server.client.clone();
    tokio::spawn(async move { client.embed(request).await.map(tonic::Response::into_inner) })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_device_gets_work() {
    let (mut server, gates) = two_devices().await;
    let model = server.client.get_model(GetModelRequest {}).await.unwrap().into_inner();
    assert_eq!(model.device, "cuda:0,cuda:1");
    let request = embed_request((0..4).map(|seed| image_input(picture(seed))).collect());
    let answer = call(&server, request);
    gates.iter().for_each(|gate| gate.wait_started(1));
    gates.iter().for_each(Gate::open_again);
    let answer = answer.await.unwrap().unwrap();
    answer.results.iter().for_each(|result| assert!(!embedding(result).values.is_empty()));
    let scrape = Scrape::of(server.running.metrics_address).await;
    for device in ["cuda:0", "cuda:1"] {
        let ran = format!("clip_inference_duration_seconds_count{{modality=\"image\",device=\"{device}\"");
        assert!(scrape.sum(&ran) >= 1.0, "{}", scrape.text);
    }
    let batches = "clip_inference_duration_seconds_count{modality=\"image\"";
    assert_eq!(scrape.sum(batches), 4.0, "{}", scrape.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_lost_in_a_batch_takes_only_itself_out() {
    let (mut server, [first, second]) = two_devices().await;
    first.panic_next();
    let lost = call(&server, one_image(1));
    first.wait_started(1);
    let other = call(&server, one_image(2));
    second.wait_started(1);
    first.open_again();
    let status = lost.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    second.open_again();
    other.await.unwrap().unwrap();

    server.client.embed(one_image(3)).await.unwrap();
    // The call is answered a moment before the loss is told.
    let lost = "clip_workers{device=\"cuda:0\",state=\"lost\"}";
    Scrape::when(server.running.metrics_address, lost, |value| value != 0.0).await;
    let model = server.client.get_model(GetModelRequest {}).await.unwrap().into_inner();
    assert_eq!(model.device, "cuda:1");
    let scrape = Scrape::of(server.running.metrics_address).await;
    assert_eq!(scrape.value("clip_workers{device=\"cuda:1\",state=\"ready\"}"), 1.0);

    second.panic_next();
    server.client.embed(one_image(4)).await.unwrap_err();
    assert!(server.running.failure().await.contains("panicked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_every_device() {
    let (server, gates) = two_devices().await;
    let calls = [call(&server, one_image(1)), call(&server, one_image(2))];
    gates.iter().for_each(|gate| gate.wait_started(1));
    let Server { running, client: _ } = server;
    let stopped = tokio::spawn(running.shutdown());
    gates.iter().for_each(Gate::open_again);
    for call in calls {
        call.await.unwrap().unwrap();
    }
    stopped.await.unwrap().unwrap();
}
