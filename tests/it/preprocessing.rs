//! Pictures in line for a thread: who waits for whom, and who is told at once that it is too late.

use std::time::Duration;

use clipd::grpc::proto::{self, EmbedRequest};
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use crate::support::scrape::Scrape;
use crate::support::*;

const ONE_THREAD: [&str; 1] = ["--preprocess-threads=1"];

/// A request for a picture of 9 million pixels and a few bytes, which takes at least some milliseconds.
fn large() -> EmbedRequest {
    square(3000)
}

fn square(side: u32) -> EmbedRequest {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side, side);
    encoder.set_color(png::ColorType::Rgb);
    let pixels = vec![7; (side * side * 3) as usize];
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    embed_request(vec![image_input(image(bytes))])
}

fn call(server: &Server, request: impl tonic::IntoRequest<EmbedRequest>) -> JoinHandle<Result<(), Status>> {
    let (mut client, request) = (server.client.clone(), request.into_request());
    tokio::spawn(async move { client.embed(request).await.map(|_| ()) })
}

async fn scrape(server: &Server) -> Scrape {
    Scrape::of(server.running.metrics_address).await
}

/// Images that wait or are being prepared.
const IN_LINE: &str = "clip_preprocess_queue_rows";

async fn in_line(server: &Server) -> f64 {
    scrape(server).await.value(IN_LINE)
}

/// Puts large pictures in line on the only thread.
async fn busy(server: &Server, request: &EmbedRequest) -> Vec<JoinHandle<Result<(), Status>>> {
    let calls: Vec<_> = (0..40).map(|_| call(server, request.clone())).collect();
    Scrape::when(server.running.metrics_address, IN_LINE, |images| images >= 30.0).await;
    calls
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_decoded_too_late_is_refused_and_the_rest_is_not_decoded_in_vain() {
    let (server, _gate) = Server::gated(&ONE_THREAD).await;
    let request = square(6000);
    let timeout = Duration::from_secs(2);
    let calls: Vec<_> = (0..200).map(|_| call(&server, with_timeout(request.clone(), timeout))).collect();
    let (mut answered, mut refused) = (0.0, 0);
    for call in calls {
        match call.await.unwrap() {
            Ok(()) => answered += 1.0,
            Err(status) if status.code() == Code::ResourceExhausted => refused += 1,
            // Or the client has given up by itself, a little later.
            Err(status) => {
                assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status}");
            }
        }
    }
    assert!(refused > 50, "the engine is idle, but the line is long: {refused} refused");
    let scrape = Scrape::quiet(server.running.metrics_address).await;
    assert_eq!(scrape.value("clip_rejections_total{reason=\"deadline\"}"), f64::from(refused));
    let decoded = scrape.value("clip_preprocess_duration_seconds_count{modality=\"image\"}");
    assert!(decoded <= answered + 20.0, "{decoded} decoded, {answered} answered");
    assert!(
        scrape.value("clip_preprocess_queue_duration_seconds_sum{modality=\"image\"}") > 0.0,
        "the metric tells of it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_and_what_needs_no_preparation_do_not_stand_behind_pictures() {
    let (mut server, _gate) = Server::gated(&ONE_THREAD).await;
    let model = server.client.get_model(proto::GetModelRequest {}).await.unwrap().into_inner();
    let (width, height) = (model.image_width, model.image_height);
    let calls = busy(&server, &large()).await;
    let ready = rgb(width, height, vec![1; (width * height * 3) as usize]);
    let brief = embed_request(vec![text_input("a cat"), image_input(ready)]);
    server.client.embed(with_timeout(brief, Duration::from_secs(20))).await.unwrap();
    assert!(in_line(&server).await > 0.0);
    calls.iter().for_each(JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_of_bulk_work_give_way() {
    let (mut server, _gate) = Server::gated(&ONE_THREAD).await;
    let bulk = EmbedRequest { class: proto::Class::Bulk.into(), ..large() };
    let calls = busy(&server, &bulk).await;
    server.client.embed(one_image(1)).await.unwrap();
    assert!(in_line(&server).await > 0.0);
    calls.iter().for_each(JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_the_line_is_not_decoded() {
    let (mut server, _gate) = Server::gated(&ONE_THREAD).await;
    let calls = busy(&server, &large()).await;
    calls.iter().for_each(JoinHandle::abort);
    Scrape::when(server.running.metrics_address, IN_LINE, |images| images == 0.0).await;
    server.client.embed(one_image(1)).await.unwrap();
    let decoded = scrape(&server).await.value("clip_preprocess_duration_seconds_count{modality=\"image\"}");
    assert!(decoded < 40.0, "{decoded}");
}
