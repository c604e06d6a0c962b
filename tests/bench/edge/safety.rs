//! What keys and TLS cost a call: CPU of the server, and time from call to answer, one call after the other. And
//! whether the time that a wrong key takes tells how much of it is right.

use std::time::Duration;

use clipd::auth::file::{self, NewKey};
use clipd::auth::{Keys, PREFIX};
use clipd::clock::Clock;
use clipd::grpc::proto::input::Content;
use clipd::grpc::proto::{EmbedRequest, Image, image::Source};
use clipd::telemetry::metrics::Metrics;
use http::{HeaderMap, HeaderName};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;
use tonic::Request;
use tonic::transport::{Certificate, ClientTlsConfig};

use crate::server::{Client, Server, cpu_of_others, embed};

/// Turns of all arms.
const ROUNDS: usize = 40;
/// Calls of one arm in a turn.
const CALLS: u32 = 50;

struct Arm {
    name: &'static str,
    server: Server,
    client: Client,
    /// `authorization`.
    key: Option<String>,
}

/// Medians.
struct Cost {
    cpu: Duration,
    time: Duration,
}

pub(crate) fn costs() {
    let folder = tempfile::tempdir().expect("there is room for files");
    let arms = [
        arm("neither", &folder, false, false),
        arm("keys", &folder, true, false),
        arm("TLS", &folder, false, true),
        arm("keys and TLS", &folder, true, true),
    ];
    // 500 x 375 pixels, 60 kB.
    let jpeg: &[u8] = include_bytes!("../../../src/bench/pictures/0.jpg");
    let image = Image { source: Some(Source::Encoded(jpeg.into())) };
    let inputs = [("a text", Content::Text("a cat".to_owned())), ("a JPEG of 60 kB", Content::Image(image))];
    wrong_keys(&folder);
    println!("| call with | | CPU of the server | against neither | time | against neither |");
    println!("|---|---|---|---|---|---|");
    for (input, content) in inputs {
        let costs = measured(&arms, &embed(content));
        for (Arm { name, .. }, Cost { cpu, time }) in arms.iter().zip(&costs) {
            let ratio = |one: Duration, other: Duration| one.as_secs_f64() / other.as_secs_f64();
            println!(
                "| {input} | {name} | {:.1} µs | {:.3} | {:.1} µs | {:.3} |",
                cpu.as_secs_f64() * 1e6,
                ratio(*cpu, costs[0].cpu),
                time.as_secs_f64() * 1e6,
                ratio(*time, costs[0].time),
            );
        }
    }
}

/// Keys that share so many digits with one that there is; the last is that one.
fn wrong_keys(folder: &TempDir) {
    const DIGITS: [usize; 5] = [0, 16, 32, 63, 64];
    const LOOKS: usize = 100_000;
    let path = folder.path().join("looked-up.toml");
    let secret = file::add(&path, &NewKey { name: "bench", ..NewKey::default() }).expect("it is written");
    let secret = secret.expect("it has one");
    let text = std::fs::read_to_string(&path).expect("it was written");
    let clock = Clock::start();
    let keys = Keys::parse(&text, clock, &Metrics::new()).expect("it is a file of keys");
    let headers = DIGITS.map(|digits| {
        let (right, wrong) = secret.split_at(PREFIX.len() + digits);
        // Every digit is another one.
        let wrong: String = wrong.chars().map(|digit| if digit == '0' { '1' } else { '0' }).collect();
        HeaderMap::from_iter([(
            HeaderName::from_static("x-api-key"),
            format!("{right}{wrong}").parse().expect("digits"),
        )])
    });
    let mut times = DIGITS.map(|_| Vec::with_capacity(LOOKS));
    for _ in 0..LOOKS {
        for (headers, times) in headers.iter().zip(&mut times) {
            let start = clock.now();
            std::hint::black_box(keys.identify(headers, &[]).is_ok());
            times.push(clock.now().since(start));
        }
    }
    println!("| digits of a key that are right, of 64 | median look | 90 % within |");
    println!("|---|---|---|");
    for (digits, times) in DIGITS.iter().zip(&mut times) {
        times.sort_unstable();
        println!("| {digits} | {:?} | {:?} |", times[LOOKS / 2], times[LOOKS * 9 / 10]);
    }
    println!();
}

fn arm(name: &'static str, folder: &TempDir, keys: bool, tls: bool) -> Arm {
    let path = |file: &str| folder.path().join(format!("{name} {file}")).display().to_string();
    let (mut flags, mut key, mut ca) = (Vec::new(), None, None);
    if keys {
        let new = NewKey { name: "bench", ..NewKey::default() };
        let secret = file::add(path("keys.toml").as_ref(), &new).expect("it is written");
        key = secret.map(|secret| format!("Bearer {secret}"));
        flags.push(format!("--api-keys={}", path("keys.toml")));
    }
    if tls {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).expect("it is a name");
        std::fs::write(path("cert.pem"), cert.pem()).expect("it is written");
        std::fs::write(path("key.pem"), signing_key.serialize_pem()).expect("it is written");
        flags.push(format!("--tls-cert={}", path("cert.pem")));
        flags.push(format!("--tls-key={}", path("key.pem")));
        let ca_certificate = Certificate::from_pem(cert.pem());
        ca = Some(ClientTlsConfig::new().ca_certificate(ca_certificate).domain_name("localhost"));
    }
    let server = Server::synthetic(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    let client = server.client_over(ca);
    Arm { name, server, client, key }
}

fn measured(arms: &[Arm], request: &EmbedRequest) -> Vec<Cost> {
    let clock = Clock::start();
    let mut costs: Vec<(Vec<Duration>, Vec<Duration>)> = arms.iter().map(|_| Default::default()).collect();
    for _ in 0..ROUNDS {
        for (arm, (cpus, times)) in arms.iter().zip(&mut costs) {
            let cpu = cpu_of_others();
            for _ in 0..CALLS {
                let start = clock.now();
                arm.call(request.clone());
                times.push(clock.now().since(start));
            }
            cpus.push((cpu_of_others() - cpu) / CALLS);
        }
    }
    let median = |mut durations: Vec<Duration>| {
        durations.sort_unstable();
        durations[durations.len() / 2]
    };
    costs.into_iter().map(|(cpu, time)| Cost { cpu: median(cpu), time: median(time) }).collect()
}

impl Arm {
    fn call(&self, request: EmbedRequest) {
        let mut request = Request::new(request);
        if let Some(key) = &self.key {
            request.metadata_mut().insert("authorization", key.parse().expect("it is plain"));
        }
        self.server.here.block_on(self.client.clone().embed(request)).expect("it is answered");
    }
}
