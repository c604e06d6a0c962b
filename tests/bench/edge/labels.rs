//! What Classify with cached labels adds to Embed of the same picture.

use std::time::Duration;

use clipd::clock::Clock;
use clipd::grpc::proto::ClassifyRequest;
use clipd::grpc::proto::input::Content;
use prost::Message;

use crate::server::{self, Client, Server, cpu_of_others, embed, picture};

/// Turns of all arms.
const ROUNDS: usize = 40;
/// Calls of one arm in a turn, one after the other.
const CALLS: u32 = 20;

/// One way to call, with what its calls took.
struct Arm {
    name: String,
    labels: usize,
    call: Call,
    latencies: Vec<Duration>,
    cpu: Vec<Duration>,
    encoding: Duration,
}

enum Call {
    Embed,
    Classify(ClassifyRequest),
}

pub(crate) fn added() {
    let server = Server::synthetic(&[]);
    let client = server.client();
    let mut arms = vec![Arm::new("Embed".to_owned(), 0, Call::Embed)];
    for (labels, images) in [(1_000, 1), (20_000, 1), (20_000, 16)] {
        let request = ClassifyRequest {
            images: vec![picture(); images],
            labels: server::labels(labels),
            top_k: 5,
            ..ClassifyRequest::default()
        };
        let name = format!("Classify, {labels} labels, images: {images}");
        arms.push(Arm::new(name, labels, Call::Classify(request)));
    }
    for arm in &mut arms {
        // The first call embeds the labels.
        arm.turn(&server, &client, 2);
        (arm.latencies, arm.cpu) = (Vec::new(), Vec::new());
    }
    for _ in 0..ROUNDS {
        for arm in &mut arms {
            arm.turn(&server, &client, CALLS);
        }
    }
    report(&mut arms);
}

impl Arm {
    fn new(name: String, labels: usize, call: Call) -> Arm {
        let clock = Clock::start();
        if let Call::Classify(request) = &call {
            std::hint::black_box(request.clone().encode_to_vec());
        }
        let encoding = clock.now().since(Default::default());
        Arm { name, labels, call, latencies: Vec::new(), cpu: Vec::new(), encoding }
    }

    fn turn(&mut self, server: &Server, client: &Client, calls: u32) {
        let (clock, mut client) = (Clock::start(), client.clone());
        let cpu = cpu_of_others();
        for _ in 0..calls {
            // Requests are made before the time begins.
            let elapsed = match &self.call {
                Call::Embed => {
                    let request = embed(Content::Image(picture()));
                    let start = clock.now();
                    server.here.block_on(client.embed(request)).expect("it is answered");
                    clock.now().since(start)
                }
                Call::Classify(request) => {
                    let request = request.clone();
                    let start = clock.now();
                    server.here.block_on(client.classify(request)).expect("it is answered");
                    clock.now().since(start)
                }
            };
            self.latencies.push(elapsed);
        }
        self.cpu.push((cpu_of_others() - cpu) / calls);
    }
}

fn report(arms: &mut [Arm]) {
    println!(
        "| call | latency | CPU of the server | added per 1,000 labels: latency, CPU | encoding in the client |"
    );
    println!("|---|---|---|---|---|");
    let mut base = None;
    for arm in arms {
        let (latency, cpu) = (median(&mut arm.latencies), median(&mut arm.cpu));
        let (base_latency, base_cpu) = *base.get_or_insert((latency, cpu));
        let added = |more: f64, base: f64| match arm.labels {
            0 => "-".to_owned(),
            labels => format!("{:.3} ms", (more - base) * 1e3 / labels as f64),
        };
        println!(
            "| {} | {latency:.3} ms | {cpu:.3} ms | {}, {} | {:.3} ms |",
            arm.name,
            added(latency, base_latency),
            added(cpu, base_cpu),
            arm.encoding.as_secs_f64() * 1e3,
        );
    }
}

/// In milliseconds.
fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}
