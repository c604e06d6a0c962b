//! The page for people at `/`: its files, what keeps them from doing more than they should, and the totals they draw.

use bytes::Bytes;
use clipd::auth::Limits;
use clipd::auth::file::{self, NewKey};
use clipd::grpc::proto;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::support::post::{Answer, address, get, post, post_with, send};
use crate::support::scrape::Scrape;
use crate::support::*;

/// Bytes of all files together: what a phone loads over a slow network.
const LARGEST: usize = 150_000;

async fn ask(server: &Server, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = http::Request::builder().method(method).uri(path).header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(address(server), request.body(Full::<Bytes>::default()).unwrap()).await
}

/// Addresses of this server in a file of the page, and names of modules that a script imports.
fn named(text: &str, of: &str) -> Vec<String> {
    let mut found: Vec<String> = text
        .split(['"', '`', '\''])
        .filter(|part| part.starts_with("page/") && part.contains('.') && !part.contains("${"))
        .map(|part| format!("/{part}"))
        .collect();
    if of.ends_with(".js") {
        let modules = text.split("from \"./").skip(1).filter_map(|rest| rest.split('"').next());
        found.extend(modules.map(|module| format!("/page/{module}")));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_is_there_and_may_load_nothing_from_elsewhere() {
    let (server, _gate) = Server::gated(&[]).await;
    let samples = fixtures().join("../../src/http/page/samples");
    let samples = std::fs::read_dir(samples).unwrap().map(|entry| entry.unwrap().file_name());
    let samples = samples.map(|name| format!("/page/samples/{}", name.into_string().unwrap()));
    let mut paths: Vec<String> = samples.filter(|path| path.ends_with(".webp")).collect();
    assert_eq!(paths.len(), 12);
    paths.push("/".to_owned());
    let (mut next, mut bytes) = (0, 0);
    while let Some(path) = paths.get(next).cloned() {
        next += 1;
        let answer = get(&server, &path).await;
        assert_eq!(answer.status, 200, "{path}");
        let kind = match path.rsplit('.').next().unwrap() {
            "/" => "text/html; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "js" => "text/javascript; charset=utf-8",
            "svg" => "image/svg+xml",
            "webp" => "image/webp",
            other => panic!("{other}"),
        };
        assert_eq!(answer.header("content-type"), kind, "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("cache-control"), "no-cache", "{path}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
        let policy = answer.header("content-security-policy");
        for part in
            ["default-src 'none'", "script-src 'self';", "connect-src 'self';", "frame-ancestors 'none'"]
        {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{path}: {policy}");
        bytes += answer.body.len();
        if kind.starts_with("text") {
            let text = std::str::from_utf8(&answer.body).unwrap();
            let found = named(text, &path).into_iter().filter(|path| !paths.contains(path));
            paths.extend(found.collect::<Vec<String>>());
        }
    }
    assert!(paths.len() > 20, "{paths:?}");
    assert!(bytes < LARGEST, "the page has {bytes} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_asked_for_as_browsers_do() {
    let (server, _gate) = Server::gated(&[]).await;
    let page = get(&server, "/").await;
    let (tag, length) = (page.header("etag"), page.body.len().to_string());
    let head = ask(&server, "HEAD", "/", &[]).await;
    assert_eq!((head.status, head.header("etag"), head.header("content-length")), (200, tag, &*length));
    assert!(head.body.is_empty());
    let known = ask(&server, "GET", "/", &[("if-none-match", tag)]).await;
    assert_eq!((known.status, known.body.len()), (304, 0));
    assert!(known.header("content-security-policy").contains("default-src 'none'"));
    let other = ask(&server, "GET", "/", &[("if-none-match", "\"other\"")]).await;
    assert_eq!((other.status, &other.body), (200, &page.body));
    let script = get(&server, "/page/main.js").await;
    assert_ne!(script.header("etag"), tag);
    for unknown in
        ["/page", "/page/", "/page/index.html", "/page/other.js", "/page/samples/", "/page/../page.css"]
    {
        get(&server, unknown).await.error(404);
    }
    for method in ["POST", "PUT", "DELETE"] {
        ask(&server, method, "/", &[]).await.error(405);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_switched_off_with_all_that_it_has() {
    let (server, _gate) = Server::gated(&["--no-page"]).await;
    for path in ["/", "/page/main.js", "/page/live"] {
        get(&server, path).await.error(404);
    }
    get(&server, "/v1/models").await.ok();
}

fn total(live: &Value, name: &str, label: (&str, &str)) -> f64 {
    let figures = live["totals"][name].as_array().unwrap_or_else(|| panic!("{name} is not in {live}"));
    figures
        .iter()
        .filter(|figure| figure[label.0] == label.1)
        .map(|figure| figure["value"].as_f64().unwrap())
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_draws_are_totals_of_the_metrics() {
    let (server, _gate) = Server::gated(&["--max-inputs=2"]).await;
    post(&server, "/v1/embeddings", &json!({"input": ["a", "b"]})).await.ok();
    post(&server, "/v1/rerank", &json!({"query": "a", "documents": ["b"]})).await.ok();
    post(&server, "/v1/embeddings", &json!({"input": ["a", "b", "c"]})).await.error(400);
    server.client.clone().embed(one_image(1)).await.unwrap();
    // A stream's life is no latency, and that of its inputs is.
    let inputs = [1, 2].map(|tag| proto::StreamEmbedRequest {
        tag,
        input: Some(image_input(picture(tag as u8))),
        ..proto::StreamEmbedRequest::default()
    });
    let stream = server.client.clone().stream_embed(tokio_stream::iter(inputs)).await.unwrap();
    assert_eq!(tokio_stream::StreamExt::collect::<Vec<_>>(stream.into_inner()).await.len(), 2);
    let scrape = Scrape::quiet(server.running.metrics_address).await;
    let answer = get(&server, "/page/live").await;
    let live = answer.ok();
    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(live["seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(total(&live, "clip_requests_total", ("code", "OK")), 4.0);
    assert_eq!(total(&live, "clip_requests_total", ("code", "INVALID_ARGUMENT")), 1.0);
    assert_eq!(total(&live, "clip_request_duration_seconds_bucket", ("le", "+Inf")), 3.0);
    assert_eq!(total(&live, "clip_stream_input_duration_seconds_bucket", ("le", "+Inf")), 2.0);
    let rows = ["text", "image"].map(|modality| total(&live, "clip_batch_rows_sum", ("modality", modality)));
    let texts = "clip_batch_rows_sum{modality=\"text\"}";
    assert_eq!(rows, [scrape.value(texts), scrape.value("clip_batch_rows_sum{modality=\"image\"}")]);
    assert_eq!(total(&live, "clip_workers", ("state", "ready")), 1.0);
    let names: Vec<&String> = live["totals"].as_object().unwrap().keys().collect();
    let expected = [
        "clip_batch_rows_bucket",
        "clip_batch_rows_count",
        "clip_batch_rows_sum",
        "clip_batches_total",
        "clip_build_info",
        "clip_draining",
        "clip_preprocess_queue_rows",
        "clip_queue_rows",
        "clip_rejections_total",
        "clip_request_duration_seconds_bucket",
        "clip_requests_in_flight",
        "clip_requests_total",
        "clip_stream_input_duration_seconds_bucket",
        "clip_workers",
    ];
    assert_eq!(names, expected, "it shows what the page draws, and nothing else");
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_watch_together_are_shown_the_same() {
    let (server, _gate) = Server::gated(&[]).await;
    let all = futures_util::future::join_all((0..32).map(|_| get(&server, "/page/live"))).await;
    let moments: std::collections::BTreeSet<Bytes> = all.into_iter().map(|answer| answer.body).collect();
    assert!(moments.len() < 32, "each cost a reading of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_keys_the_page_is_open_and_the_totals_are_not_and_name_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let add = |name: &str| {
        let new = NewKey { name, limits: Limits::default(), ..NewKey::default() };
        file::add(&path, &new).unwrap().unwrap()
    };
    let (mine, theirs) = (add("my-own-service"), add("somebody-else"));
    let (server, _gate) = Server::gated(&[&format!("--api-keys={}", path.display())]).await;
    let call = async |key: &str| {
        let bearer = format!("Bearer {key}");
        let body = json!({"input": "a"}).to_string();
        post_with(&server, "/v1/embeddings", &[("authorization", &bearer)], body).await.ok()
    };
    call(&mine).await;
    call(&theirs).await;
    let scrape = Scrape::quiet(server.running.metrics_address).await;
    assert!(scrape.text.contains("somebody-else"), "operators see who calls");

    for path in ["/", "/page/main.js"] {
        assert_eq!(get(&server, path).await.status, 200, "{path}");
    }
    get(&server, "/page/live").await.error(401);
    ask(&server, "GET", "/page/live", &[("authorization", "Bearer wrong")]).await.error(401);
    let bearer = format!("Bearer {mine}");
    let answer = ask(&server, "GET", "/page/live", &[("authorization", &bearer)]).await;
    assert_eq!(total(&answer.ok(), "clip_requests_total", ("code", "OK")), 2.0);
    let text = std::str::from_utf8(&answer.body).unwrap();
    for secret in ["my-own-service", "somebody-else", "/v1/embeddings", "clip_key", &mine[..12]] {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_told_with_the_model() {
    let (server, _gate) = Server::gated(&["--max-inputs=7", "--timeout=1500ms"]).await;
    let models = get(&server, "/v1/models").await.ok();
    let model = &models["data"][0];
    assert_eq!(model["limits"]["inputs"], 7);
    assert_eq!(model["limits"]["timeout_seconds"], 1.5);
    assert_eq!((&model["image_width"], &model["image_height"]), (&json!(64), &json!(64)));
}
