//! What a picture costs the server over each edge: its CPU for a JPEG of 500 x 375 pixels, beside what decoding and
//! resizing it take.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clipd::clip::image::{ImageLimits, ImagePreprocessor};
use clipd::clip::row::ImageRow;
use clipd::clock::Clock;
use clipd::grpc::proto::input::Content;
use clipd::grpc::proto::{EmbedRequest, EmbeddingFormat, Image, image::Source};
use clipd::model::Model;
use clipd::model::graph::Form;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::server::{Client, Server, cpu_of_others, embed};

/// Turns of all arms.
const ROUNDS: usize = 40;
/// Calls of one arm in a turn, one after the other.
const CALLS: u32 = 25;
/// The picture of ViT-B/16, in pixels.
const SIDE: u32 = 224;

enum Arm {
    Grpc(Client, EmbedRequest),
    Http(SendRequest<Full<Bytes>>, Bytes),
}

pub(crate) fn costs() {
    // 500 x 375 pixels, 60 kB.
    let jpeg: &[u8] = include_bytes!("../../../src/bench/pictures/0.jpg");
    let server = Server::synthetic_of(SIDE, &[]);
    let image = Image { source: Some(Source::Encoded(jpeg.into())) };
    let packed = EmbedRequest {
        embedding_format: EmbeddingFormat::Float32Bytes.into(),
        ..embed(Content::Image(image))
    };
    let json = |format: &str| {
        let picture = STANDARD.encode(jpeg);
        format!("{{\"input\":[{{\"image\":\"{picture}\"}}],\"encoding_format\":\"{format}\"}}")
    };
    let mut arms = [
        ("gRPC, numbers as bytes", Arm::Grpc(server.client(), packed)),
        ("HTTP, base64", Arm::Http(connect(&server), json("base64").into())),
        ("HTTP, float", Arm::Http(connect(&server), json("float").into())),
    ];
    let preprocessing = preprocessing(jpeg);
    let mut costs: Vec<Vec<Duration>> = arms.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for ((_, arm), costs) in arms.iter_mut().zip(&mut costs) {
            let cpu = cpu_of_others();
            (0..CALLS).for_each(|_| arm.call(&server));
            costs.push((cpu_of_others() - cpu) / CALLS);
        }
    }
    println!("Decoding and resizing take {preprocessing:.3} ms.\n");
    println!("| edge | CPU of the server | beyond preprocessing |");
    println!("|---|---|---|");
    for ((name, _), costs) in arms.iter().zip(&mut costs) {
        costs.sort_unstable();
        let cost = costs[ROUNDS / 2].as_secs_f64() * 1e3;
        println!("| {name} | {cost:.3} ms | {:.3} ms |", cost - preprocessing);
    }
}

fn connect(server: &Server) -> SendRequest<Full<Bytes>> {
    server.here.block_on(async {
        let stream = TcpStream::connect(server.http()).await.expect("the server listens");
        let (requests, connection) = http1::handshake(TokioIo::new(stream)).await.expect("it speaks HTTP");
        tokio::spawn(connection);
        requests
    })
}

impl Arm {
    fn call(&mut self, server: &Server) {
        match self {
            Arm::Grpc(client, request) => {
                let request = request.clone();
                server.here.block_on(client.embed(request)).expect("it is answered");
            }
            Arm::Http(requests, body) => {
                let request = Request::post("/v1/embeddings")
                    .header("host", "localhost")
                    .header("content-type", "application/json")
                    .body(Full::new(body.clone()))
                    .expect("it is a request");
                server.here.block_on(async {
                    let answer = requests.send_request(request).await.expect("it is answered");
                    assert_eq!(answer.status(), 200);
                    answer.into_body().collect().await.expect("all of it comes");
                });
            }
        }
    }
}

/// In milliseconds, on this thread alone; the median of many.
fn preprocessing(jpeg: &[u8]) -> f64 {
    let mut spec = Model::builtin(Form::PORTABLE).expect("it is embedded").spec.image;
    (spec.height, spec.width) = (SIDE, SIDE);
    let limits = ImageLimits { max_bytes: jpeg.len(), max_pixels: 1 << 20 };
    let preprocessor = ImagePreprocessor::new(spec, limits);
    let clock = Clock::start();
    let mut times: Vec<Duration> = (0..200)
        .map(|_| {
            let start = clock.now();
            let ImageRow(row) = preprocessor.encoded(jpeg).expect("it is a picture");
            std::hint::black_box(row);
            clock.now().since(start)
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}
