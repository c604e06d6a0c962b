//! The HTTP API: the shapes that clients of others have, the same answers as over gRPC, and what is wrong in words.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::post::{address, get, post, post_with};
use crate::support::scrape::Scrape;
use crate::support::*;

fn base64(name: &str) -> String {
    STANDARD.encode(fixture(&format!("images/{name}.png")))
}

fn floats(embedding: &Value) -> Vec<f32> {
    match embedding {
        Value::String(packed) => {
            let bytes = STANDARD.decode(packed).unwrap();
            bytes.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect()
        }
        list => serde_json::from_value(list.clone()).unwrap(),
    }
}

/// A client of HTTP/1 that keeps its connection hears when it should take another, and loses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_kept_is_not_cut_off_under_its_client() {
    let request = || {
        let request = http::Request::post("/v1/embeddings").header("host", "localhost");
        request.body(http_body_util::Full::<bytes::Bytes>::from(json!({"input": "a"}).to_string())).unwrap()
    };
    let connected = async |server: &Server| {
        let stream = TcpStream::connect(address(server)).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let first = sender.send_request(request()).await.unwrap();
        assert!(first.status() == 200 && !first.headers().contains_key("connection"), "{first:?}");
        http_body_util::BodyExt::collect(first.into_body()).await.unwrap();
        sender
    };
    // By its age.
    let (server, _gate) = Server::gated(&["--max-connection-age=50ms"]).await;
    let mut kept = connected(&server).await;
    let old = "clip_connections_ended_total{port=\"http\",reason=\"age\"}";
    Scrape::when(server.running.metrics_address, old, |ended| ended == 1.0).await;
    let last = kept.send_request(request()).await.unwrap();
    assert!(last.status() == 200 && last.headers()["connection"] == "close", "{last:?}");
    // By the end of the server.
    let (server, _gate) = Server::gated(&["--drain-delay=20s", "--shutdown-grace=60s"]).await;
    let metrics = server.running.metrics_address;
    let mut kept = connected(&server).await;
    let shutdown = tokio::spawn(server.running.shutdown());
    Scrape::when(metrics, "clip_draining", |draining| draining == 1.0).await;
    let last = kept.send_request(request()).await.unwrap();
    assert!(last.status() == 200 && last.headers()["connection"] == "close", "{last:?}");
    shutdown.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_are_those_of_grpc_to_the_bit() {
    let server = Server::start(&[]).await;
    let png = fixture("images/cat.png");
    let inputs = vec![text_input("a cat"), image_input(image(png)), text_input("a dog")];
    let grpc = server.client.clone().embed(embed_request(inputs)).await.unwrap().into_inner();
    let grpc: Vec<&[f32]> = grpc.results.iter().map(|each| &embedding(each).values[..]).collect();

    for format in ["float", "base64"] {
        let body = json!({
            "model": server.running_name().await,
            "input": ["a cat", {"image": base64("cat")}, {"text": "a dog"}],
            "encoding_format": format,
            "user": "u1", "something": {"that": ["nobody", "knows"]}, "dimensions": null,
        });
        let answer = post(&server, "/v1/embeddings", &body).await;
        let body = answer.ok();
        assert_eq!(body["object"], "list");
        for (index, expected) in grpc.iter().enumerate() {
            assert_eq!(body["data"][index]["index"], index);
            assert_eq!(floats(&body["data"][index]["embedding"]), *expected, "{format} {index}");
        }
        assert_eq!(body["usage"], json!({"prompt_tokens": 8, "total_tokens": 8}));
        assert!(!answer.header("clip-fingerprint").is_empty());
        assert!(answer.header("server-timing").contains("inference;dur="));
        assert!(answer.header("x-request-id").starts_with("req_"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_come_in_the_words_of_several_apis() {
    let server = Server::start(&[]).await;
    let cat = base64("cat");
    let uri = format!("data:image/png;base64,{cat}");
    let expected = post(&server, "/v1/embeddings", &json!({"input": [{"image": cat}]})).await.ok();
    let expected = floats(&expected["data"][0]["embedding"]);
    for body in [
        json!({"input": {"image": uri}}),
        json!({"input": [{"bytes": cat}]}),
        json!({"input": [{"url": uri}]}),
        json!({"input": [{"image_url": uri}]}),
        json!({"input": [{"type": "image_url", "image_url": {"url": uri, "detail": "low"}}]}),
        json!({"modality": "image", "input": uri}),
        json!({"modality": "image", "input": [uri]}),
        json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": uri}}]}]}),
        json!({"input": [{"image": uri}], "embedding_type": "base64", "normalized": true, "truncate": true}),
    ] {
        let answer = post(&server, "/embeddings", &body).await.ok();
        assert_eq!(floats(&answer["data"][0]["embedding"]), expected, "{}", &body.to_string()[..60]);
    }
    // A bare string is a text, whatever it looks like.
    let text = post(&server, "/v1/embeddings", &json!({"input": uri})).await.ok();
    assert_ne!(floats(&text["data"][0]["embedding"]), expected);

    let answer = post(&server, "/v2/embed", &json!({"images": [uri], "input_type": "image", "model": null}))
        .await
        .ok();
    assert_eq!(floats(&answer["embeddings"]["float"][0]), expected);
    let inputs = json!({"inputs": [{"content": [{"type": "image_url", "image_url": {"url": uri}}]}]});
    let answer = post(&server, "/v2/embed", &inputs).await.ok();
    assert_eq!(floats(&answer["embeddings"]["float"][0]), expected);
    let answer = post(&server, "/vectorize", &json!({"texts": ["a"], "images": [cat]})).await.ok();
    assert_eq!(floats(&answer["imageVectors"][0]), expected);
    assert_eq!(answer["textVectors"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_ranked_alike_over_both_edges() {
    let server = Server::start(&[]).await;
    let words = ["dog", "pizza", "cat", "car"];
    let mut documents: Vec<Value> = words.iter().map(|word| json!({"image": base64(word)})).collect();
    let vector = post(&server, "/v1/embeddings", &json!({"input": [{"image": base64("cat")}]})).await.ok();
    documents.push(json!({"embedding": vector["data"][0]["embedding"]}));
    documents.push(json!("an emoji of a cat"));
    let body = json!({"query": "an emoji of a cat", "documents": documents, "return_documents": true});
    let answer = post(&server, "/v1/rerank", &body).await.ok();
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), 6);
    assert_eq!(results[0]["index"], 5, "the query itself");
    assert_eq!(results[0]["document"], json!({"text": "an emoji of a cat"}));
    assert_eq!([&results[1]["index"], &results[2]["index"]], [2, 4], "a picture and its vector, in order");
    assert_eq!(results[1]["document"], documents[2]);
    assert_eq!(results[1]["relevance_score"], results[2]["relevance_score"]);

    let top =
        post(&server, "/rerank", &json!({"query": "a cat", "documents": documents, "top_n": 2})).await.ok();
    assert_eq!(top["results"].as_array().unwrap().len(), 2);
    assert!(top["results"][0].get("document").is_none());

    use clipd::grpc::proto::rank_item::Content;
    use clipd::grpc::proto::{RankItem, RankRequest};
    let item = |content| RankItem { content: Some(content) };
    let picture = |word: &&str| item(Content::Image(image(fixture(&format!("images/{word}.png")))));
    let request = RankRequest {
        query: Some(item(Content::Text("an emoji of a cat".to_owned()))),
        documents: words.iter().map(picture).chain([RankItem::default()]).collect(),
        ..RankRequest::default()
    };
    let grpc = server.client.clone().rank(request).await.unwrap().into_inner();
    assert_eq!(grpc.results[0].index, 2);
    assert_eq!(grpc.results[0].similarity, results[1]["relevance_score"].as_f64().unwrap() as f32);
    assert_eq!((grpc.results.len(), grpc.errors.len()), (4, 1));
    assert_eq!(grpc.errors[0].error.as_ref().unwrap().field, "documents[4]");

    let bad =
        json!({"query": "a", "documents": ["b", {"image": "AAAA"}, {"embedding": [1.0]}, {"embedding": []}]});
    let (message, param) = post(&server, "/v1/rerank", &bad).await.error(400);
    assert_eq!(param, "documents[1]", "{message}");
    let partial = post_with(&server, "/v1/rerank", &[("clip-partial", "true")], bad.to_string()).await.ok();
    assert_eq!(partial["results"].as_array().unwrap().len(), 1);
    let errors: Vec<u64> =
        partial["errors"].as_array().unwrap().iter().map(|each| each["index"].as_u64().unwrap()).collect();
    assert_eq!(errors, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_are_classified_as_jina_and_hugging_face_have_it() {
    let server = Server::start(&[]).await;
    let labels = ["dog", "cat", "pizza"];
    let body = json!({
        "input": [{"image": base64("pizza")}, {"image": base64("cat")}],
        "labels": labels, "templates": ["an emoji of {}"], "top_k": 2,
    });
    let answer = post(&server, "/v1/classify", &body).await.ok();
    assert_eq!(answer["data"][0]["prediction"], "pizza");
    assert_eq!(answer["data"][1]["prediction"], "cat");
    assert_eq!(answer["data"][1]["predictions"].as_array().unwrap().len(), 2);
    assert!(answer["data"][1]["score"].as_f64().unwrap() > 0.9);

    let body = json!({
        "inputs": base64("cat"),
        "parameters": {"candidate_labels": labels, "hypothesis_template": "an emoji of {}"},
    });
    let answer = post(&server, "/zero-shot-image-classification", &body).await.ok();
    assert_eq!(answer[0]["label"], "cat");
    assert_eq!(answer.as_array().unwrap().len(), 3);

    let (message, param) =
        post(&server, "/v1/classify", &json!({"input": ["a"], "labels": ["b"]})).await.error(400);
    assert_eq!(param, "input[0]");
    assert!(message.contains("is a text"), "{message}");
    let missing = json!({"input": [{"image": base64("cat")}], "classifier_id": "none"});
    let (message, _) = post(&server, "/v1/classify", &missing).await.error(404);
    assert!(message.contains("none"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_is_known_by_its_names() {
    let server = Server::start(&["--model-names=text-embedding-3-small,org/clip"]).await;
    let models = get(&server, "/v1/models").await.ok();
    let ids: Vec<&str> =
        models["data"].as_array().unwrap().iter().map(|each| each["id"].as_str().unwrap()).collect();
    assert_eq!(ids[1..], ["text-embedding-3-small", "org/clip"]);
    assert_eq!(models["data"][0]["embedding_size"], 128);
    assert_eq!(models["data"][0]["device"], "cpu");
    assert_eq!(get(&server, "/v1/models/org/clip").await.ok()["id"], "org/clip");
    assert_eq!(get(&server, "/v1/models/gpt-4").await.error(404).1, "model");
    let body = |model: &str| json!({"model": model, "input": "a"});
    let answer = post(&server, "/v1/embeddings", &body("text-embedding-3-small")).await.ok();
    assert_eq!(answer["model"], "text-embedding-3-small");
    let answer = post(&server, "/v1/embeddings", &body("gpt-4")).await;
    assert_eq!(answer.error(404).1, "model");
    assert_eq!(answer.json()["error"]["code"], "model_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_in_words_and_with_its_status() {
    let server = Server::start(&["--max-message-bytes=1000000"]).await;
    let deep = format!("{{\"input\": {}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let many = format!("{{\"input\": [{}1]}}", "1,".repeat(100_000));
    let cases: Vec<(String, u16, &str, &str)> = vec![
        (String::new(), 400, "", "EOF"),
        ("null".into(), 400, "", "invalid type"),
        ("[]".into(), 400, "", ""),
        ("{".into(), 400, "", "EOF"),
        ("{} {}".into(), 400, "", "trailing"),
        ("{\"input\": NaN}".into(), 400, "input", "expected value"),
        ("{\"input\": \"a\", \"input\": \"b\"}".into(), 400, "", "duplicate field"),
        ("{\"input\": \"\\ud800\"}".into(), 400, "input", ""),
        (deep, 400, "input[0]", "token numbers"),
        (many, 400, "input", "more than 65536"),
        (json!({}).to_string(), 400, "input", "must be set"),
        (json!({"input": null}).to_string(), 400, "input", "must be set"),
        (json!({"input": []}).to_string(), 400, "input", "must not be empty"),
        (json!({"input": ""}).to_string(), 400, "input[0]", "must not be empty"),
        (json!({"input": ["a", ""]}).to_string(), 400, "input[1]", "must not be empty"),
        (json!({"input": true}).to_string(), 400, "input", "invalid type"),
        (json!({"input": [true]}).to_string(), 400, "input[0]", "invalid type"),
        (json!({"input": [1, 2]}).to_string(), 400, "input[0]", "token numbers"),
        (json!({"input": [[1, 2]]}).to_string(), 400, "input[0]", "check_embedding_ctx_length"),
        (json!({"input": [{}]}).to_string(), 400, "input[0]", "one of text and image"),
        (json!({"input": [{"text": "a", "image": "b"}]}).to_string(), 400, "input[0]", "together"),
        (json!({"input": [{"text": 1}]}).to_string(), 400, "input[0].text", "invalid type"),
        (json!({"input": [{"image": "a cat!"}]}).to_string(), 400, "input[0]", "not base64"),
        (
            json!({"input": [{"image": "https://example.org/a.png"}]}).to_string(),
            400,
            "input[0]",
            "not fetched",
        ),
        (json!({"input": ["a", {"image": "AAAA"}]}).to_string(), 400, "input[1]", "not recognised"),
        (json!({"input": "a", "dimensions": 64}).to_string(), 400, "dimensions", "has 128"),
        (json!({"input": "a", "dimensions": -1}).to_string(), 400, "dimensions", "invalid value"),
        (
            json!({"input": "a", "encoding_format": "hex"}).to_string(),
            400,
            "encoding_format",
            "unknown variant",
        ),
        (json!({"input": "a", "model": 7}).to_string(), 400, "model", "invalid type"),
        (
            json!({"messages": [{"content": [{"text": "a"}, {"text": "b"}]}]}).to_string(),
            400,
            "messages",
            "one text",
        ),
        (json!({"input": "x".repeat(2_000_000)}).to_string(), 413, "", "limit"),
        (json!({"input": vec!["a"; 257]}).to_string(), 400, "input", "257 are more than the limit of 256"),
        (json!({"input": "x".repeat(9000)}).to_string(), 400, "input[0]", "limit"),
    ];
    let mut wrong = Vec::new();
    for (body, status, param, says) in cases {
        let head = body.chars().take(60).collect::<String>();
        let answer = post_with(&server, "/v1/embeddings", &[], body).await;
        let (message, at) = answer.error(status);
        if at != param || !message.contains(says) {
            wrong.push(format!("{head}: {at:?} {message}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let check = async |headers: &[(&str, &str)], status: u16| {
        post_with(&server, "/v1/embeddings", headers, json!({"input": "a"}).to_string()).await.error(status);
    };
    check(&[("content-type", "text/plain")], 415).await;
    check(&[("content-encoding", "gzip")], 415).await;
    check(&[("clip-class", "soon")], 400).await;
    get(&server, "/v1/embeddings").await.error(405);
    get(&server, "/v1/nothing").await.error(404);
    let scrape = Scrape::quiet(server.running.metrics_address).await;
    assert_eq!(scrape.jobs("failed"), 0.0);
    assert_eq!(scrape.value("clip_requests_total{method=\"/v1/embeddings\",code=\"INTERNAL\"}"), 0.0);
    post(&server, "/v1/embeddings", &json!({"input": "still here"})).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_is_asked_for_each_item_has_its_own_error() {
    let server = Server::start(&[]).await;
    let body = json!({"input": ["a", {"image": "AAAA"}, "", {"image": "?"}, [1]]}).to_string();
    let answer = post_with(&server, "/v1/embeddings", &[("clip-partial", "true")], body).await.ok();
    let data = answer["data"].as_array().unwrap();
    assert_eq!(data.len(), 5);
    assert!(data[0].get("error").is_none() && data[0].get("embedding").is_some());
    for (index, datum) in data.iter().enumerate().skip(1) {
        assert!(datum.get("embedding").is_none());
        assert_eq!(datum["error"]["param"], format!("input[{index}]"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn overload_is_429_with_a_hint_and_lateness_504() {
    let (server, gate) = Server::gated(&["--max-concurrent-requests=1"]).await;
    gate.close();
    let mut client = server.client.clone();
    let running = tokio::spawn(async move { client.embed(one_image(1)).await });
    gate.wait_started(1);
    // One place for both edges.
    let body = json!({"input": "a"});
    let answer = post(&server, "/v1/embeddings", &body).await;
    let (message, _) = answer.error(429);
    assert!(message.contains("concurrent_requests"), "{message}");
    assert_eq!((answer.header("retry-after"), answer.header("retry-after-ms")), ("1", "100"));
    gate.open_again();
    running.await.unwrap().unwrap();
    Scrape::quiet(server.running.metrics_address).await;

    gate.close();
    for header in ["clip-timeout", "x-stainless-timeout"] {
        post_with(&server, "/v1/embeddings", &[(header, "0.1")], body.to_string()).await.error(504);
    }
    gate.open_again();
    let scrape = Scrape::quiet(server.running.metrics_address).await;
    assert_eq!(
        scrape.value("clip_requests_total{method=\"/v1/embeddings\",code=\"RESOURCE_EXHAUSTED\"}"),
        1.0
    );
    assert_eq!(
        scrape.value("clip_requests_total{method=\"/v1/embeddings\",code=\"DEADLINE_EXCEEDED\"}"),
        2.0
    );
    assert_eq!(scrape.value("clip_rejections_total{reason=\"concurrent_requests\"}"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_cancels_its_rows() {
    let (server, gate) = Server::gated(&["--max-batch-size=1"]).await;
    gate.close();
    let mut client = server.client.clone();
    let running = tokio::spawn(async move { client.embed(one_image(1)).await });
    gate.wait_started(1);
    let mut leaving = TcpStream::connect(address(&server)).await.unwrap();
    let picture = base64("cat");
    let body = json!({"input": [{"image": picture}, {"image": picture}]}).to_string();
    let request = format!(
        "POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    leaving.write_all(request.as_bytes()).await.unwrap();
    let metrics = server.running.metrics_address;
    Scrape::when(metrics, "clip_queue_rows{modality=\"image\"}", |value| value >= 2.0).await;
    drop(leaving);
    Scrape::when(metrics, "clip_queue_rows{modality=\"image\"}", |value| value == 0.0).await;
    gate.open_again();
    running.await.unwrap().unwrap();
    let scrape = Scrape::quiet(metrics).await;
    assert_eq!((scrape.jobs("cancelled"), scrape.jobs("completed")), (2.0, 1.0));
    assert_eq!(scrape.value("clip_requests_total{method=\"/v1/embeddings\",code=\"CANCELLED\"}"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_ends_with_the_deadline() {
    let (server, _gate) = Server::gated(&["--timeout=100ms"]).await;
    let mut slow = TcpStream::connect(address(&server)).await.unwrap();
    slow.write_all(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{\"inp")
        .await
        .unwrap();
    let mut answer = vec![0; 12];
    slow.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 504");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_answers_the_calls_of_both_edges() {
    let (server, gate) = Server::gated(&["--max-batch-size=2"]).await;
    gate.close();
    let mut client = server.client.clone();
    let grpc = tokio::spawn(async move { client.embed(one_image(1)).await });
    gate.wait_started(1);
    let (http_address, metrics) = (address(&server), server.running.metrics_address);
    let body = json!({"input": [{"image": base64("cat")}]}).to_string();
    let request =
        http::Request::post("/v1/embeddings").header("host", "x").body(http_body_util::Full::from(body));
    let http = tokio::spawn(crate::support::post::send(http_address, request.unwrap()));
    Scrape::when(metrics, "clip_queue_rows{modality=\"image\"}", |value| value >= 1.0).await;
    // A keep-alive connection without a call holds nothing up.
    let idle = TcpStream::connect(http_address).await.unwrap();
    let shutdown = tokio::spawn(server.running.shutdown());
    gate.open_again();
    grpc.await.unwrap().unwrap();
    http.await.unwrap().ok();
    tokio::time::timeout(Duration::from_secs(10), shutdown).await.unwrap().unwrap().unwrap();
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_the_document_need_no_body() {
    let server = Server::start(&[]).await;
    for (path, status) in [
        ("/livez", 200),
        ("/readyz", 200),
        ("/.well-known/live", 204),
        ("/.well-known/ready", 204),
        ("/meta", 200),
        ("/openapi.json", 200),
    ] {
        assert_eq!(get(&server, path).await.status, status, "{path}");
    }
    let document = get(&server, "/openapi.json").await.ok();
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert!(paths.iter().any(|path| **path == "/v1/embeddings"), "{paths:?}");
    let (off, _gate) = Server::gated(&["--http-listen=off"]).await;
    assert!(off.running.http_address.is_none());
}

/// A web server of this test: each path has its answer.
async fn pictures_elsewhere() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = vec![0; 4096];
                let read = stream.read(&mut head).await.unwrap();
                let head = String::from_utf8_lossy(&head[..read]).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default();
                let (status, extra, body) = match path {
                    // Says nothing until its client has gone.
                    "/silent" => return drop(stream.read_to_end(&mut Vec::new()).await),
                    "/cat.png" => ("200 OK", String::new(), fixture("images/cat.png")),
                    "/large" => ("200 OK", String::new(), vec![0; 200_000]),
                    "/moved" => ("302 Found", "location: /cat.png\r\n".to_owned(), Vec::new()),
                    "/round" => ("302 Found", "location: /round\r\n".to_owned(), Vec::new()),
                    "/inside" => (
                        "302 Found",
                        format!("location: http://localhost:{}/cat.png\r\n", address.port()),
                        Vec::new(),
                    ),
                    "/metadata" => {
                        ("302 Found", "location: http://169.254.169.254/\r\n".to_owned(), Vec::new())
                    }
                    _ => ("404 Not Found", String::new(), Vec::new()),
                };
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status}\r\n{extra}content-length: {length}\r\nconnection: close\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                // Who has seen enough of a large one has gone.
                let _ = stream.write_all(&body).await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_are_fetched_from_hosts_that_are_allowed_and_from_nowhere_else() {
    let elsewhere = pictures_elsewhere().await;
    let port = elsewhere.port();
    let allowed = format!("--fetch-images=private:127.0.0.1:{port}");
    let (server, _gate) = Server::gated(&[&allowed, "--max-image-bytes=100000"]).await;
    let fetched = async |path: &str| {
        let url =
            if path.starts_with("http") { path.to_owned() } else { format!("http://{elsewhere}{path}") };
        post(&server, "/v1/embeddings", &json!({"input": [{"image_url": {"url": url}}]})).await
    };
    let here = post(&server, "/v1/embeddings", &json!({"input": [{"image": base64("cat")}]})).await.ok();
    for path in ["/cat.png", "/moved"] {
        assert_eq!(fetched(path).await.ok()["data"], here["data"], "{path}");
    }
    let refused = async |path: &str, says: &str| {
        let (message, param) = fetched(path).await.error(400);
        assert!(param == "input[0]" && message.contains(says), "{path}: {message}");
    };
    refused("/none", "404").await;
    refused("/large", "not fetched").await;
    refused("/round", "not fetched").await;
    refused("/inside", "not fetched from that host").await;
    refused("/metadata", "not fetched from that host").await;
    refused(&format!("http://localhost:{port}/cat.png"), "not fetched from that host").await;
    refused(&format!("http://2130706433:{port}/cat.png"), "not fetched from that host").await;
    refused(&format!("http://[::ffff:127.0.0.1]:{port}/cat.png"), "not fetched from that host").await;
    refused("https://127.0.0.1/cat.png", "not fetched from that host").await;

    let silent = json!({"input": [{"image": format!("http://{elsewhere}/silent")}]}).to_string();
    post_with(&server, "/v1/embeddings", &[("clip-timeout", "200ms")], silent).await.error(504);

    // The same name without the operator's word that it may be inside.
    let (strict, _gate) = Server::gated(&[&format!("--fetch-images=127.0.0.1:{port}")]).await;
    let body = json!({"input": [{"image": format!("http://{elsewhere}/cat.png")}]});
    let (message, _) = post(&strict, "/v1/embeddings", &body).await.error(400);
    assert!(message.contains("no address that pictures are fetched from"), "{message}");
}

/// Everything that the server says to these bytes, until it ends the connection.
async fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address(server)).await.unwrap();
    // It may have ended before all of it was sent.
    let _ = stream.write_all(bytes).await;
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said).await;
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_and_hostile_http_has_its_answer_or_an_end() {
    // What is left open ends by its clock.
    let server = Server::start(&["--max-connection-idle=200ms", "--first-request-timeout=500ms"]).await;
    let body = json!({"input": "a"}).to_string();
    let head = "POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let plain = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    let statuses = async |bytes: String| -> Vec<String> {
        let said = raw(&server, bytes.as_bytes()).await;
        // A body ends without a line's end.
        said.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].to_owned()).collect()
    };
    // One after the other on one connection, before the first is answered.
    assert_eq!(statuses(plain.repeat(3)).await, ["200"; 3]);
    let chunks: String = body.chars().map(|char| format!("1\r\n{char}\r\n")).collect();
    assert_eq!(statuses(format!("{head}transfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")).await, ["200"]);
    let expects = format!("{head}expect: 100-continue\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    assert_eq!(statuses(expects).await, ["100", "200"]);

    // What two servers could read in two ways: refused, or read in one way and nothing else taken for a request.
    let inside = "GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n";
    for smuggled in [
        format!("{head}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{inside}"),
        format!("{head}content-length: 0\r\ncontent-length: {}\r\n\r\n{inside}", inside.len()),
        format!("{head}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n{inside}"),
        format!("{head}content-length: -1\r\n\r\n{inside}"),
        format!("{head}content-length: +{}\r\n\r\n{body}{inside}", body.len()),
        format!("{head}transfer-encoding : chunked\r\n\r\n0\r\n\r\n{inside}"),
        format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n{inside}"),
        format!("{head}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n{inside}"),
    ] {
        let statuses = statuses(smuggled.clone()).await;
        let refused = statuses.iter().all(|status| status.starts_with('4'));
        assert!(refused || !statuses.contains(&"200".to_owned()), "{smuggled}: {statuses:?}");
    }
    for hostile in [
        "\u{16}\u{3}\u{1}nonsense".to_owned(),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(200_000)),
        format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(5_000)),
        format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(200_000)),
        format!("{}\r\n\r\n", "\r\n".repeat(1000)),
    ] {
        let statuses = statuses(hostile.clone()).await;
        assert!(statuses.iter().all(|status| status.starts_with('4')), "{statuses:?}");
    }
    assert_eq!(statuses(plain).await, ["200"], "still here");
    let scrape = Scrape::quiet(server.running.metrics_address).await;
    assert_eq!(scrape.value("clip_requests_total{method=\"/v1/embeddings\",code=\"INTERNAL\"}"), 0.0);
}
