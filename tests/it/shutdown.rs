//! The end of a server under load: every accepted call is answered, nothing holds it up.

use tonic::{Code, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::support::scrape::Scrape;
use crate::support::*;

async fn watch_until_serving(server: &Server) -> Streaming<HealthCheckResponse> {
    let request = HealthCheckRequest { service: String::new() };
    let mut watch = HealthClient::new(channel(&server.running)).watch(request).await.unwrap().into_inner();
    while watch.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
    watch
}

#[tokio::test(flavor = "multi_thread")]
async fn every_accepted_call_is_answered_and_a_watch_does_not_hold_it_up() {
    let (server, gate) = Server::gated(&["--max-batch-size=2"]).await;
    let mut watch = watch_until_serving(&server).await;

    gate.close();
    let calls: Vec<_> = (0..7)
        .map(|seed| {
            let mut client = server.client.clone();
            tokio::spawn(async move { client.embed(one_image(seed)).await })
        })
        .collect();
    gate.wait_started(1);
    let queue = "clip_queue_rows{modality=\"image\"}";
    let metrics = server.running.metrics_address;
    // The running batch took one or two of the seven; the rest must be queued before the signal.
    Scrape::when(metrics, queue, |rows| rows + gate.held_rows() as f64 == 7.0).await;
    let mut client = server.client;
    let shutdown = tokio::spawn(server.running.shutdown());
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(watch.message().await.unwrap().is_none(), "the watch ends");
    assert!(!shutdown.is_finished(), "calls are in flight");

    gate.open_again();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    shutdown.await.unwrap().unwrap();
    let status = client.embed(one_image(0)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_still_answers_while_it_leaves() {
    let (server, gate) = Server::gated(&["--drain-delay=200ms"]).await;
    let mut watch = watch_until_serving(&server).await;
    gate.close();
    let mut client = server.client;
    let shutdown = tokio::spawn(server.running.shutdown());
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    // Not ready any more, and yet this call is accepted: load balancers need time to notice.
    let call = tokio::spawn(async move { client.embed(one_image(1)).await });
    gate.wait_started(1);
    gate.open_again();
    call.await.unwrap().unwrap();
    shutdown.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_never_ends_does_not_outlive_the_grace_period() {
    let (server, gate) = Server::gated(&["--shutdown-grace=100ms"]).await;
    gate.close();
    let mut client = server.client.clone();
    let call = tokio::spawn(async move { client.embed(one_image(1)).await });
    gate.wait_started(1);
    let error = server.running.shutdown().await.unwrap_err();
    assert_eq!(error.to_string(), "after 100ms 1 calls were cut off");
    gate.open_again();
    call.abort();
}
