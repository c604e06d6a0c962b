//! Large messages of many clients on few connections.

use std::time::Duration;

use clipd::grpc::proto::Image;
use clipd::grpc::proto::image::Source;
use clipd::grpc::proto::input::Content;

use crate::load::Load;
use crate::server::{Client, Server, embed, rgb};

/// Turns of all arms.
const ROUNDS: usize = 7;
const LOAD: Load = Load { callers: 32, span: Duration::from_millis(700) };
const CONNECTIONS: usize = 2;

pub(crate) fn rates() {
    println!("| windows of a call, of a connection | message | calls/s | CPU of the server per call |");
    println!("|---|---|---|---|");
    // Refused by its first byte, so that what is measured is the way here.
    let refused = Image { source: Some(Source::Encoded(vec![0; 100_000].into())) };
    let messages = [
        ("raw RGB, 150 kB", embed(Content::Image(rgb(224, 224)))),
        ("encoded, 100 kB", embed(Content::Image(refused))),
        ("raw RGB, 6.3 MB", embed(Content::Image(rgb(1920, 1080)))),
    ];
    let settings: Vec<[String; 2]> =
        [(65_535, 65_535), (1 << 18, 1 << 20), (1 << 20, 1 << 21), (1 << 22, 1 << 23)]
            .into_iter()
            .map(|(stream, connection)| {
                [format!("--stream-window-bytes={stream}"), format!("--connection-window-bytes={connection}")]
            })
            .collect();
    let servers: Vec<(Server, Vec<Client>)> = settings
        .iter()
        .map(|flags| {
            let server = Server::synthetic(&flags.each_ref().map(String::as_str));
            let clients = (0..CONNECTIONS).map(|_| server.client()).collect();
            (server, clients)
        })
        .collect();
    for (name, request) in &messages {
        let mut measured = vec![Vec::new(); servers.len()];
        for _ in 0..ROUNDS {
            for ((server, clients), measured) in servers.iter().zip(&mut measured) {
                measured.push(LOAD.run(server, clients, request));
            }
        }
        for (flags, mut measured) in settings.iter().zip(measured) {
            measured.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (rate, cpu) = measured[ROUNDS / 2];
            println!("| {} | {name} | {rate:.0} | {:.3} ms |", flags.join(" "), cpu * 1e3);
        }
    }
}
