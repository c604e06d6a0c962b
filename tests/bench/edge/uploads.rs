//! Large messages of many clients on few connections.

use std::time::Duration;

use clipd::clock::Clock;
use clipd::grpc::proto::EmbedRequest;
use clipd::grpc::proto::Image;
use clipd::grpc::proto::image::Source;
use clipd::grpc::proto::input::Content;

use crate::server::{Client, Server, cpu_of_others, embed, rgb};

/// Turns of all arms.
const ROUNDS: usize = 7;
const SPAN: Duration = Duration::from_millis(700);
/// Calls in flight, on all connections together.
const CALLERS: usize = 32;
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
                measured.push(load(server, clients, request));
            }
        }
        for (flags, mut measured) in settings.iter().zip(measured) {
            measured.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (rate, cpu) = measured[ROUNDS / 2];
            println!("| {} | {name} | {rate:.0} | {:.3} ms |", flags.join(" "), cpu * 1e3);
        }
    }
}

/// Calls per second in a closed loop, and CPU seconds of the server for each.
fn load(server: &Server, clients: &[Client], request: &EmbedRequest) -> (f64, f64) {
    let (clock, cpu) = (Clock::start(), cpu_of_others());
    let calls = server.here.block_on(async {
        let callers = (0..CALLERS).map(|caller| {
            let mut client = clients[caller % clients.len()].clone();
            async move {
                let mut calls = 0;
                while clock.now().since(Default::default()) < SPAN {
                    client.embed(request.clone()).await.expect("it is answered");
                    calls += 1;
                }
                calls
            }
        });
        futures_util::future::join_all(callers).await.into_iter().sum::<i32>()
    });
    let elapsed = clock.now().since(Default::default());
    (f64::from(calls) / elapsed.as_secs_f64(), (cpu_of_others() - cpu).as_secs_f64() / f64::from(calls))
}
