//! What Prometheus sees.

use clipd::grpc::proto::{ClassifyRequest, StreamEmbedRequest};
use tokio_stream::StreamExt;
use tonic::Code;

use crate::support::scrape::Scrape;
use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_metric_is_there_and_the_counts_add_up() {
    let mut server = Server::start(&[]).await;
    let inputs = vec![
        text_input("a cat"),
        text_input(""),
        text_input("a photo of a much longer sentence about a cat"),
        image_input(image(fixture("images/cat.png"))),
    ];
    server.client.embed(embed_request(inputs)).await.unwrap();
    let classify = ClassifyRequest {
        images: vec![image(fixture("images/dog.png"))],
        labels: vec!["dog".into(), "cat".into()],
        ..ClassifyRequest::default()
    };
    server.client.classify(classify).await.unwrap();
    server.client.classify(ClassifyRequest::default()).await.unwrap_err();

    let scrape = Scrape::quiet(server.running.metrics_address).await;
    let check = |sample: &str, expected: f64| assert_eq!(scrape.value(sample), expected, "{sample}");
    check("clip_requests_total{method=\"Embed\",code=\"OK\"}", 1.0);
    check("clip_requests_total{method=\"Classify\",code=\"OK\"}", 1.0);
    check("clip_requests_total{method=\"Classify\",code=\"INVALID_ARGUMENT\"}", 1.0);
    check("clip_request_duration_seconds_count{method=\"Classify\",code=\"OK\"}", 1.0);
    check("clip_request_duration_seconds_count{method=\"Classify\",code=\"INVALID_ARGUMENT\"}", 1.0);
    check("clip_input_errors_total{modality=\"text\"}", 1.0);
    check("clip_input_errors_total{modality=\"image\"}", 0.0);
    check("clip_requests_in_flight", 0.0);
    check("clip_preprocess_queue_rows", 0.0);
    check("clip_preprocess_queue_duration_seconds_count{modality=\"image\"}", 2.0);
    check("clip_preprocess_duration_seconds_count{modality=\"image\"}", 2.0);
    check("clip_queue_rows{modality=\"image\"}", 0.0);
    check("clip_queue_duration_seconds_count{modality=\"image\"}", 2.0);
    check("clip_queue_duration_seconds_count{modality=\"text\"}", 4.0);
    check("clip_batch_rows_sum{modality=\"image\"}", 2.0);
    check("clip_batch_rows_sum{modality=\"text\"}", 4.0);
    check("clip_jobs_total{outcome=\"completed\"}", 6.0);
    for outcome in ["expired", "cancelled", "rejected", "failed"] {
        check(&format!("clip_jobs_total{{outcome=\"{outcome}\"}}"), 0.0);
    }
    check("clip_label_cache_misses_total", 2.0);
    check("clip_label_cache_hits_total", 0.0);
    check("clip_workers{device=\"cpu\",state=\"ready\"}", 1.0);
    check("clip_build_info{version=\"0.1.0\"}", 1.0);
    check("clip_ready", 1.0);
    check("clip_connections{port=\"grpc\"}", 1.0);
    check("clip_limit{name=\"queue_rows\"}", 1024.0);
    let model = "clip_model_info{name=\"emoji-clip\",fingerprint=\"";
    let runs = "\",device=\"cpu\",precision=\"fp32\"} 1";
    assert!(
        scrape.text.lines().any(|line| line.starts_with(model) && line.ends_with(runs)),
        "{}",
        scrape.text
    );
    assert_eq!(scrape.sum("clip_batches_total{modality=\"image\""), 2.0);
    // Whether texts of different lengths ran together depends on what the warm-up measured.
    let batches = scrape.sum("clip_batches_total{modality=\"text\"");
    check("clip_batch_padding_ratio_count{modality=\"text\"}", batches);
    let inference =
        "clip_inference_duration_seconds_sum{modality=\"image\",device=\"cpu\",precision=\"fp32\"}";
    assert!(scrape.value(inference) > 0.0);
    assert!(scrape.value("process_resident_memory_bytes") > 1e6);
    assert!(scrape.value("process_open_fds") > 1.0);
    assert!(scrape.text.contains("process_cpu_seconds_total"));
}

