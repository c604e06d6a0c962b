//! How long a well-behaved client waits beside a greedy one, which has 64 streams and 200 calls at a time: with limits
//! of its key, and without.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use clipd::auth::Limits;
use clipd::auth::file::{self, NewKey};
use clipd::clock::Clock;
use clipd::grpc::proto::input::Content;
use clipd::grpc::proto::{EmbedRequest, Input, StreamEmbedRequest};
use tokio::runtime::{Builder, Runtime};
use tonic::Request;

use crate::server::{Client, Server, embed};

/// Calls of the good one, one after the other.
const CALLS: usize = 1000;
/// Rounds of all arms.
const ROUNDS: usize = 3;
const GREEDY_STREAMS: usize = 64;
const GREEDY_CALLS: usize = 200;
/// A row of the engine takes a millisecond: it does a thousand a second.
const ROW: Duration = Duration::from_millis(1);

pub(crate) fn waits() {
    let limits = |text: &str| Some(text.parse::<Limits>().expect("they are limits"));
    let fifth = "rows_per_second = 200, requests_per_second = 100, concurrent_requests = 2, streams = 2";
    let little = "rows_per_second = 5, requests_per_second = 5, concurrent_requests = 1, streams = 1";
    let arms = [
        ("alone", None),
        ("beside it", limits("")),
        ("beside it, with a fifth of the engine", limits(fifth)),
        ("beside it, with a two hundredth", limits(little)),
    ];
    println!("| the good one | p50 | p99 | refused | of the greedy one answered, refused |");
    println!("|---|---|---|---|---|");
    for _ in 0..ROUNDS {
        for (name, greedy) in arms.clone() {
            measured(name, greedy);
        }
    }
}

fn measured(name: &str, greedy: Option<Limits>) {
    let folder = tempfile::tempdir().expect("there is room for files");
    let path = folder.path().join("keys.toml");
    let key = |name: &str, limits: Limits| {
        let secret = file::add(&path, &NewKey { name, limits, ..NewKey::default() }).expect("it is written");
        format!("Bearer {}", secret.expect("it has one"))
    };
    let (good, bad) = (key("good", Limits::default()), key("greedy", greedy.clone().unwrap_or_default()));
    let server = Server::spinning(ROW, &[&format!("--api-keys={}", path.display()), "--max-batch-size=4"]);
    let client = server.client();
    let siege = greedy.map(|_| Siege::begin(&server, &bad));
    let clock = Clock::start();
    let (mut times, mut refused) = (Vec::new(), 0);
    for _ in 0..CALLS {
        let start = clock.now();
        let answer = server.here.block_on(client.clone().embed(with(text(), &good)));
        refused += usize::from(answer.is_err());
        times.push(clock.now().since(start).as_secs_f64() * 1e3);
    }
    times.sort_unstable_by(f64::total_cmp);
    let (p50, p99) = (times[CALLS / 2], times[CALLS * 99 / 100]);
    let (answered, turned_away) = siege.map(Siege::end).unwrap_or_default();
    println!("| {name} | {p50:.2} ms | {p99:.2} ms | {refused} | {answered}, {turned_away} |");
}

/// A greedy client on threads of its own.
struct Siege {
    _threads: Runtime,
    over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

impl Siege {
    fn begin(server: &Server, key: &str) -> Siege {
        let threads =
            Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads start");
        let siege = Siege {
            _threads: threads,
            over: Arc::default(),
            answered: Arc::default(),
            refused: Arc::default(),
        };
        let client = siege._threads.block_on(server.connect(None));
        for caller in 0..GREEDY_CALLS + GREEDY_STREAMS {
            let (client, key, over) = (client.clone(), key.to_owned(), siege.over.clone());
            let (answered, refused) = (siege.answered.clone(), siege.refused.clone());
            siege._threads.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let done = match caller < GREEDY_CALLS {
                        true => client.clone().embed(with(text(), &key)).await.map(|_| 1),
                        false => stream(client.clone(), &key).await,
                    };
                    match done {
                        Ok(rows) => drop(answered.fetch_add(rows, Ordering::Relaxed)),
                        Err(_) => {
                            refused.fetch_add(1, Ordering::Relaxed);
                            // As long as the shortest hint of the server.
                            tokio::time::sleep(Duration::from_millis(100)).await;
                        }
                    }
                }
            });
        }
        siege
    }

    /// Rows that were answered, and calls and streams that were refused.
    fn end(self) -> (usize, usize) {
        self.over.store(true, Ordering::Relaxed);
        (self.answered.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }
}

/// A stream of a hundred rows, and how many came back.
async fn stream(mut client: Client, key: &str) -> Result<usize, tonic::Status> {
    let rows = (0..100).map(|tag| StreamEmbedRequest {
        tag,
        input: Some(Input { content: Some(Content::Text("a cat".to_owned())) }),
        ..StreamEmbedRequest::default()
    });
    let mut answers = client.stream_embed(with(tokio_stream::iter(rows), key)).await?.into_inner();
    let mut answered = 0;
    while answers.message().await?.is_some() {
        answered += 1;
    }
    Ok(answered)
}

fn text() -> EmbedRequest {
    embed(Content::Text("a cat".to_owned()))
}

fn with<T>(message: T, key: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", key.parse().expect("it is plain"));
    request
}
