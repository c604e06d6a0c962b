//! The names of metrics, what they tell, and the buckets of histograms. No other file names a metric.

use metrics::{Recorder, Unit};
use metrics_exporter_prometheus::PrometheusRecorder;

pub(super) const REQUESTS: &str = "clip_requests_total";
pub(super) const REQUEST_DURATION: &str = "clip_request_duration_seconds";
pub(super) const STREAM_INPUT_DURATION: &str = "clip_stream_input_duration_seconds";
pub(super) const INPUT_ERRORS: &str = "clip_input_errors_total";
pub(super) const EXPIRATIONS: &str = "clip_expirations_total";
pub(super) const CONNECTIONS: &str = "clip_connections";
pub(super) const CONNECTIONS_ENDED: &str = "clip_connections_ended_total";
pub(super) const STREAMS: &str = "clip_streams";
pub(super) const REQUEST_BYTES: &str = "clip_request_bytes_in_flight";
pub(super) const RESPONSE_BYTES: &str = "clip_response_bytes_in_flight";
pub(super) const KEYS: &str = "clip_keys";
pub(super) const CERTIFICATE_EXPIRY: &str = "clip_certificate_expiry_timestamp_seconds";
pub(super) const RELOAD_FAILURES: &str = "clip_reload_failures_total";
pub(super) const KEY_REQUESTS: &str = "clip_key_requests_total";
pub(super) const KEY_ROWS: &str = "clip_key_rows_total";
pub(super) const KEY_BYTES: &str = "clip_key_request_bytes_total";
pub(super) const LIMIT: &str = "clip_limit";
pub(super) const MODEL_INFO: &str = "clip_model_info";
pub(super) const REQUESTS_IN_FLIGHT: &str = "clip_requests_in_flight";
pub(crate) const REJECTIONS: &str = "clip_rejections_total";
pub(super) const PREPROCESS_QUEUE: &str = "clip_preprocess_queue_rows";
pub(super) const PREPROCESS_QUEUE_DURATION: &str = "clip_preprocess_queue_duration_seconds";
pub(super) const PREPROCESS_DURATION: &str = "clip_preprocess_duration_seconds";
pub(super) const QUEUE_ROWS: &str = "clip_queue_rows";
pub(super) const QUEUE_DURATION: &str = "clip_queue_duration_seconds";
pub(super) const BATCHES: &str = "clip_batches_total";
pub(crate) const BATCH_ROWS: &str = "clip_batch_rows";
pub(super) const BATCH_PADDING: &str = "clip_batch_padding_ratio";
pub(super) const INFERENCE_DURATION: &str = "clip_inference_duration_seconds";
pub(super) const DEVICE_IDLE: &str = "clip_device_idle_duration_seconds";
pub(super) const PREDICTED_DURATION: &str = "clip_predicted_batch_duration_seconds";
pub(super) const JOBS: &str = "clip_jobs_total";
pub(super) const LABEL_CACHE_HITS: &str = "clip_label_cache_hits_total";
pub(super) const LABEL_CACHE_MISSES: &str = "clip_label_cache_misses_total";
pub(super) const WORKERS: &str = "clip_workers";
pub(super) const READY: &str = "clip_ready";
pub(super) const DRAINING: &str = "clip_draining";
pub(super) const SPANS_EXPORTED: &str = "clip_spans_exported_total";
pub(super) const SPANS_DROPPED: &str = "clip_spans_dropped_total";
pub(super) const BUILD_INFO: &str = "clip_build_info";

/// Named by the library that counts it.
pub(crate) const PROCESS_CPU_SECONDS: &str = "process_cpu_seconds_total";

/// From 100 us (a cached classification) to a minute (a saturated CPU), a factor of 2 to 2.5 apart.
pub(super) const SECONDS: [f64; 18] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0,
];
/// What clients wait for, closer together where service levels are set.
pub(super) const RESPONSE_SECONDS: [f64; 32] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25,
    0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 60.0,
];
pub(super) const ROWS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
pub(super) const RATIO: [f64; 8] = [0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9];

