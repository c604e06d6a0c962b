//! API keys: who may call over both edges, how much, and what changes while the server runs.

use std::path::Path;
use std::time::Duration;

use clipd::auth::Limits;
use clipd::auth::file::{self, NewKey};
use clipd::grpc::proto;
use serde_json::json;
use tokio::net::TcpSocket;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::scheduling::slow_server;
use crate::support::post::{get, post, post_with, send_over};
use crate::support::scrape::{Scrape, probe};
use crate::support::*;

fn with_key<T>(message: T, key: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value: MetadataValue<_> = format!("Bearer {key}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

async fn embed(server: &Server, key: &str) -> Result<(), Status> {
    server.client.clone().embed(with_key(one_image(1), key)).await.map(|_| ())
}

async fn over_http(server: &Server, key: &str) -> crate::support::post::Answer {
    let bearer = format!("Bearer {key}");
    post_with(server, "/v1/embeddings", &[("authorization", &bearer)], json!({"input": "a"}).to_string())
        .await
}

fn add(path: &Path, name: &str, limits: &Limits) -> String {
    let new = NewKey { name, limits: limits.clone(), ..NewKey::default() };
    file::add(path, &new).unwrap().unwrap()
}

async fn gated(path: &Path) -> (Server, clipd::engine::synthetic::Gate) {
    Server::gated(&[&format!("--api-keys={}", path.display())]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_there_is_health_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let key = add(&path, "search", &Limits::default());
    let expired = file::add(&path, &NewKey { name: "old", expires: Some("2001-01-01"), ..NewKey::default() })
        .unwrap()
        .unwrap();
    let (server, _gate) = gated(&path).await;
    embed(&server, &key).await.unwrap();
    over_http(&server, &key).await.ok();
    let api_key = [("x-api-key", key.as_str())];
    post_with(&server, "/v1/embeddings", &api_key, json!({"input": "a"}).to_string()).await.ok();

    for wrong in ["", "wrong", &key[..key.len() - 1], &format!("{key}0"), &key.to_uppercase(), &expired] {
        let status = embed(&server, wrong).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{wrong}: {status}");
        let answer = over_http(&server, wrong).await;
        let (message, _) = answer.error(401);
        assert_eq!(message, status.message(), "nobody is told what was wrong");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    assert_eq!(server.client.clone().embed(one_image(1)).await.unwrap_err().code(), Code::Unauthenticated);
    let stream = server.client.clone().stream_embed(tokio_stream::empty()).await.unwrap_err();
    assert_eq!(stream.code(), Code::Unauthenticated);
    for path in ["/v1/models", "/openapi.json", "/meta"] {
        get(&server, path).await.error(401);
    }
    for path in ["/livez", "/readyz", "/.well-known/ready"] {
        assert!(get(&server, path).await.status < 300, "{path}");
    }
    let mut health = HealthClient::new(channel(&server.running));
    health.check(HealthCheckRequest::default()).await.unwrap();
    let metrics = server.running.metrics_address;
    assert_eq!(probe(metrics, "/readyz").await, "200 ready");

    let scrape = Scrape::quiet(metrics).await;
    assert_eq!(scrape.value("clip_key_requests_total{key=\"search\",code=\"OK\"}"), 3.0);
    assert_eq!(scrape.value("clip_key_requests_total{key=\"?\",code=\"UNAUTHENTICATED\"}"), 14.0);
    assert_eq!(scrape.value("clip_key_rows_total{key=\"search\"}"), 3.0);
    assert_eq!(scrape.value("clip_keys"), 2.0);
    assert!(!scrape.text.contains("clipd_"), "no secret is a label");
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_can_be_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    add(&path, "search", &Limits::default());
    let (server, _gate) =
        Server::gated(&[&format!("--api-keys={}", path.display()), "--open-reflection"]).await;
    get(&server, "/openapi.json").await.ok();
    get(&server, "/v1/models").await.error(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_has_limits_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let slow = Limits { requests_per_second: Some(0.01), burst: Some(2), ..Limits::default() };
    let slow = add(&path, "slow", &slow);
    let few = add(&path, "few", &Limits { rows_per_second: Some(0.01), ..Limits::default() });
    let one = Limits { concurrent_requests: Some(1), streams: Some(1), ..Limits::default() };
    let one = add(&path, "one", &one);
    let free = add(&path, "free", &Limits::default());
    let (server, gate) = gated(&path).await;

    let answer = over_http(&server, &slow).await;
    answer.ok();
    assert_eq!(answer.header("x-ratelimit-limit-requests"), "2");
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), "1");
    embed(&server, &slow).await.unwrap();
    let status = embed(&server, &slow).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert_eq!(status.message(), "limit of the caller: caller_requests");
    let hint: u64 =
        status.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap().parse().unwrap();
    assert!((50_000..=100_000).contains(&hint), "{hint}");
    let answer = over_http(&server, &slow).await;
    answer.error(429);
    assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 50);

    embed(&server, &few).await.unwrap();
    let status = embed(&server, &few).await.unwrap_err();
    assert_eq!(status.message(), "limit of the caller: caller_rows");

    gate.close();
    let mut client = server.client.clone();
    let request = with_key(one_image(2), &one);
    let running = tokio::spawn(async move { client.embed(request).await });
    gate.wait_started(1);
    let status = embed(&server, &one).await.unwrap_err();
    assert_eq!(status.message(), "limit of the caller: caller_concurrency");
    let mut client = server.client.clone();
    let pending = tokio_stream::pending::<proto::StreamEmbedRequest>();
    let stream = client.stream_embed(with_key(pending, &one)).await.unwrap();
    let status = client.stream_embed(with_key(tokio_stream::empty(), &one)).await.unwrap_err();
    assert_eq!(status.message(), "limit of the caller: caller_streams");
    gate.open_again();
    running.await.unwrap().unwrap();
    drop(stream);
    // None of this is anybody else's.
    embed(&server, &free).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_beyond_its_rows_is_slowed_and_not_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let key = add(&path, "steady", &Limits { rows_per_second: Some(50.0), ..Limits::default() });
    let (server, _gate) = gated(&path).await;
    let input = |tag| proto::StreamEmbedRequest { tag, input: Some(text_input("a")), ..Default::default() };
    let inputs = tokio_stream::iter((0..60).map(input));
    let start = clipd::clock::Clock::start();
    let responses = server.client.clone().stream_embed(with_key(inputs, &key)).await.unwrap();
    let mut responses = responses.into_inner();
    let mut answered = 0;
    while let Some(response) = responses.message().await.unwrap() {
        assert!(matches!(response.result, Some(proto::stream_embed_response::Result::Embedding(_))));
        answered += 1;
    }
    assert_eq!(answered, 60);
    assert!(start.now().since(Default::default()) >= Duration::from_millis(190), "ten of them had to wait");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_are_no_keys_each_address_may_have_limits() {
    let (server, _gate) = Server::gated(&["--peer-limits=requests_per_second = 0.01, burst = 2"]).await;
    embed(&server, "").await.unwrap();
    post(&server, "/v1/embeddings", &json!({"input": "a"})).await.ok();
    let status = server.client.clone().embed(one_image(1)).await.unwrap_err();
    assert_eq!(status.message(), "limit of the caller: caller_requests", "over both edges together");
    let (message, _) = post(&server, "/v1/embeddings", &json!({"input": "a"})).await.error(429);
    assert_eq!(message, status.message());
    // Somebody else.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
    let other = socket.connect(server.running.http_address.unwrap()).await.unwrap();
    let request = http::Request::post("/v1/embeddings").header("host", "localhost");
    send_over(other, request.body(json!({"input": "a"}).to_string().into()).unwrap()).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_work_of_a_key_may_be_bulk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let bulk = file::add(&path, &NewKey { name: "index", bulk: true, ..NewKey::default() }).unwrap().unwrap();
    let urgent = add(&path, "search", &Limits::default());
    let keys = format!("--api-keys={}", path.display());
    let (server, gate) = slow_server(&["--max-batch-size=1", &keys]).await;
    let call = |key: &str| {
        let (mut client, request) = (server.client.clone(), with_key(one_image(0), key));
        tokio::spawn(async move { client.embed(request).await.map(|_| ()) })
    };
    gate.close();
    let first = call(&urgent);
    gate.wait_started(1);
    // Asks for interactive work, which its key does not let it have.
    let index = call(&bulk);
    queued(&server, 1.0).await;
    let search = call(&urgent);
    queued(&server, 2.0).await;
    // Whichever is next: the other stays where it is.
    gate.let_pass(2);
    first.await.unwrap().unwrap();
    search.await.unwrap().unwrap();
    assert!(!index.is_finished());
    gate.open_again();
    index.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_while_the_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let old = add(&path, "old", &Limits::default());
    let (server, _gate) = gated(&path).await;
    embed(&server, &old).await.unwrap();
    let new = add(&path, "new", &Limits::default());
    while embed(&server, &new).await.is_err() {
        embed(&server, &old).await.unwrap();
    }
    // A broken file changes nothing, and shows.
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, "keys = nonsense").unwrap();
    let failures = "clip_reload_failures_total{files=\"keys\"}";
    while Scrape::of(server.running.metrics_address).await.value(failures) == 0.0 {
        embed(&server, &old).await.unwrap();
    }
    std::fs::write(&path, good).unwrap();
    file::revoke(&path, "old").unwrap();
    while embed(&server, &old).await.is_ok() {
        embed(&server, &new).await.unwrap();
    }
    over_http(&server, &old).await.error(401);
    over_http(&server, &new).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_server_ignores_keys() {
    let (server, _gate) = Server::gated(&[]).await;
    embed(&server, "anything").await.unwrap();
    post(&server, "/v1/embeddings", &json!({"input": "a"})).await.ok();
    over_http(&server, "NA").await.ok();
}

#[test]
fn the_command_line_makes_shows_and_revokes_keys() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let run = |arguments: &[&str]| {
        let program = env!("CARGO_BIN_EXE_clipd");
        let output = std::process::Command::new(program)
            .arg("keys")
            .args(arguments)
            .env("CLIPD_API_KEYS", &path)
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (fine, secret, _) =
        run(&["add", "search", "--rate", "50", "--burst", "100", "--expires", "2030-01-01"]);
    assert!(fine && secret.starts_with("clipd_"), "{secret}");
    let (_, listed, _) = run(&["list"]);
    assert_eq!(listed, "search expires 2030-01-01T00:00:00Z { requests_per_second = 50, burst = 100 }\n");
    let (fine, _, error) = run(&["add", "search"]);
    assert!(!fine && error.contains("twice"), "{error}");
    assert!(run(&["revoke", "search"]).0);
    assert_eq!(run(&["list"]).1, "");
}