/// A ratio of what has not happened yet is 0 and not missing, and the first of a kind is an increase.
#[tokio::test(flavor = "multi_thread")]
async fn series_are_there_before_anything_has_happened() {
    let (server, _gate) = Server::gated(&[]).await;
    let text = Scrape::of(server.running.metrics_address).await.text;
    let check = |series: &str| assert!(text.lines().any(|line| line.starts_with(series)), "{series}: {text}");
    for method in ["Embed", "Classify", "GetModel", "StreamEmbed", "StreamClassify"] {
        for code in ["OK", "CANCELLED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "INTERNAL"]
        {
            check(&format!("clip_requests_total{{method=\"{method}\",code=\"{code}\"}} 0"));
        }
        // Where service levels are set.
        check(&format!(
            "clip_request_duration_seconds_bucket{{method=\"{method}\",code=\"OK\",le=\"0.2\"}} 0"
        ));
    }
    let reasons =
        ["concurrent_requests", "streams", "bytes_in_flight", "queue_full", "deadline", "label_fills"];
    reasons.iter().for_each(|reason| check(&format!("clip_rejections_total{{reason=\"{reason}\"}} 0")));
    let stages = ["receive", "preprocess", "queue", "engine"];
    stages.iter().for_each(|stage| check(&format!("clip_expirations_total{{stage=\"{stage}\"}} 0")));
    for modality in ["image", "text"] {
        for reason in ["best_size", "idle", "deadline", "delay", "drain"] {
            let labels = format!("modality=\"{modality}\",close_reason=\"{reason}\"");
            check(&format!("clip_batches_total{{{labels}}} 0"));
        }
        check(&format!("clip_input_errors_total{{modality=\"{modality}\"}} 0"));
    }
    ["clip_streams 0", "clip_request_bytes_in_flight 0", "clip_draining 0"].into_iter().for_each(check);
}

/// As `promtool check metrics` asks: a name that ends in `_total` is a counter, and every metric has its help.
#[tokio::test(flavor = "multi_thread")]
async fn every_metric_has_help_and_counters_are_counters() {
    let (server, _gate) = Server::gated(&[]).await;
    let text = Scrape::of(server.running.metrics_address).await.text;
    let types: Vec<_> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    assert!(types.iter().any(|(name, _)| *name == "process_cpu_seconds_total"), "{text}");
    for (name, kind) in types {
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        assert!(text.contains(&format!("# HELP {name} ")), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_of_streams_are_timed_by_outcome() {
    let (mut server, _gate) = Server::gated(&[]).await;
    let inputs = [Some(image_input(picture(1))), Some(text_input("a cat")), Some(text_input(" ")), None];
    let requests = inputs.map(|input| StreamEmbedRequest { input, ..StreamEmbedRequest::default() });
    let answers = server.client.stream_embed(tokio_stream::iter(requests)).await.unwrap().into_inner();
    assert_eq!(answers.collect::<Vec<_>>().await.len(), 4);
    let scrape = Scrape::quiet(server.running.metrics_address).await;
    for (modality, outcome) in
        [("image", "answered"), ("text", "answered"), ("text", "invalid"), ("none", "invalid")]
    {
        let labels = format!("modality=\"{modality}\",outcome=\"{outcome}\"");
        let count = scrape.value(&format!("clip_stream_input_duration_seconds_count{{{labels}}}"));
        assert_eq!(count, 1.0, "{labels}: {}", scrape.text);
    }
    for (modality, errors) in [("image", 0.0), ("text", 1.0), ("none", 1.0)] {
        let sample = format!("clip_input_errors_total{{modality=\"{modality}\"}}");
        assert_eq!(scrape.value(&sample), errors, "{sample}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_is_counted_where_it_does() {
    let (server, gate) = Server::gated(&["--max-batch-size=1", "--timeout=3s"]).await;
    gate.close();
    let call = |seed| {
        let mut client = server.client.clone();
        tokio::spawn(async move { client.embed(one_image(seed)).await })
    };
    let running = call(1);
    gate.wait_started(1);
    // One that is put together meanwhile, and one in the queue.
    let waiting = [call(2), call(3)];
    for call in [running].into_iter().chain(waiting) {
        assert_eq!(call.await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    }
    gate.open_again();
    let scrape = Scrape::quiet(server.running.metrics_address).await;
    let at = |stage: &str| scrape.value(&format!("clip_expirations_total{{stage=\"{stage}\"}}"));
    assert!(at("engine") >= 1.0 && at("queue") >= 1.0, "{}", scrape.text);
    assert_eq!(at("engine") + at("queue"), 3.0, "{}", scrape.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_in_one_process_count_apart() {
    let (mut one, _gate) = Server::gated(&[]).await;
    let (other, _gate) = Server::gated(&[]).await;
    one.client.embed(one_image(0)).await.unwrap();
    assert_eq!(Scrape::of(one.running.metrics_address).await.jobs("completed"), 1.0);
    assert_eq!(Scrape::of(other.running.metrics_address).await.jobs("completed"), 0.0);
}
