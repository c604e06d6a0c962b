//! Requests that are compressed with gzip: the ordinary ones, and those that are made to harm.
//!
//! They are put together here byte by byte, since no library sends the latter.

use std::future::poll_fn;
use std::io::Write;

use bytes::{BufMut, Bytes};
use clipd::grpc::proto;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use prost::Message;
use tonic::body::Body;
use tonic::{Code, Status};
use tower_service::Service;

use crate::support::scrape::Scrape;
use crate::support::*;

const EMBED: &str = "/clip.v1.ClipService/Embed";

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// A message as it is on the wire.
fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let mut frame = vec![flag];
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.extend(message);
    frame
}

fn compressed(message: &impl Message) -> Vec<u8> {
    framed(1, &gzip(&message.encode_to_vec()))
}

/// Sends a body in pieces, and returns the messages of the answer.
async fn send<R: Message + Default>(
    server: &Server,
    path: &str,
    encoding: &str,
    pieces: Vec<Vec<u8>>,
) -> Result<Vec<R>, Status> {
    let frames = pieces.into_iter().map(|piece| Ok::<_, Status>(Frame::data(Bytes::from(piece))));
    let request = Request::post(format!("http://{}{path}", server.running.grpc_address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-encoding", encoding)
        .body(Body::new(StreamBody::new(tokio_stream::iter(frames))))
        .unwrap();
    let mut channel = channel(&server.running);
    poll_fn(|context| channel.poll_ready(context)).await.unwrap();
    let (head, body) = channel.call(request).await.unwrap().into_parts();
    assert!(head.headers.get("grpc-encoding").is_none(), "answers are not compressed");
    if let Some(status) = Status::from_header_map(&head.headers) {
        return Err(status);
    }
    let answer = body.collect().await.unwrap();
    let status = Status::from_header_map(answer.trailers().unwrap()).unwrap();
    if status.code() != Code::Ok {
        return Err(status);
    }
    let (mut bytes, mut messages) = (answer.to_bytes(), Vec::new());
    while !bytes.is_empty() {
        let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
        messages.push(R::decode(bytes.split_to(5 + length).slice(5..)).unwrap());
    }
    Ok(messages)
}

async fn embed(server: &Server, body: Vec<u8>) -> Result<proto::EmbedResponse, Status> {
    Ok(send(server, EMBED, "gzip", vec![body]).await?.remove(0))
}

#[track_caller]
fn refused<R: std::fmt::Debug>(answer: Result<R, Status>, code: Code, says: &str) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(says), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_compressed_is_answered_as_what_is_not() {
    let mut server = Server::start(&[]).await;
    let request = embed_request(vec![text_input("a cat"), image_input(image(fixture("images/cat.png")))]);
    let plain = server.client.embed(request.clone()).await.unwrap().into_inner().results;
    assert_eq!(embed(&server, compressed(&request)).await.unwrap().results, plain);
    // The encoding is allowed for the call; each message has a flag of its own.
    assert_eq!(embed(&server, framed(0, &request.encode_to_vec())).await.unwrap().results, plain);

    // Of several pieces of half a megabyte.
    let pixels: Vec<u8> = (0..1_800_000_u32).map(|n| (n / 7) as u8).collect();
    let large = embed_request(vec![image_input(rgb(1000, 600, pixels))]);
    let plain = server.client.embed(large.clone()).await.unwrap().into_inner().results;
    assert_eq!(embed(&server, compressed(&large)).await.unwrap().results, plain);

    let model = send::<proto::GetModelResponse>(
        &server,
        "/clip.v1.ClipService/GetModel",
        "gzip",
        vec![framed(1, &gzip(b""))],
    );
    assert_eq!(model.await.unwrap()[0].name, "emoji-clip");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_stream_are_compressed_or_not_and_cut_anywhere() {
    let (server, _gate) = Server::gated(&[]).await;
    let mut body = Vec::new();
    for tag in 0..6 {
        let request =
            proto::StreamEmbedRequest { tag, input: Some(text_input("a dog")), ..Default::default() };
        body.extend(if tag % 3 == 0 { framed(0, &request.encode_to_vec()) } else { compressed(&request) });
    }
    for size in [1, 7, body.len()] {
        let pieces = body.chunks(size).map(<[u8]>::to_vec).collect();
        let path = "/clip.v1.ClipService/StreamEmbed";
        let answers = send::<proto::StreamEmbedResponse>(&server, path, "gzip", pieces).await.unwrap();
        let mut tags: Vec<u64> = answers.iter().map(|answer| answer.tag).collect();
        tags.sort_unstable();
        assert_eq!(tags, [0, 1, 2, 3, 4, 5]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_takes_it_too_for_clients_that_compress_all_they_send() {
    let (server, _gate) = Server::gated(&[]).await;
    let check = tonic_health::pb::HealthCheckRequest { service: "clip.v1.ClipService".to_owned() };
    let path = "/grpc.health.v1.Health/Check";
    let health =
        send::<tonic_health::pb::HealthCheckResponse>(&server, path, "gzip", vec![compressed(&check)]).await;
    assert_eq!(health.unwrap()[0].status, tonic_health::ServingStatus::Serving as i32);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_messages_is_that_of_their_content() {
    let (server, _gate) = Server::gated(&["--max-message-bytes=100000"]).await;
    let fits = embed_request(vec![text_input(&"a ".repeat(4000)); 12]);
    assert!(fits.encoded_len() < 100_000);
    assert_eq!(embed(&server, compressed(&fits)).await.unwrap().results.len(), 12);
    let too_large = embed_request(vec![text_input(&"a ".repeat(4000)); 13]);
    let sent = compressed(&too_large);
    assert!(sent.len() < 1000);
    refused(embed(&server, sent).await, Code::OutOfRange, "the limit is 100000 bytes");
    // Larger on the wire already, and larger than it says it becomes.
    refused(
        embed(&server, framed(1, &vec![0; 100_001])).await,
        Code::OutOfRange,
        "the limit is 100000 bytes",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_is_refused_before_it_is_inflated() {
    let (server, _gate) = Server::gated(&[]).await;
    let bomb = compressed(&embed_request(vec![image_input(image(vec![0; 64 << 20]))]));
    assert!(bomb.len() < 100_000);
    refused(embed(&server, bomb.clone()).await, Code::OutOfRange, "the limit is 16777216 bytes");
    let path = "/clip.v1.ClipService/StreamEmbed";
    let stream = send::<proto::StreamEmbedResponse>(&server, path, "gzip", vec![bomb.clone()]).await;
    refused(stream, Code::OutOfRange, "the limit is 16777216 bytes");

    // One that says less than it has is inflated so far and no further.
    let mut liar = bomb;
    let length = liar.len();
    liar[length - 4..].copy_from_slice(&1000_u32.to_le_bytes());
    refused(embed(&server, liar).await, Code::InvalidArgument, "longer than it says");
    assert_eq!(embed(&server, compressed(&one_image(1))).await.unwrap().results.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_counts_as_bytes_in_flight() {
    let (server, gate) =
        Server::gated(&["--max-request-bytes-in-flight=100000", "--max-message-bytes=100000"]).await;
    let request = embed_request(vec![text_input(&"a ".repeat(4000)); 8]);
    let (content, sent) = (request.encoded_len(), compressed(&request));
    gate.close();
    let held = embed(&server, sent.clone());
    let others = async {
        // The five bytes of the header are of the wire.
        let (metrics, all) = (server.running.metrics_address, (content + 5) as f64);
        Scrape::when(metrics, "clip_request_bytes_in_flight", |held| held == all).await;
        refused(embed(&server, sent.clone()).await, Code::ResourceExhausted, "bytes_in_flight");
        gate.open_again();
    };
    let (answer, ()) = tokio::join!(held, others);
    assert_eq!(answer.unwrap().results.len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn elements_are_counted_when_it_is_inflated() {
    let (server, _gate) = Server::gated(&[]).await;
    let empty = embed_request(vec![proto::Input::default(); 1_000_000]);
    refused(
        embed(&server, compressed(&empty)).await,
        Code::InvalidArgument,
        "1000000 elements in 2000000 bytes",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_gzip_is_refused() {
    let (server, _gate) = Server::gated(&[]).await;
    let good = gzip(&one_image(1).encode_to_vec());
    let changed = |place: usize| {
        let mut bad = good.clone();
        bad[place] ^= 1;
        framed(1, &bad)
    };
    let checksum = good.len() - 8;
    let trailing = [&good[..good.len() - 8], b"rest", &good[good.len() - 8..]].concat();
    let cut_off = framed(1, &good)[..good.len()].to_vec();
    for body in [
        framed(1, b""),
        framed(1, b"no gzip at all\0\0\0"),
        changed(0),
        changed(checksum),
        framed(1, &trailing),
        cut_off,
    ] {
        refused(embed(&server, body).await, Code::InvalidArgument, "not as gzip has it");
    }
    let other = send::<proto::EmbedResponse>(&server, EMBED, "deflate", vec![framed(1, &good)]).await;
    refused(other, Code::Unimplemented, "deflate");
}
