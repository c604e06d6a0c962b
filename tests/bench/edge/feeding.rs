//! What it takes to feed a fast device: rows per second of an engine that takes no time, and the server's CPU for them.

use std::time::Duration;

use clipd::grpc::proto::Image;
use clipd::grpc::proto::image::Source;
use clipd::grpc::proto::input::Content;

use crate::load::Load;
use crate::server::{Client, Server, embed, rgb};

/// Turns of all arms.
const ROUNDS: usize = 5;
const LOAD: Load = Load { callers: 64, span: Duration::from_millis(1000) };
/// The picture of ViT-B/16, in pixels.
const SIDE: u32 = 224;

pub(crate) fn rates() {
    println!("| message | connections | rows/s | CPU seconds of the server for 1,000 rows |");
    println!("|---|---|---|---|");
    // 500 x 375 pixels, 60 kB.
    let jpeg = include_bytes!("../../../src/bench/pictures/0.jpg");
    let jpeg = Image { source: Some(Source::Encoded(jpeg.as_slice().into())) };
    let messages = [
        ("raw RGB, 224 x 224", embed(Content::Image(rgb(SIDE, SIDE)))),
        ("JPEG, 500 x 375", embed(Content::Image(jpeg))),
        ("a text", embed(Content::Text("a photo of a small red dog on a beach".to_owned()))),
    ];
    let server = Server::synthetic_of(SIDE, &["--max-batch-size=64"]);
    for (name, request) in &messages {
        for connections in [1, 8] {
            let clients: Vec<Client> = (0..connections).map(|_| server.client()).collect();
            let mut measured: Vec<(f64, f64)> =
                (0..ROUNDS).map(|_| LOAD.run(&server, &clients, request)).collect();
            measured.sort_by(|a, b| a.1.total_cmp(&b.1));
            let (rate, cpu) = measured[ROUNDS / 2];
            println!("| {name} | {connections} | {rate:.0} | {:.3} |", cpu * 1e3);
        }
    }
}
