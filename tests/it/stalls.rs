//! Clients that hold on to something: nobody else suffers, and what they hold is given back.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use clipd::grpc::proto;
use futures_util::FutureExt;
use h2::client::{ResponseFuture, SendRequest};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::Code;

use crate::support::scrape::{Scrape, probe};
use crate::support::*;

const CLIP: &str = "/clip.v1.ClipService/";

/// Clocks that run out within a test.
const SHORT: [&str; 2] = ["--timeout=1s", "--answer-timeout=500ms"];

/// Clocks that run out within a test, but not before it has seen what they end, however busy the machine is.
const SEEN: [&str; 3] = ["--timeout=3s", "--answer-timeout=2s", "--max-stream-age=5s"];

/// A connection that opens so much of each stream's window and never more.
struct Stalled {
    requests: SendRequest<Bytes>,
    /// Ends with the connection.
    connection: JoinHandle<()>,
}

impl Stalled {
    async fn connect(address: SocketAddr, window: u32) -> Stalled {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut builder = h2::client::Builder::new();
        let (requests, connection) = builder.initial_window_size(window).handshake(stream).await.unwrap();
        // How it ends is the server's affair.
        let connection = tokio::spawn(async move { drop(connection.await) });
        Stalled { requests, connection }
    }

    /// Sends headers and these bytes, and leaves the body open unless it is at its `end`.
    async fn call(&self, path: &str, body: Vec<u8>, end: bool) -> (ResponseFuture, h2::SendStream<Bytes>) {
        let mut requests = self.requests.clone().ready().await.unwrap();
        let request = http::Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (response, mut sending) = requests.send_request(request, false).unwrap();
        sending.send_data(body.into(), end).unwrap();
        (response, sending)
    }
}

/// gRPC's frame around a message.
fn framed(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    framed
}

async fn until(server: &Server, sample: &str, value: f64) {
    Scrape::when(server.running.metrics_address, sample, |found| found == value).await;
}

async fn ended(server: &Server, port: &str, reason: &str) {
    let sample = format!("clip_connections_ended_total{{port=\"{port}\",reason=\"{reason}\"}}");
    until(server, &sample, 1.0).await;
}

