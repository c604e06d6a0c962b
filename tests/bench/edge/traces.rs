//! What tracing costs: the latency of a small call without it, with it for none of the calls, and for all of them.

use std::time::Duration;

use clipd::clock::Clock;
use clipd::grpc::proto::input::Content;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::server::{Client, Server, embed, picture};

/// Turns of all arms.
const ROUNDS: usize = 100;
/// Calls of one arm in a turn, one after the other.
const CALLS: u32 = 50;

struct Arm {
    name: &'static str,
    server: Server,
    client: Client,
    latencies: Vec<Duration>,
}

pub(crate) fn costs() {
    let (_threads, endpoint) = collector();
    let arms: [(&str, &[&str]); 4] = [
        ("off", &[]),
        ("off, again", &[]),
        ("on, no call sampled", &[&endpoint, "--trace-sample=0"]),
        ("on, every call sampled", &[&endpoint, "--trace-sample=1"]),
    ];
    let mut arms = arms.map(|(name, flags)| {
        let server = Server::synthetic(flags);
        let client = server.client();
        Arm { name, server, client, latencies: Vec::new() }
    });
    for round in 0..ROUNDS {
        // Whoever comes first in a turn is another one each time.
        for arm in 0..arms.len() {
            let arm = (round + arm) % arms.len();
            arms[arm].turn();
        }
    }
    println!("| tracing | latency |");
    println!("|---|---|");
    for Arm { name, latencies, .. } in &mut arms {
        println!("| {name} | {:.1} µs |", median(latencies));
    }
}

impl Arm {
    fn turn(&mut self) {
        let clock = Clock::start();
        for _ in 0..CALLS {
            let request = embed(Content::Image(picture()));
            let start = clock.now();
            self.server.here.block_on(self.client.embed(request)).expect("it is answered");
            self.latencies.push(clock.now().since(start));
        }
    }
}

/// In microseconds.
fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

/// Takes what it is sent and forgets it.
struct Sink;

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        _spans: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// What runs it, and the flag of a server that sends spans there.
fn collector() -> (Runtime, String) {
    let threads = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads start");
    let listener = threads.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port is free");
    let address = listener.local_addr().expect("it has one");
    let serving = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(Sink))
        .serve_with_incoming(TcpListenerStream::new(listener));
    threads.spawn(serving);
    (threads, format!("--otlp-endpoint=http://{address}"))
}
