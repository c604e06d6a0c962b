//! Streams: every tag is answered once, nothing is refused, and no client can hold up another.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clipd::grpc::proto::stream_classify_request::Request as ClassifyMessage;
use clipd::grpc::proto::stream_classify_response::Result as Classified;
use clipd::grpc::proto::stream_embed_response::Result as Embedded;
use clipd::grpc::proto::{
    ClassifyOptions, ClassifyRequest, EmbeddingFormat, Input, StreamClassifyRequest, StreamEmbedRequest,
    StreamEmbedResponse, TaggedImage,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::support::scrape::Scrape;
use crate::support::*;

fn message(tag: u64, input: Input) -> StreamEmbedRequest {
    StreamEmbedRequest { tag, input: Some(input), ..StreamEmbedRequest::default() }
}

fn one(tag: u64) -> StreamEmbedRequest {
    message(tag, image_input(picture(tag as u8)))
}

/// A stream whose client is a channel: dropping the sender half-closes.
async fn open(server: &Server) -> (mpsc::Sender<StreamEmbedRequest>, Streaming<StreamEmbedResponse>) {
    let (sender, receiver) = mpsc::channel(1);
    let responses = server.client.clone().stream_embed(ReceiverStream::new(receiver)).await.unwrap();
    (sender, responses.into_inner())
}

/// Reads to the end: results by tag, and the status if it is not OK.
async fn collect(mut responses: Streaming<StreamEmbedResponse>) -> (HashMap<u64, Embedded>, Option<Status>) {
    let mut results = HashMap::new();
    loop {
        match responses.message().await {
            Ok(Some(response)) => {
                let before = results.insert(response.tag, response.result.unwrap());
                assert!(before.is_none(), "tag {} was answered twice", response.tag);
            }
            Ok(None) => return (results, None),
            Err(status) => return (results, Some(status)),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_inputs_are_answered_once_each_and_memory_stays_flat() {
    let server = Server::start(&[]).await;
    let inputs = (0..10_000_u64).map(|tag| {
        let input = match tag % 100 {
            0 => image_input(image(b"not a picture".to_vec())),
            n if n % 3 == 0 => text_input(&format!("a text about {tag}")),
            _ => image_input(rgb(64, 64, vec![tag as u8; 64 * 64 * 3])),
        };
        message(tag, input)
    });
    let resident =
        async || Scrape::of(server.running.metrics_address).await.value("process_resident_memory_bytes");
    let responses = server.client.clone().stream_embed(tokio_stream::iter(inputs)).await.unwrap();
    let mut responses = responses.into_inner();
    let mut seen = vec![false; 10_000];
    let mut bad = 0;
    let mut after_a_tenth = 0.0;
    let mut answered = 0;
    while let Some(response) = responses.message().await.unwrap() {
        let tag = response.tag as usize;
        assert!(!std::mem::replace(&mut seen[tag], true), "tag {tag} was answered twice");
        match response.result.unwrap() {
            Embedded::Embedding(embedding) => assert_eq!(embedding.values.len(), 128),
            Embedded::Error(error) => {
                assert_eq!((tag % 100, error.code), (0, Code::InvalidArgument as i32), "{error:?}");
                assert_eq!(error.field, "input.image.encoded");
                bad += 1;
            }
        }
        answered += 1;
        if answered == 1000 {
            after_a_tenth = resident().await;
        }
    }
    assert!(seen.iter().all(|seen| *seen));
    assert_eq!(bad, 100);
    let grown = resident().await / after_a_tenth;
    println!("resident memory at the end / after a tenth: {grown:.3}");
    // Other tests run in this process too; what leaks 9,000 rows of 12 KiB would show all the same.
    assert!(grown < 1.5, "{grown}");
    let scrape = Scrape::quiet(server.running.metrics_address).await;
    assert_eq!(scrape.jobs("completed"), 9900.0);
    assert_eq!(scrape.jobs("rejected"), 0.0);
    assert_eq!(scrape.value("clip_requests_total{method=\"StreamEmbed\",code=\"OK\"}"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_input_has_the_format_that_it_asks_for() {
    let server = Server::start(&[]).await;
    let formats = [EmbeddingFormat::Float32, EmbeddingFormat::Float32Bytes, EmbeddingFormat::Float16Bytes];
    let mut inputs: Vec<StreamEmbedRequest> = (0..)
        .zip(formats)
        .map(|(tag, format)| StreamEmbedRequest { embedding_format: format.into(), ..one(tag) })
        .collect();
    inputs.push(StreamEmbedRequest { embedding_format: 9, ..one(3) });
    let responses = server.client.clone().stream_embed(tokio_stream::iter(inputs)).await.unwrap();
    let (results, end) = collect(responses.into_inner()).await;
    assert!(end.is_none(), "{end:?}");
    let sizes = |tag: u64| match &results[&tag] {
        Embedded::Embedding(embedding) => (embedding.values.len(), embedding.packed.len()),
        Embedded::Error(error) => panic!("{error:?}"),
    };
    assert_eq!([0, 1, 2].map(sizes), [(128, 0), (0, 512), (0, 256)]);
    let Embedded::Error(error) = &results[&3] else { panic!("{results:?}") };
    assert_eq!((error.code, error.field.as_str()), (Code::InvalidArgument as i32, "embedding_format"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_makes_inputs_wait_and_refuses_none() {
    let (server, gate) = Server::gated(&["--max-batch-size=1", "--max-queue-size=2", "--max-inputs=2"]).await;
    gate.close();
    let (sender, responses) = open(&server).await;
    let reader = tokio::spawn(collect(responses));
    for tag in 0..30 {
        sender.send(one(tag)).await.unwrap();
    }
    drop(sender);
    gate.open_again();
    let (results, end) = reader.await.unwrap();
    assert!(end.is_none(), "{end:?}");
    assert_eq!(results.len(), 30);
    assert!(results.values().all(|result| matches!(result, Embedded::Embedding(_))), "{results:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_slows_its_own_sender_and_nothing_else() {
    let (server, _gate) = Server::gated(&["--max-stream-inputs=8"]).await;
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = taken.clone();
    let total = 1_000_000;
    let inputs = (0..total).map(move |tag| {
        counted.fetch_add(1, Ordering::Relaxed);
        one(tag)
    });
    let responses = server.client.clone().stream_embed(tokio_stream::iter(inputs)).await.unwrap();
    let mut other = connect(&server.running);
    for seed in 0..300_u32 {
        other.embed(one_image(seed as u8)).await.unwrap();
    }
    // Results of 550 bytes fill the client's window of 64 KiB, and 64-byte inputs the server's of 1 MiB.
    let taken = taken.load(Ordering::Relaxed);
    println!("{taken} inputs taken from a client that reads nothing");
    assert!(taken < 200_000, "{taken} of {total} inputs were taken from a client that reads nothing");
    drop(responses);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_dies_frees_everything() {
    let (server, gate) = Server::gated(&["--max-streams=1", "--max-batch-size=1"]).await;
    gate.close();
    let (sender, responses) = open(&server).await;
    for tag in 0..10 {
        sender.send(one(tag)).await.unwrap();
    }
    gate.wait_started(1);
    let queue = "clip_queue_rows{modality=\"image\"}";
    let metrics = server.running.metrics_address;
    Scrape::when(metrics, queue, |value| value >= 5.0).await;
    let status = server.client.clone().stream_embed(tokio_stream::empty()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "one stream is the limit: {status}");

    drop((sender, responses));
    Scrape::when(metrics, "clip_requests_in_flight", |value| value == 0.0).await;
    Scrape::when(metrics, queue, |value| value == 0.0).await;
    gate.open_again();
    let (sender, responses) = open(&server).await;
    sender.send(one(1)).await.unwrap();
    drop(sender);
    assert_eq!(collect(responses).await.0.len(), 1);
    let scrape = Scrape::of(metrics).await;
    assert!(scrape.jobs("cancelled") >= 5.0, "{}", scrape.jobs("cancelled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_has_its_own_timeout_and_the_stream_goes_on() {
    let (server, gate) = Server::gated(&[]).await;
    gate.close();
    let (sender, mut responses) = open(&server).await;
    let hurried = StreamEmbedRequest {
        timeout: Some(prost_types::Duration { seconds: 0, nanos: 50_000_000 }),
        ..one(7)
    };
    sender.send(hurried).await.unwrap();
    let response = responses.message().await.unwrap().unwrap();
    let Some(Embedded::Error(error)) = response.result else { panic!("{response:?}") };
    assert_eq!((response.tag, error.code), (7, Code::DeadlineExceeded as i32));
    gate.open_again();
    sender.send(one(8)).await.unwrap();
    drop(sender);
    let (results, end) = collect(responses).await;
    assert!(matches!(results[&8], Embedded::Embedding(_)));
    assert!(end.is_none(), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_answers_what_was_read_and_ends_the_stream_unavailable() {
    let (server, gate) = Server::gated(&["--max-batch-size=2"]).await;
    gate.close();
    let (sender, responses) = open(&server).await;
    for tag in 0..6 {
        sender.send(one(tag)).await.unwrap();
    }
    gate.wait_started(1);
    let queue = "clip_queue_rows{modality=\"image\"}";
    Scrape::when(server.running.metrics_address, queue, |rows| rows + gate.held_rows() as f64 == 6.0).await;
    let shutdown = tokio::spawn(server.running.shutdown());
    gate.open_again();
    let (results, end) = collect(responses).await;
    assert_eq!(results.len(), 6);
    assert!(results.values().all(|result| matches!(result, Embedded::Embedding(_))));
    let end = end.unwrap();
    assert_eq!(end.code(), Code::Unavailable, "{end}");
    assert!(end.message().contains("send the inputs without an answer again"), "{end}");
    shutdown.await.unwrap().unwrap();
    drop(sender);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_stream_is_ended_politely() {
    let (server, _gate) = Server::gated(&["--max-stream-age=50ms"]).await;
    let (sender, responses) = open(&server).await;
    sender.send(one(1)).await.unwrap();
    let (results, end) = collect(responses).await;
    assert_eq!(results.len(), 1);
    assert_eq!(end.unwrap().code(), Code::Unavailable);
    drop(sender);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_of_a_stream_ends_it() {
    let (server, gate) = Server::gated(&[]).await;
    gate.close();
    let request = with_timeout(tokio_stream::pending::<StreamEmbedRequest>(), Duration::from_millis(100));
    let result = server.client.clone().stream_embed(request).await;
    let status = match result {
        Ok(responses) => collect(responses.into_inner()).await.1.unwrap(),
        Err(status) => status,
    };
    // Which timer is first, the client's or the server's, is a matter of microseconds.
    assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&status.code()), "{status}");
    gate.open_again();
}

fn options(labels: &[&str]) -> StreamClassifyRequest {
    let options = ClassifyOptions {
        labels: labels.iter().map(|label| (*label).to_owned().into()).collect(),
        templates: vec!["an emoji of {}".to_owned()],
        top_k: 1,
        ..ClassifyOptions::default()
    };
    StreamClassifyRequest { request: Some(ClassifyMessage::Options(options)) }
}

fn tagged(tag: u64, image: clipd::grpc::proto::Image) -> StreamClassifyRequest {
    let image = TaggedImage { tag, image: Some(image), timeout: None };
    StreamClassifyRequest { request: Some(ClassifyMessage::Image(image)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_images_is_classified_like_single_ones() {
    let words = ["dog", "cat", "pizza", "car"];
    let mut server = Server::start(&[]).await;
    let picture = |word: &str| image(fixture(&format!("images/{word}.png")));
    let mut messages = vec![options(&words)];
    messages.extend(words.iter().zip(0..).map(|(word, tag)| tagged(tag, picture(word))));
    messages.push(tagged(99, image(b"nonsense".to_vec())));
    let responses = server.client.stream_classify(tokio_stream::iter(messages)).await.unwrap();
    let mut responses = responses.into_inner();
    let mut results = HashMap::new();
    while let Some(response) = responses.message().await.unwrap() {
        results.insert(response.tag, response.result.unwrap());
    }
    assert_eq!(results.len(), 5);
    let Classified::Error(error) = &results[&99] else { panic!("{results:?}") };
    assert_eq!(error.field, "image.image.encoded");

    let single = ClassifyRequest {
        images: words.iter().map(|word| picture(word)).collect(),
        labels: words.map(Into::into).to_vec(),
        templates: vec!["an emoji of {}".to_owned()],
        top_k: 1,
        ..ClassifyRequest::default()
    };
    let single = server.client.classify(single).await.unwrap().into_inner();
    for (tag, result) in single.results.iter().enumerate() {
        let Classified::Predictions(streamed) = &results[&(tag as u64)] else { panic!("{results:?}") };
        let (streamed, single) = (&streamed.predictions[0], &predictions(result)[0]);
        assert_eq!(streamed.label, words[tag]);
        assert_eq!(streamed.label, single.label);
        assert!((streamed.score - single.score).abs() < 1e-5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_images_begins_with_options_and_only_begins_with_them() {
    let (server, _gate) = Server::gated(&[]).await;
    let ended = async |messages: Vec<StreamClassifyRequest>| match server
        .client
        .clone()
        .stream_classify(tokio_stream::iter(messages))
        .await
    {
        Err(status) => status,
        Ok(responses) => {
            let mut responses = responses.into_inner();
            loop {
                match responses.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("it ended well"),
                    Err(status) => break status,
                }
            }
        }
    };
    let check = |status: Status, says: &str| {
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().starts_with(says), "{status}");
    };
    check(ended(vec![tagged(1, picture(1))]).await, "options: must be set in the first message");
    check(ended(vec![options(&[])]).await, "labels: must not be empty");
    check(ended(vec![options(&["a", "a"])]).await, "labels[1]: is the same as labels[0]");
    let twice = vec![options(&["a"]), tagged(1, picture(1)), options(&["b"])];
    check(ended(twice).await, "image: must be set in every message but the first");
}