/// Whether the server has closed it.
async fn closed(mut stream: TcpStream) -> bool {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.map_or_else(|_| true, |_| true)
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_takes_give_their_places_back() {
    let (server, _gate) = Server::gated(&[&SEEN[..], &["--max-concurrent-requests=2"]].concat()).await;
    let stalled = Stalled::connect(server.running.grpc_address, 0).await;
    let get_model = framed(&proto::GetModelRequest {});
    let mut calls = Vec::new();
    for _ in 0..2 {
        calls.push(stalled.call(&format!("{CLIP}GetModel"), get_model.clone(), true).await);
    }
    until(&server, "clip_requests_in_flight", 2.0).await;
    let status = server.client.clone().embed(one_image(1)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");

    until(&server, "clip_requests_in_flight", 0.0).await;
    server.client.clone().embed(one_image(1)).await.unwrap();
    let scrape = Scrape::of(server.running.metrics_address).await;
    assert_eq!(scrape.value("clip_expirations_total{stage=\"reply\"}"), 2.0);
    assert_eq!(scrape.value("clip_response_bytes_in_flight"), 0.0);
    ended(&server, "grpc", "answer").await;
    stalled.connection.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_taken_byte_by_byte_is_not_taken() {
    let (server, _gate) = Server::gated(&SHORT).await;
    let stalled = Stalled::connect(server.running.grpc_address, 1).await;
    let inputs = (0..200).map(|_| text_input("many numbers")).collect();
    let (response, _sending) =
        stalled.call(&format!("{CLIP}Embed"), framed(&embed_request(inputs)), true).await;
    let mut body = response.await.unwrap().into_body();
    // A byte for each look at the metrics.
    let (mut taken, metrics) = (0, server.running.metrics_address);
    while Scrape::of(metrics).await.value("clip_expirations_total{stage=\"reply\"}") == 0.0 {
        if let Some(Some(Ok(data))) = body.data().now_or_never() {
            taken += data.len();
            body.flow_control().release_capacity(data.len()).unwrap();
        }
    }
    assert!((1..10_000).contains(&taken), "{taken} bytes of 100 kB");
    until(&server, "clip_response_bytes_in_flight", 0.0).await;
    stalled.connection.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_whose_results_nobody_takes_give_their_places_back() {
    let (server, _gate) = Server::gated(&[&SEEN[..], &["--max-streams=1"]].concat()).await;
    let stalled = Stalled::connect(server.running.grpc_address, 0).await;
    let input = proto::StreamEmbedRequest { input: Some(text_input("a")), ..Default::default() };
    let (_response, _sending) = stalled.call(&format!("{CLIP}StreamEmbed"), framed(&input), false).await;
    until(&server, "clip_streams", 1.0).await;
    let status = server.client.clone().stream_embed(tokio_stream::empty()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    until(&server, "clip_streams", 0.0).await;
    server.client.clone().stream_embed(tokio_stream::empty()).await.unwrap();
    stalled.connection.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn others_on_the_connection_of_a_stalled_call_lose_nothing() {
    let (server, gate) = Server::gated(&["--timeout=20s", "--answer-timeout=1ms"]).await;
    gate.close();
    let stalled = Stalled::connect(server.running.grpc_address, 65_535).await;
    let (other, _sending) = stalled.call(&format!("{CLIP}Embed"), framed(&one_image(1)), true).await;
    gate.wait_started(1);
    // Of 131,072 numbers, 64 KiB are taken.
    let inputs = (0..200).map(|_| text_input("many numbers")).collect();
    let hurried = http::Request::post(format!("http://localhost{CLIP}Embed"))
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "300m")
        .body(())
        .unwrap();
    let mut requests = stalled.requests.clone().ready().await.unwrap();
    let (_response, mut sending) = requests.send_request(hurried, false).unwrap();
    gate.open_again();
    sending.send_data(framed(&embed_request(inputs)).into(), true).unwrap();
    ended(&server, "grpc", "answer").await;
    let mut answer = other.await.unwrap().into_body();
    while let Some(data) = answer.data().await {
        data.unwrap();
    }
    assert_eq!(answer.trailers().await.unwrap().unwrap().get("grpc-status").unwrap(), "0");
    stalled.connection.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_keep_nobody_out() {
    let (server, _gate) = Server::gated(&["--max-connections=3"]).await;
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(TcpStream::connect(server.running.grpc_address).await.unwrap());
    }
    connect(&server.running).embed(one_image(1)).await.unwrap();
    let metrics = server.running.metrics_address;
    let evicted =
        Scrape::of(metrics).await.sum("clip_connections_ended_total{port=\"grpc\",reason=\"full\"}");
    assert!(evicted >= 8.0, "{evicted}");
    let oldest = silent.remove(0);
    assert!(closed(oldest).await, "who has been silent for longest goes first");

    // The metrics port has its own bound.
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(metrics).await.unwrap());
    }
    assert_eq!(probe(metrics, "/readyz").await, "200 ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_request_ends() {
    let (server, _gate) = Server::gated(&["--first-request-timeout=50ms"]).await;
    let mut half = TcpStream::connect(server.running.grpc_address).await.unwrap();
    half.write_all(b"PRI * HTTP").await.unwrap();
    assert!(closed(half).await);
    ended(&server, "grpc", "first_request").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_call_ends_and_the_next_call_finds_another() {
    let (server, _gate) = Server::gated(&["--max-connection-idle=50ms"]).await;
    let mut client = connect(&server.running);
    client.embed(one_image(1)).await.unwrap();
    ended(&server, "grpc", "idle").await;
    client.embed(one_image(1)).await.unwrap();
}

/// Some proxies forget trailers that a reset follows: there is none while the client may still be sending.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_the_server_ends_has_its_trailers_and_no_reset_behind_them() {
    let (server, _gate) = Server::gated(&["--max-stream-age=50ms"]).await;
    let peer = Stalled::connect(server.running.grpc_address, 65_535).await;
    let input = proto::StreamEmbedRequest { input: Some(text_input("a")), ..Default::default() };
    let (response, mut sending) = peer.call(&format!("{CLIP}StreamEmbed"), framed(&input), false).await;
    let mut body = response.await.unwrap().into_body();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data.unwrap().len()).unwrap();
    }
    assert_eq!(body.trailers().await.unwrap().unwrap().get("grpc-status").unwrap(), "14");
    // Frames keep their order: what the server sent with the trailers is here when a later answer is.
    let get_model = framed(&proto::GetModelRequest {});
    let (later, _sending) = peer.call(&format!("{CLIP}GetModel"), get_model, true).await;
    later.await.unwrap();
    let reset = std::future::poll_fn(|context| sending.poll_reset(context)).now_or_never();
    assert!(reset.is_none(), "{reset:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_first_message_ends_with_its_age() {
    let (server, _gate) = Server::gated(&["--max-streams=1", "--max-stream-age=100ms"]).await;
    let responses = server.client.clone().stream_classify(tokio_stream::pending()).await.unwrap();
    let status = responses.into_inner().message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("age limit"), "{status}");
    until(&server, "clip_streams", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_would_be_too_large_is_refused_before_anything_is_computed() {
    let (server, _gate) = Server::gated(&["--max-response-bytes=100000"]).await;
    let request = proto::ClassifyRequest {
        images: (0..10).map(picture).collect(),
        labels: (0..5).map(|n| format!("{n}{}", "x".repeat(5000)).into()).collect(),
        templates: vec!["{}".to_owned()],
        ..Default::default()
    };
    let status = server.client.clone().classify(request.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(
        status.message().contains("250250 ") || status.message().contains("bytes of the answer"),
        "{status}"
    );
    assert!(status.message().contains("top_k"), "{status}");
    let scrape = Scrape::of(server.running.metrics_address).await;
    assert_eq!(scrape.jobs("completed"), 0.0);
    server.client.clone().classify(proto::ClassifyRequest { top_k: 1, ..request }).await.unwrap();

    let inputs = (0..200).map(|_| text_input("512 bytes each")).collect();
    let status = server.client.clone().embed(embed_request(inputs)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
}

/// More answers than the server holds: those that fit are held until their clocks end, and the others are refused.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_takes_are_held_up_to_their_limit() {
    let limits = ["--max-response-bytes=1000000", "--max-response-bytes-in-flight=2000000"];
    let (server, _gate) = Server::gated(&[&SHORT[..], &limits].concat()).await;
    let metrics = server.running.metrics_address;
    let request = proto::ClassifyRequest {
        images: (0..20).map(picture).collect(),
        labels: (0..5).map(|n| format!("{n}{}", "x".repeat(8000)).into()).collect(),
        templates: vec!["{}".to_owned()],
        ..Default::default()
    };
    let stalled = Stalled::connect(server.running.grpc_address, 0).await;
    let mut held = Vec::new();
    for _ in 0..12 {
        held.push(stalled.call(&format!("{CLIP}Classify"), framed(&request), true).await);
    }
    let bytes = "clip_response_bytes_in_flight";
    let mut most = 0.0_f64;
    loop {
        let scrape = Scrape::of(metrics).await;
        most = most.max(scrape.value(bytes));
        assert!(most <= 2_000_000.0, "{most}");
        let ended = scrape.value("clip_expirations_total{stage=\"reply\"}")
            + scrape.value("clip_rejections_total{reason=\"response_bytes_in_flight\"}");
        if ended >= 12.0 && scrape.value("clip_requests_in_flight") == 0.0 {
            break;
        }
    }
    // Two of 802 kB fit.
    assert!(most > 1_600_000.0, "{most}");
    assert_eq!(Scrape::of(metrics).await.value(bytes), 0.0);
    server.client.clone().embed(one_image(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_inputs_without_content_are_refused_before_they_are_decoded() {
    let (server, _gate) = Server::gated(&[]).await;
    let empty =
        proto::EmbedRequest { inputs: vec![proto::Input::default(); 1_000_000], ..Default::default() };
    let status = server.client.clone().embed(empty).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().starts_with("1000000 elements in 2000000 bytes"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_streams_keep_of_their_labels_has_a_limit() {
    let (server, _gate) = Server::gated(&["--label-cache-bytes=100000"]).await;
    let options = |seed: usize| {
        let labels = (0..100).map(|n| format!("label {seed} {n}").into()).collect();
        let options = proto::ClassifyOptions { labels, ..Default::default() };
        let request = proto::stream_classify_request::Request::Options(options);
        proto::StreamClassifyRequest { request: Some(request) }
    };
    let (sender, inbound) = tokio::sync::mpsc::channel(2);
    let inbound = tokio_stream::wrappers::ReceiverStream::new(inbound);
    sender.send(options(1)).await.unwrap();
    let image = proto::TaggedImage { tag: 1, image: Some(picture(1)), timeout: None };
    let image = proto::stream_classify_request::Request::Image(image);
    sender.send(proto::StreamClassifyRequest { request: Some(image) }).await.unwrap();
    let mut first = server.client.clone().stream_classify(inbound).await.unwrap().into_inner();
    assert_eq!(first.message().await.unwrap().unwrap().tag, 1);

    let second = server.client.clone().stream_classify(tokio_stream::iter([options(2)])).await.unwrap();
    let status = second.into_inner().message().await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("stream_labels"), "{status}");
    drop(sender);
    assert!(first.message().await.unwrap().is_none());
    until(&server, "clip_streams", 0.0).await;
    let third = server.client.clone().stream_classify(tokio_stream::iter([options(3)])).await.unwrap();
    assert!(third.into_inner().message().await.unwrap().is_none());
}

/// All of them at once, beside a client that goes on over its connection and over new ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_siege_ends_by_the_clocks() {
    let limits = ["--max-concurrent-requests=8", "--max-streams=4", "--max-connections=16"];
    let (server, _gate) = Server::gated(&[&SEEN[..], &limits].concat()).await;
    let address = server.running.grpc_address;
    let mut regular = connect(&server.running);
    regular.embed(one_image(0)).await.unwrap();

    let shut = Stalled::connect(address, 0).await;
    let mut held = Vec::new();
    for _ in 0..6 {
        let get_model = framed(&proto::GetModelRequest {});
        held.push(shut.call(&format!("{CLIP}GetModel"), get_model, true).await);
    }
    for _ in 0..4 {
        let input = proto::StreamEmbedRequest { input: Some(text_input("a")), ..Default::default() };
        held.push(shut.call(&format!("{CLIP}StreamEmbed"), framed(&input), false).await);
    }
    let slow = Stalled::connect(address, 65_535).await;
    for path in ["Embed", "Classify", "StreamClassify"] {
        held.push(slow.call(&format!("{CLIP}{path}"), vec![0, 0, 1, 0, 0, 1, 2, 3], false).await);
    }
    // All places of calls and of streams are theirs. Before that a connection would not be one with calls yet, and
    // would make room for the silent ones.
    until(&server, "clip_requests_in_flight", 12.0).await;
    let mut silent = Vec::new();
    for _ in 0..60 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let many = proto::EmbedRequest { inputs: vec![proto::Input::default(); 200_000], ..Default::default() };

    let (mut in_a_row, mut refused) = (0, 0);
    while in_a_row < 50 {
        let outcome = async {
            regular.embed(one_image(1)).await?;
            let mut newcomer = connect(&server.running);
            newcomer.embed(one_image(2)).await?;
            newcomer.stream_embed(tokio_stream::empty()).await.map(|_| ())
        };
        match outcome.await {
            Ok(()) => in_a_row += 1,
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "nobody is late or cut off: {status}");
                (in_a_row, refused) = (0, refused + 1);
            }
        }
        let crowd = regular.embed(many.clone()).await.unwrap_err();
        assert!([Code::InvalidArgument, Code::ResourceExhausted].contains(&crowd.code()), "{crowd}");
    }
    println!("{refused} times a place was taken by those who stall");
    assert!(refused > 0);
    let scrape = Scrape::quiet(server.running.metrics_address).await;
    assert!(scrape.value("clip_expirations_total{stage=\"reply\"}") >= 6.0, "every answer of a call");
    assert_eq!(scrape.value("clip_streams"), 0.0);
}

/// Each holds something when the server is to end: none of them is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_waits_for_none_of_them() {
    let flags = ["--shutdown-grace=60s", "--timeout=50s", "--answer-timeout=50s"];
    let (server, _gate) = Server::gated(&flags).await;
    let address = server.running.grpc_address;
    let silent = TcpStream::connect(address).await.unwrap();
    let scraper = TcpStream::connect(server.running.metrics_address).await.unwrap();
    let stalled = Stalled::connect(address, 0).await;
    let mut held = Vec::new();
    for path in [
        format!("{CLIP}StreamClassify"),
        format!("{CLIP}StreamEmbed"),
        format!("{CLIP}Embed"),
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo".to_owned(),
        "/grpc.health.v1.Health/Check".to_owned(),
    ] {
        // Half of a message.
        held.push(stalled.call(&path, vec![0, 0, 0, 0, 32, 1, 2, 3], false).await);
    }
    let get_model = framed(&proto::GetModelRequest {});
    held.push(stalled.call(&format!("{CLIP}GetModel"), get_model, true).await);
    until(&server, "clip_requests_in_flight", 4.0).await;

    let shutdown = server.running.shutdown();
    tokio::time::timeout(Duration::from_secs(10), shutdown).await.expect("well within the grace").unwrap();
    assert!(closed(silent).await && closed(scraper).await);
    stalled.connection.await.unwrap();
    drop(held);
}
