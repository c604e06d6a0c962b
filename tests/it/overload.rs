//! Too much work, too little time, and clients that leave: refused, dropped or cancelled, never lost.

use std::time::Duration;

use clipd::grpc::proto;
use tonic::{Code, Status};

use crate::support::scrape::Scrape;
use crate::support::*;

/// Room for one running and two waiting rows.
const TINY: [&str; 3] = ["--max-batch-size=1", "--max-queue-size=2", "--max-inputs=2"];

/// Starts a call that embeds one image.
fn call(server: &Server, seed: u8) -> tokio::task::JoinHandle<Result<(), Status>> {
    let mut client = server.client.clone();
    tokio::spawn(async move { client.embed(one_image(seed)).await.map(|_| ()) })
}

fn pushback(status: &Status) -> u64 {
    status.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_at_once_and_the_admitted_are_answered() {
    let (server, gate) = Server::gated(&TINY).await;
    gate.close();
    let running = call(&server, 1);
    gate.wait_started(1);
    let waiting = [call(&server, 2), call(&server, 3)];
    queued(&server, 2.0).await;

    let status = server.client.clone().embed(one_image(4)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("queue_full"), "{status}");
    assert!(pushback(&status) > 0);

    gate.open_again();
    running.await.unwrap().unwrap();
    for call in waiting {
        call.await.unwrap().unwrap();
    }
    let scrape = Scrape::of(server.running.metrics_address).await;
    assert_eq!(scrape.jobs("completed"), 3.0);
    assert_eq!(scrape.value("clip_rejections_total{reason=\"queue_full\"}"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_admitted_whole_or_not_at_all() {
    let (server, gate) = Server::gated(&TINY).await;
    gate.close();
    let running = call(&server, 1);
    gate.wait_started(1);
    let waiting = call(&server, 2);
    queued(&server, 1.0).await;
    let two = embed_request(vec![image_input(picture(3)), image_input(picture(4))]);
    let status = server.client.clone().embed(two).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    gate.open_again();
    running.await.unwrap().unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(Scrape::of(server.running.metrics_address).await.jobs("completed"), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_in_flight_are_limited_before_the_body_is_read() {
    let (server, gate) = Server::gated(&["--max-concurrent-requests=1"]).await;
    gate.close();
    let running = call(&server, 1);
    gate.wait_started(1);
    let status = server.client.clone().embed(one_image(2)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("concurrent_requests"), "{status}");
    assert!(pushback(&status) > 0);
    gate.open_again();
    running.await.unwrap().unwrap();
    server.client.clone().embed(one_image(3)).await.unwrap();
    let scrape = Scrape::quiet(server.running.metrics_address).await;
    assert_eq!(scrape.value("clip_rejections_total{reason=\"concurrent_requests\"}"), 1.0);
    assert_eq!(scrape.value("clip_requests_total{method=\"Embed\",code=\"RESOURCE_EXHAUSTED\"}"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_in_flight_are_limited_while_the_body_is_read() {
    let limits = ["--max-message-bytes=100000", "--max-request-bytes-in-flight=150000"];
    let (server, gate) = Server::gated(&limits).await;
    let big = |seed: u8| embed_request(vec![image_input(rgb(150, 200, vec![seed; 90_000]))]);
    gate.close();
    let mut client = server.client.clone();
    let running = tokio::spawn(async move { client.embed(big(1)).await });
    gate.wait_started(1);
    let status = server.client.clone().embed(big(2)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("bytes_in_flight"), "{status}");
    gate.open_again();
    running.await.unwrap().unwrap();
    server.client.clone().embed(big(3)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_call_is_answered_in_time_and_costs_no_compute() {
    let (server, gate) = Server::gated(&TINY).await;
    gate.close();
    let running = call(&server, 1);
    gate.wait_started(1);
    let short = with_timeout(one_image(2), Duration::from_secs(1));
    let status = server.client.clone().embed(short).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "ours, before the client's own timer: {status}");
    gate.open_again();
    running.await.unwrap().unwrap();
    server.client.clone().embed(one_image(3)).await.unwrap();
    let scrape = Scrape::quiet(server.running.metrics_address).await;
    assert_eq!(scrape.jobs("expired"), 1.0);
    assert_eq!(scrape.jobs("completed"), 2.0);
    assert_eq!(scrape.value("clip_batch_rows_sum{modality=\"image\"}"), 2.0, "it never ran");
    assert_eq!(scrape.value("clip_requests_total{method=\"Embed\",code=\"DEADLINE_EXCEEDED\"}"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_batch_does_not_keep_an_expired_call_waiting() {
    let (server, gate) = Server::gated(&["--timeout=1s"]).await;
    gate.close();
    let status = server.client.clone().embed(one_image(2)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    gate.open_again();
    server.client.clone().embed(one_image(3)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_timeout_holds_for_calls_without_one() {
    let (server, gate) = Server::gated(&["--timeout=100ms"]).await;
    gate.close();
    let status = server.client.clone().embed(one_image(1)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    gate.open_again();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_frees_its_place() {
    let (server, gate) = Server::gated(&TINY).await;
    gate.close();
    let running = call(&server, 1);
    gate.wait_started(1);
    let leaving = [call(&server, 2), call(&server, 3)];
    queued(&server, 2.0).await;
    for call in leaving {
        call.abort();
    }
    queued(&server, 0.0).await;
    let staying = call(&server, 4);
    gate.open_again();
    running.await.unwrap().unwrap();
    staying.await.unwrap().unwrap();
    let scrape = Scrape::quiet(server.running.metrics_address).await;
    assert_eq!(scrape.jobs("cancelled"), 2.0);
    assert_eq!(scrape.jobs("completed"), 2.0);
    assert_eq!(scrape.value("clip_requests_total{method=\"Embed\",code=\"CANCELLED\"}"), 2.0);
    assert_eq!(scrape.value("clip_requests_in_flight"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_batch_is_an_internal_error_without_the_cause_and_the_worker_goes_on() {
    let (server, gate) = Server::gated(&[]).await;
    gate.fail_next();
    let status = server.client.clone().embed(one_image(1)).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status}");
    assert!(!status.message().contains("gate"), "the cause is for the log: {status}");
    server.client.clone().embed(one_image(2)).await.unwrap();
    let scrape = Scrape::of(server.running.metrics_address).await;
    assert_eq!((scrape.jobs("failed"), scrape.jobs("completed")), (1.0, 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_arrive_during_a_batch_run_together() {
    let (server, gate) = Server::gated(&["--max-batch-size=8"]).await;
    gate.close();
    let first = call(&server, 0);
    gate.wait_started(1);
    let calls: Vec<_> = (1..=6).map(|seed| call(&server, seed)).collect();
    queued(&server, 6.0).await;
    gate.open_again();
    first.await.unwrap().unwrap();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let scrape = Scrape::of(server.running.metrics_address).await;
    assert_eq!(scrape.value("clip_batch_rows_count{modality=\"image\"}"), 2.0, "one alone, six together");
    assert_eq!(scrape.value("clip_batch_rows_sum{modality=\"image\"}"), 7.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stalls_in_its_request_loses_its_place_at_the_deadline() {
    let (server, _gate) = Server::gated(&["--timeout=100ms", "--max-concurrent-requests=1"]).await;
    let mut client = tonic::client::Grpc::new(channel(&server.running));
    client.ready().await.unwrap();
    // Headers, and then nothing: as a client-streaming call, whose first message never comes.
    let request = tonic::Request::new(tokio_stream::pending::<proto::EmbedRequest>());
    let path = "/clip.v1.ClipService/Embed".parse().unwrap();
    let codec = tonic_prost::ProstCodec::<proto::EmbedRequest, proto::EmbedResponse>::default();
    let status = client.client_streaming(request, path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("did not arrive"), "{status}");
    server.client.clone().embed(one_image(1)).await.unwrap();
}