/// HELP lines.
pub(super) fn describe(recorder: &PrometheusRecorder) {
    let counters = [
        (REQUESTS, "Calls by method and gRPC status code."),
        (INPUT_ERRORS, "Inputs answered with what is wrong with them, in calls and streams."),
        (
            EXPIRATIONS,
            "Calls and inputs of streams whose deadline passed, by stage: receive, preprocess, queue, engine, reply.",
        ),
        (REJECTIONS, "Calls refused for lack of room, by reason."),
        (CONNECTIONS_ENDED, "Connections that the server ended, by port and reason."),
        (KEY_REQUESTS, "Calls by the name of their key and status; unknown keys are ?."),
        (KEY_ROWS, "Images and texts by the name of the key."),
        (KEY_BYTES, "Bytes of request messages by the name of the key."),
        (RELOAD_FAILURES, "Changes of files that could not be used: of keys, or of tls."),
        (BATCHES, "Batches by modality and the reason they closed."),
        (JOBS, "Rows submitted, by outcome: completed, expired, cancelled, rejected, failed."),
        (LABEL_CACHE_HITS, "Prompts whose embedding was cached."),
        (LABEL_CACHE_MISSES, "Prompts that had to be embedded."),
        (SPANS_EXPORTED, "Spans of traces that the collector has taken."),
        (SPANS_DROPPED, "Spans of traces that were lost, by reason: queue_full, export_failed."),
    ];
    let gauges = [
        (REQUESTS_IN_FLIGHT, "Calls being served."),
        (CONNECTIONS, "Open connections by port."),
        (STREAMS, "Streams being served."),
        (REQUEST_BYTES, "Bytes of request messages being held."),
        (RESPONSE_BYTES, "Bytes of answers that are not taken yet."),
        (KEYS, "API keys in force."),
        (CERTIFICATE_EXPIRY, "When the certificate of the server ends, in seconds since 1970."),
        (LIMIT, "What the server holds at most, by name."),
        (MODEL_INFO, "Always 1; what is served, and what runs it, are labels."),
        (PREPROCESS_QUEUE, "Inputs that wait for or are in preprocessing."),
        (QUEUE_ROWS, "Rows that wait for a worker."),
        (PREDICTED_DURATION, "What a batch of that size is expected to take."),
        (WORKERS, "Workers by device and state: starting, ready, lost."),
        (READY, "1 if calls should be sent here, otherwise 0."),
        (DRAINING, "1 if the server is leaving, otherwise 0."),
        (BUILD_INFO, "Always 1; the version is a label."),
    ];
    let histograms = [
        (REQUEST_DURATION, "From the arrival of a call to its last byte."),
        (STREAM_INPUT_DURATION, "From the reading of a stream's input to its answer, by outcome."),
        (PREPROCESS_QUEUE_DURATION, "Wait for a thread that decodes, resizes or tokenizes."),
        (PREPROCESS_DURATION, "Decoding and resizing an image, or tokenizing texts, without waiting."),
        (QUEUE_DURATION, "From submission to the start of the batch."),
        (BATCH_ROWS, "Rows of a batch."),
        (BATCH_PADDING, "Share of a batch's tokens that are padding."),
        (INFERENCE_DURATION, "A batch on the device."),
        (DEVICE_IDLE, "Time before a batch for which its rows waited though the device was idle."),
    ];
    for (name, text) in counters {
        recorder.describe_counter(name.into(), None, text.into());
    }
    for (name, text) in gauges {
        recorder.describe_gauge(name.into(), None, text.into());
    }
    for (name, text) in histograms {
        let unit = name.ends_with("_seconds").then_some(Unit::Seconds);
        recorder.describe_histogram(name.into(), unit, text.into());
    }
}
