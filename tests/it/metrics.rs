//! What Prometheus sees.

use clipd::grpc::proto::ClassifyRequest;

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
    check("clip_request_duration_seconds_count{method=\"Classify\"}", 2.0);
    check("clip_requests_in_flight", 0.0);
    check("clip_preprocess_queue_rows", 0.0);
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

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_in_one_process_count_apart() {
    let (mut one, _gate) = Server::gated(&[]).await;
    let (other, _gate) = Server::gated(&[]).await;
    one.client.embed(one_image(0)).await.unwrap();
    assert_eq!(Scrape::of(one.running.metrics_address).await.jobs("completed"), 1.0);
    assert_eq!(Scrape::of(other.running.metrics_address).await.jobs("completed"), 0.0);
}
