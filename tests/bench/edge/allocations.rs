//! How often the server allocates memory for one call, and how much.

use alloc_tracker::Session;
use clipd::grpc::proto::image::Source;
use clipd::grpc::proto::input::Content;
use clipd::grpc::proto::{ClassifyRequest, Image};

use crate::server::{self, Server, embed, picture, rgb};

/// Counted calls, after as many that are not.
const CALLS: u64 = 200;

/// 500 x 375, of 47 kB.
const PICTURE: &[u8] = include_bytes!("../../../src/bench/pictures/0.jpg");

pub(crate) fn per_call() {
    println!("| call | allocations of the server | kB |");
    println!("|---|---|---|");
    let server = Server::synthetic(&[]);
    let client = server.client();
    let jpeg = Image { source: Some(Source::Encoded(PICTURE.into())) };
    let embeds = [
        ("Embed, raw RGB of 64 x 64", embed(Content::Image(picture()))),
        ("Embed, raw RGB of 500 x 375", embed(Content::Image(rgb(500, 375)))),
        ("Embed, JPEG of 500 x 375", embed(Content::Image(jpeg))),
        ("Embed, text", embed(Content::Text("a small brown dog on a wet meadow".to_owned()))),
    ];
    for (name, request) in embeds {
        row(name, || {
            let mut client = client.clone();
            server.here.block_on(client.embed(request.clone())).expect("it is answered");
        });
    }
    for labels in [10, 1_000, 20_000] {
        let request = ClassifyRequest {
            images: vec![picture()],
            labels: server::labels(labels),
            top_k: 5,
            ..ClassifyRequest::default()
        };
        row(&format!("Classify, {labels} cached labels, the best five"), || {
            let mut client = client.clone();
            server.here.block_on(client.classify(request.clone())).expect("it is answered");
        });
    }
}

/// The whole process without the thread that calls.
fn row(name: &str, call: impl Fn()) {
    (0..CALLS).for_each(|_| call());
    let session = Session::new().no_stdout().no_file();
    let (all, client) = (session.operation("all"), session.operation("client"));
    {
        let _all = all.measure_process().iterations(CALLS);
        let _client = client.measure_thread().iterations(CALLS);
        (0..CALLS).for_each(|_| call());
    }
    let report = session.to_report();
    let of = |operation: &str| {
        let (_, found) = report.operations().find(|(name, _)| *name == operation).expect("it was measured");
        (found.allocations().unwrap_or_default(), found.bytes().unwrap_or_default())
    };
    let ((all, all_bytes), (client, client_bytes)) = (of("all"), of("client"));
    println!("| {name} | {:.0} | {:.1} |", all - client, (all_bytes - client_bytes) / 1e3);
}
