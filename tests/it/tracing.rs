//! Traces, as a collector receives them over OTLP, and the ids of requests.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clipd::admission::{Caller, Door, Kind, Method, RequestId};
use clipd::auth::file::{self, NewKey};
use clipd::auth::{Callers, reload};
use clipd::clock::Clock;
use clipd::grpc::proto::StreamEmbedRequest;
use clipd::pipeline::error::Error;
use clipd::telemetry::metrics::Metrics;
use clipd::trace::export::FLUSH;
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};

use crate::support::collector::{Collector, attribute, hex};
use crate::support::post::post_with;
use crate::support::scrape::Scrape;
use crate::support::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// What a caller sends that has a trace.
fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{CALLER}-{flags}")
}

fn with<T>(message: T, metadata: &[(&'static str, &str)]) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in metadata {
        request.metadata_mut().append(*name, value.parse().unwrap());
    }
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_told_stage_by_stage_over_both_edges() {
    let collector = Collector::default();
    let server = Server::start(&[&collector.start().await]).await;
    let metadata =
        [("traceparent", &*traceparent("01")), ("tracestate", "vendor=1"), ("x-request-id", "mine-1")];
    let answer = server.client.clone().embed(with(one_image(1), &metadata)).await.unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), "mine-1");
    let answer = post_with(&server, "/v1/embeddings", &metadata, json!({"input": "a"}).to_string()).await;
    answer.ok();
    assert_eq!(answer.header("x-request-id"), "mine-1");

    let spans = collector.of(server).await;
    for (name, modality) in [("Embed", "image"), ("/v1/embeddings", "text")] {
        let call = spans.one(name);
        assert_eq!((&*hex(&call.trace_id), &*hex(&call.parent_span_id)), (TRACE, CALLER), "{name}");
        assert_eq!(call.kind(), SpanKind::Server);
        assert_eq!(call.trace_state, "vendor=1");
        assert_eq!(attribute(call, "rpc.response.status_code"), "OK");
        assert_eq!(attribute(call, "clip.request_id"), "mine-1");
        assert_eq!(call.status, None);
        let children = spans.children(call);
        let stages = ["admission", "preprocess", "queue", "inference", "reply"];
        assert_eq!(spans.stages(call), stages, "{name}");
        for pair in children.windows(2) {
            assert!(pair[0].end_time_unix_nano <= pair[1].start_time_unix_nano, "{pair:?}");
        }
        assert_eq!(children[0].start_time_unix_nano, call.start_time_unix_nano);
        assert_eq!(children[4].end_time_unix_nano, call.end_time_unix_nano);
        assert_eq!(children[2].end_time_unix_nano, children[3].start_time_unix_nano);
        for (key, value) in [
            ("clip.rows", "1"),
            ("clip.modality", modality),
            ("clip.batch.rows", "1"),
            ("clip.batch.close_reason", "idle"),
            ("clip.worker", "0"),
            ("clip.device", "cpu"),
        ] {
            assert_eq!(attribute(children[3], key), value, "{name}: {key}");
        }
    }
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let ended = Duration::from_nanos(spans.one("Embed").end_time_unix_nano);
    assert!(now - ended < Duration::from_secs(600), "it is told when that was");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_one_batch_are_linked_with_it() {
    let collector = Collector::default();
    let (server, gate) = Server::gated(&[&collector.start().await]).await;
    gate.close();
    let call = |inputs: Vec<_>, flags: &str| {
        let (mut client, request) =
            (server.client.clone(), with(embed_request(inputs), &[("traceparent", &traceparent(flags))]));
        tokio::spawn(async move { client.embed(request).await.unwrap() })
    };
    let images = |count| (0..count).map(|seed| image_input(picture(seed))).collect::<Vec<_>>();
    let first = call(images(1), "01");
    gate.wait_started(1);
    // These run together: two that are traced, and one that is not.
    let others = [call(images(2), "01"), call(images(3), "01"), call(images(1), "00")];
    queued(&server, 6.0).await;
    gate.open_again();
    for call in [first].into_iter().chain(others) {
        call.await.unwrap();
    }
    let spans = collector.of(server).await;
    let calls = spans.named("Embed");
    assert_eq!(calls.len(), 3);
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut linked = BTreeSet::new();
    for call in calls {
        let inference = spans.children(call).into_iter().find(|child| child.name == "inference").unwrap();
        rows.push((attribute(inference, "clip.rows"), attribute(inference, "clip.batch.rows")));
        let [link] = &inference.links[..] else { panic!("{inference:?}") };
        let batch = spans.named("batch").into_iter().find(|batch| batch.span_id == link.span_id).unwrap();
        assert_eq!(batch.trace_id, link.trace_id);
        // Each trace has read the calendar by itself.
        let apart = batch.start_time_unix_nano.abs_diff(inference.start_time_unix_nano);
        assert!(apart < 1_000_000, "{apart} ns");
        let back = |link: &&Link| {
            let Link { trace_id, span_id, .. } = link;
            (trace_id, span_id) == (&inference.trace_id, &inference.span_id)
        };
        assert_eq!(batch.links.iter().filter(back).count(), 1, "{batch:?}");
        linked.insert(batch.span_id.clone());
        for key in ["clip.batch.rows", "clip.batch.close_reason", "clip.worker", "clip.device"] {
            assert_eq!(attribute(batch, key), attribute(inference, key));
        }
    }
    rows.sort();
    let rows: Vec<(&str, &str)> = rows.iter().map(|(own, all)| (&**own, &**all)).collect();
    assert_eq!(rows, [("1", "1"), ("2", "6"), ("3", "6")]);
    let batches = spans.named("batch");
    let mut links: Vec<usize> = batches.iter().map(|batch| batch.links.len()).collect();
    links.sort_unstable();
    assert_eq!(links, [1, 2], "the call that is not traced is nowhere");
    assert_eq!(linked.len(), 2);
    let traces: BTreeSet<String> = batches.iter().map(|batch| hex(&batch.trace_id)).collect();
    assert!(traces.len() == 2 && !traces.contains(TRACE), "a batch belongs to no call");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caller_says_what_is_traced_and_otherwise_the_ratio() {
    // (--trace-sample, traceparent, whether it is traced, and in the trace of the caller)
    let cases = [
        ("0", None, false, false),
        ("0", Some(traceparent("01")), true, true),
        ("1", Some(traceparent("00")), false, false),
        ("1", None, true, false),
        ("1", Some("00-nonsense-01".to_owned()), true, false),
        ("0", Some("00-nonsense-01".to_owned()), false, false),
    ];
    for (sample, parent, traced, of_caller) in cases {
        let collector = Collector::default();
        let flag = format!("--trace-sample={sample}");
        let (server, _gate) = Server::gated(&[&collector.start().await, &flag]).await;
        let headers: Vec<_> = parent.iter().map(|parent| ("traceparent", &**parent)).collect();
        server.client.clone().embed(with(one_image(1), &headers)).await.unwrap();
        post_with(&server, "/v1/embeddings", &headers, json!({"input": "a"}).to_string()).await.ok();
        let spans = collector.of(server).await;
        for name in ["Embed", "/v1/embeddings"] {
            let calls = spans.named(name);
            assert_eq!(calls.len(), usize::from(traced), "{sample} {parent:?} {name}");
            assert!(
                calls.iter().all(|call| (hex(&call.trace_id) == TRACE) == of_caller),
                "{sample} {parent:?}"
            );
            assert!(
                calls.iter().all(|call| call.parent_span_id.is_empty() != of_caller),
                "{sample} {parent:?}"
            );
        }
        assert_eq!(spans.0.is_empty(), !traced, "{sample} {parent:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_a_span_for_each_input() {
    let collector = Collector::default();
    let (server, _gate) = Server::gated(&[&collector.start().await, "--trace-sample=0"]).await;
    for flags in ["01", "00"] {
        let inputs = [Some(image_input(picture(1))), Some(text_input("a cat")), Some(text_input(" "))];
        let inputs = inputs.map(|input| StreamEmbedRequest { input, ..StreamEmbedRequest::default() });
        let request = with(tokio_stream::iter(inputs), &[("traceparent", &traceparent(flags))]);
        let answers = server.client.clone().stream_embed(request).await.unwrap().into_inner();
        assert_eq!(answers.collect::<Vec<_>>().await.len(), 3);
    }
    let spans = collector.of(server).await;
    let stream = spans.one("StreamEmbed");
    assert_eq!(hex(&stream.parent_span_id), CALLER);
    assert_eq!(spans.stages(stream), ["admission", "input", "input", "input"]);
    let mut inputs: Vec<(String, Vec<&str>)> = spans
        .named("input")
        .iter()
        .map(|input| (attribute(input, "clip.outcome"), spans.stages(input)))
        .collect();
    inputs.sort();
    let stages = vec!["preprocess", "queue", "inference"];
    let answered = ("answered".to_owned(), stages);
    assert_eq!(inputs, [answered.clone(), answered, ("invalid".to_owned(), vec![])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_whose_stream_has_gone_has_an_end() {
    let collector = Collector::default();
    let (server, gate) = Server::gated(&[&collector.start().await]).await;
    gate.close();
    let input = StreamEmbedRequest { input: Some(image_input(picture(1))), ..Default::default() };
    let (sender, inputs) = tokio::sync::mpsc::channel(1);
    let answers = server.client.clone().stream_embed(ReceiverStream::new(inputs)).await.unwrap();
    sender.send(input).await.unwrap();
    gate.wait_started(1);
    drop((answers, sender));
    // The stream is over before its batch is.
    Scrape::quiet(server.running.metrics_address).await;
    gate.open_again();
    let spans = collector.of(server).await;
    let stream = spans.one("StreamEmbed");
    assert_eq!(attribute(stream, "rpc.response.status_code"), "CANCELLED");
    assert_eq!(spans.stages(stream), ["admission", "input"]);
    let input = spans.one("input");
    assert_eq!(attribute(input, "clip.outcome"), "cancelled");
    assert_eq!(spans.stages(input), ["preprocess", "queue", "inference"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_says_so() {
    let collector = Collector::default();
    let (server, gate) = Server::gated(&[&collector.start().await]).await;
    gate.fail_next();
    let status = server.client.clone().embed(one_image(1)).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.metadata().get("x-request-id").unwrap().to_str().unwrap().starts_with("req_"));
    server.client.clone().embed(embed_request(Vec::new())).await.unwrap_err();
    let spans = collector.of(server).await;
    let mut calls: Vec<(String, bool)> = spans
        .named("Embed")
        .iter()
        .map(|call| (attribute(call, "rpc.response.status_code"), call.status.is_some()))
        .collect();
    calls.sort();
    assert_eq!(calls, [("INTERNAL".to_owned(), true), ("INVALID_ARGUMENT".to_owned(), false)]);
    for name in ["inference", "batch"] {
        assert!(spans.one(name).status.as_ref().is_some_and(|status| !status.message.is_empty()), "{name}");
    }
}

/// A call without a key is in nobody's trace, and its answer has an id.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_without_a_key_is_traced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let key = file::add(&path, &NewKey { name: "search", ..NewKey::default() }).unwrap().unwrap();
    let collector = Collector::default();
    let keys = format!("--api-keys={}", path.display());
    let (server, _gate) = Server::gated(&[&collector.start().await, &keys]).await;
    let parent = traceparent("01");
    let stranger = [("traceparent", &*parent), ("authorization", "Bearer clipd_wrong")];
    let status = server.client.clone().embed(with(one_image(1), &stranger)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.metadata().get("x-request-id").is_some());
    let answer = post_with(&server, "/v1/embeddings", &stranger, json!({"input": "a"}).to_string()).await;
    answer.error(401);
    assert!(answer.header("x-request-id").starts_with("req_"));
    let bearer = format!("Bearer {key}");
    let known = [("traceparent", &*parent), ("authorization", &*bearer)];
    server.client.clone().embed(with(one_image(1), &known)).await.unwrap();
    let spans = collector.of(server).await;
    assert_eq!(attribute(spans.one("Embed"), "clip.key"), "search");
    assert!(spans.named("/v1/embeddings").is_empty());
    assert!(!format!("{:?}", spans.0).contains(&key), "a secret is in a span");
}

/// More spans than wait for it are dropped and counted, every call is answered, and the end comes in time.
async fn a_collector_costs_nothing_but_spans(flag: &str) {
    const INPUTS: u64 = 2_000;
    let (server, _gate) = Server::gated(&[flag]).await;
    let input = |tag| StreamEmbedRequest { tag, input: Some(text_input("a cat")), ..Default::default() };
    let inputs = tokio_stream::iter((0..INPUTS).map(input));
    let answers = server.client.clone().stream_embed(inputs).await.unwrap().into_inner();
    let answers: Vec<_> = answers.collect::<Result<_, _>>().await.unwrap();
    assert_eq!(answers.len() as u64, INPUTS);
    let scrape = Scrape::quiet(server.running.metrics_address).await;
    // At least four for each input, of which 4,096 wait, and 512 are on their way at a time.
    assert!(scrape.value("clip_spans_dropped_total{reason=\"queue_full\"}") >= 1_000.0, "{}", scrape.text);
    assert_eq!(scrape.value("clip_spans_exported_total"), 0.0);
    assert_eq!(scrape.jobs("completed"), INPUTS as f64);
    let (clock, start) = (Clock::start(), Clock::start().now());
    server.running.shutdown().await.unwrap();
    let took = clock.now().since(start);
    assert!(took < FLUSH + Duration::from_secs(2), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_nothing_but_spans() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    a_collector_costs_nothing_but_spans(&format!("--otlp-endpoint=http://{nobody}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_costs_nothing_but_spans() {
    let collector = Collector { mute: true, ..Collector::default() };
    a_collector_costs_nothing_but_spans(&collector.start().await).await;
}

/// The server does not wait for its end to tell.
#[tokio::test(flavor = "multi_thread")]
async fn spans_arrive_while_it_runs_and_are_counted() {
    let collector = Collector::default();
    let (server, _gate) = Server::gated(&[&collector.start().await]).await;
    server.client.clone().embed(one_image(1)).await.unwrap();
    // A call, its five stages, and the batch.
    while Scrape::of(server.running.metrics_address).await.value("clip_spans_exported_total") < 7.0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(collector.received.lock().unwrap().len(), 7);
}

/// Lines of the log, of this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn door(keys: &Path) -> Door {
    let (clock, metrics) = (Clock::start(), Metrics::new());
    let keys = reload::follow(keys, clock, &metrics).unwrap();
    let phase = tokio::sync::watch::channel(clipd::shutdown::Phase::Serving).1;
    Door::new(config(&[]).admission, Callers::Keyed(keys), phase, clock, &metrics, None)
}

#[tokio::test]
async fn the_log_has_the_id_and_the_name_of_the_key_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let key = file::add(&path, &NewKey { name: "search", ..NewKey::default() }).unwrap().unwrap();
    let door = door(&path);
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        let mut headers = http::HeaderMap::new();
        headers.insert("x-request-id", "mine-2".parse().unwrap());
        headers.insert("authorization", format!("Bearer {key}").parse().unwrap());
        let request_id = RequestId::of(&headers);
        let caller = Caller { headers: &headers, request_id: &request_id, asked: None, peer: None };
        let pass = door.enter(Method { name: "Embed", kind: Kind::Unary }, caller).unwrap();
        Error::Internal("the engine broke".to_owned()).log(pass.admitted());
        drop(pass);
    });
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let ours: Vec<&str> = log.lines().filter(|line| line.contains("mine-2")).collect();
    assert_eq!(ours.len(), 2, "{log}");
    assert!(ours.iter().all(|line| line.contains("key=\"search\"")), "{log}");
    assert!(ours[0].contains("ERROR") && ours[0].contains("the engine broke"), "{log}");
    assert!(ours[1].contains("DEBUG") && ours[1].contains("code=\"CANCELLED\""), "{log}");
    assert!(!log.contains(&key), "{log}");
}
