//! Every metric of the process: names, labels, buckets. No other file names a metric.
//!
//! Each server has a recorder of its own rather than a global one, so that several live in one test
//! process. Handles are cheap to clone; ask for them once and keep them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::modality::Modality;

const REQUESTS: &str = "clip_requests_total";
const REQUEST_DURATION: &str = "clip_request_duration_seconds";
const STREAM_INPUT_DURATION: &str = "clip_stream_input_duration_seconds";
const INPUT_ERRORS: &str = "clip_input_errors_total";
const EXPIRATIONS: &str = "clip_expirations_total";
const CONNECTIONS: &str = "clip_connections";
const CONNECTIONS_ENDED: &str = "clip_connections_ended_total";
const STREAMS: &str = "clip_streams";
const REQUEST_BYTES: &str = "clip_request_bytes_in_flight";
const RESPONSE_BYTES: &str = "clip_response_bytes_in_flight";
const KEYS: &str = "clip_keys";
const CERTIFICATE_EXPIRY: &str = "clip_certificate_expiry_timestamp_seconds";
const RELOAD_FAILURES: &str = "clip_reload_failures_total";
const KEY_REQUESTS: &str = "clip_key_requests_total";
const KEY_ROWS: &str = "clip_key_rows_total";
const KEY_BYTES: &str = "clip_key_request_bytes_total";
const LIMIT: &str = "clip_limit";
const MODEL_INFO: &str = "clip_model_info";
const REQUESTS_IN_FLIGHT: &str = "clip_requests_in_flight";
pub(crate) const REJECTIONS: &str = "clip_rejections_total";
const PREPROCESS_QUEUE: &str = "clip_preprocess_queue_rows";
const PREPROCESS_QUEUE_DURATION: &str = "clip_preprocess_queue_duration_seconds";
const PREPROCESS_DURATION: &str = "clip_preprocess_duration_seconds";
const QUEUE_ROWS: &str = "clip_queue_rows";
const QUEUE_DURATION: &str = "clip_queue_duration_seconds";
const BATCHES: &str = "clip_batches_total";
pub(crate) const BATCH_ROWS: &str = "clip_batch_rows";
const BATCH_PADDING: &str = "clip_batch_padding_ratio";
const INFERENCE_DURATION: &str = "clip_inference_duration_seconds";
const DEVICE_IDLE: &str = "clip_device_idle_duration_seconds";
const PREDICTED_DURATION: &str = "clip_predicted_batch_duration_seconds";
const JOBS: &str = "clip_jobs_total";
const LABEL_CACHE_HITS: &str = "clip_label_cache_hits_total";
const LABEL_CACHE_MISSES: &str = "clip_label_cache_misses_total";
const WORKERS: &str = "clip_workers";
const READY: &str = "clip_ready";
const DRAINING: &str = "clip_draining";
const SPANS_EXPORTED: &str = "clip_spans_exported_total";
const SPANS_DROPPED: &str = "clip_spans_dropped_total";
const BUILD_INFO: &str = "clip_build_info";

/// Named by the library that counts it.
pub(crate) const PROCESS_CPU_SECONDS: &str = "process_cpu_seconds_total";

/// From 100 us (a cached classification) to a minute (a saturated CPU), a factor of 2 to 2.5 apart.
const SECONDS: [f64; 18] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0,
];
/// What clients wait for, closer together where service levels are set.
const RESPONSE_SECONDS: [f64; 32] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25,
    0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 60.0,
];
const ROWS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
const RATIO: [f64; 8] = [0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9];

const METADATA: Metadata<'static> = Metadata::new("clipd", Level::INFO, None);

/// Makes handles and renders the exposition text.
#[derive(Clone)]
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    process: metrics_process::Collector,
    sampled: Arc<Mutex<Vec<Sampled>>>,
}

/// A gauge whose value is asked for when it is shown.
struct Sampled {
    gauge: Gauge,
    value: Box<dyn Fn() -> f64 + Send>,
}

impl Metrics {
    #[expect(clippy::expect_used, reason = "the bucket lists are constants and not empty")]
    pub fn new() -> Metrics {
        let buckets = [
            (Matcher::Suffix("_seconds".into()), &SECONDS[..]),
            (Matcher::Full(REQUEST_DURATION.into()), &RESPONSE_SECONDS[..]),
            (Matcher::Full(STREAM_INPUT_DURATION.into()), &RESPONSE_SECONDS[..]),
            (Matcher::Full(BATCH_ROWS.into()), &ROWS[..]),
            (Matcher::Full(BATCH_PADDING.into()), &RATIO[..]),
        ];
        let recorder = buckets
            .into_iter()
            .try_fold(PrometheusBuilder::new(), |builder, (matcher, buckets)| {
                builder.set_buckets_for_metric(matcher, buckets)
            })
            .expect("bucket lists are not empty")
            .build_recorder();
        describe(&recorder);
        let process = metrics_process::Collector::default();
        metrics::with_local_recorder(&recorder, || process.describe());
        let handle = recorder.handle();
        let metrics = Metrics { recorder: Arc::new(recorder), handle, process, sampled: Arc::default() };
        metrics.gauge(BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION"))]).set(1.0);
        metrics
    }

    /// The Prometheus text of this moment.
    pub fn render(&self) -> String {
        metrics::with_local_recorder(&*self.recorder, || self.process.collect());
        for Sampled { gauge, value } in &*self.sampled.lock().unwrap_or_else(PoisonError::into_inner) {
            gauge.set(value());
        }
        self.handle.run_upkeep();
        // The library's counters are whole numbers, so it counts seconds in a gauge.
        let [gauge, counter] =
            ["gauge", "counter"].map(|kind| format!("# TYPE {PROCESS_CPU_SECONDS} {kind}\n"));
        self.handle.render().replace(&gauge, &counter)
    }

    /// From now on `gauge` shows what `value` says at each rendering.
    fn sample(&self, gauge: Gauge, value: impl Fn() -> f64 + Send + 'static) {
        let sampled = Sampled { gauge, value: Box::new(value) };
        self.sampled.lock().unwrap_or_else(PoisonError::into_inner).push(sampled);
    }

    /// Calls by method and canonical gRPC status code name.
    pub fn requests(&self, method: &'static str, code: &'static str) -> Counter {
        self.counter(REQUESTS, &[("method", method), ("code", code)])
    }

    pub fn request_duration(&self, method: &'static str, code: &'static str) -> Histogram {
        self.histogram(REQUEST_DURATION, &[("method", method), ("code", code)])
    }

    /// `modality` is `None` for an input that is neither.
    pub fn stream_input_duration(&self, modality: Option<Modality>, outcome: &'static str) -> Histogram {
        self.histogram(STREAM_INPUT_DURATION, &[("modality", word(modality)), ("outcome", outcome)])
    }

    /// Inputs that are answered with what is wrong with them.
    pub fn input_errors(&self, modality: Option<Modality>) -> Counter {
        self.counter(INPUT_ERRORS, &[("modality", word(modality))])
    }

    /// Calls and inputs of streams whose deadline passed, by where it did.
    pub fn expirations(&self, stage: &'static str) -> Counter {
        self.counter(EXPIRATIONS, &[("stage", stage)])
    }

    pub fn sample_connections(&self, port: &'static str, value: impl Fn() -> usize + Send + 'static) {
        self.sample(self.gauge(CONNECTIONS, &[("port", port)]), move || value() as f64);
    }

    /// Connections that the server ended, by the reason.
    pub fn connections_ended(&self, port: &'static str, reason: &'static str) -> Counter {
        self.counter(CONNECTIONS_ENDED, &[("port", port), ("reason", reason)])
    }

    pub fn sample_streams(&self, value: impl Fn() -> usize + Send + 'static) {
        self.sample(self.gauge(STREAMS, &[]), move || value() as f64);
    }

    pub fn sample_request_bytes(&self, value: impl Fn() -> usize + Send + 'static) {
        self.sample(self.gauge(REQUEST_BYTES, &[]), move || value() as f64);
    }

    pub fn sample_response_bytes(&self, value: impl Fn() -> usize + Send + 'static) {
        self.sample(self.gauge(RESPONSE_BYTES, &[]), move || value() as f64);
    }

    pub fn sample_keys(&self, value: impl Fn() -> usize + Send + 'static) {
        self.sample(self.gauge(KEYS, &[]), move || value() as f64);
    }

    /// Changes that could not be used, of the files of `what`: keys or tls.
    pub fn reload_failures(&self, what: &'static str) -> Counter {
        self.counter(RELOAD_FAILURES, &[("files", what)])
    }

    /// When the server's certificate ends, in seconds since 1970.
    pub fn certificate_expiry(&self) -> Gauge {
        self.gauge(CERTIFICATE_EXPIRY, &[])
    }

    /// Calls by the name of their key and canonical gRPC status code name.
    pub fn key_requests(&self, key: &str, code: &'static str) -> Counter {
        self.counter(KEY_REQUESTS, &[("key", key), ("code", code)])
    }

    pub fn key_rows(&self, key: &str) -> Counter {
        self.counter(KEY_ROWS, &[("key", key)])
    }

    /// Of request messages.
    pub fn key_bytes(&self, key: &str) -> Counter {
        self.counter(KEY_BYTES, &[("key", key)])
    }

    /// What the gauge or queue of that name is at most.
    pub fn limit(&self, name: &'static str) -> Gauge {
        self.gauge(LIMIT, &[("name", name)])
    }

    pub fn model_info(&self, name: &str, fingerprint: &str, device: &str, precision: &str) -> Gauge {
        let labels =
            [("name", name), ("fingerprint", fingerprint), ("device", device), ("precision", precision)];
        self.gauge(MODEL_INFO, &labels)
    }

    pub fn requests_in_flight(&self) -> Gauge {
        self.gauge(REQUESTS_IN_FLIGHT, &[])
    }

    /// Work refused before it cost anything, by reason.
    pub fn rejections(&self, reason: &'static str) -> Counter {
        self.counter(REJECTIONS, &[("reason", reason)])
    }

    pub fn preprocess_queue(&self) -> Gauge {
        self.gauge(PREPROCESS_QUEUE, &[])
    }

    pub fn preprocess_queue_duration(&self, modality: Modality) -> Histogram {
        self.histogram(PREPROCESS_QUEUE_DURATION, &[("modality", modality.as_str())])
    }

    pub fn preprocess_duration(&self, modality: Modality) -> Histogram {
        self.histogram(PREPROCESS_DURATION, &[("modality", modality.as_str())])
    }

    pub fn queue_rows(&self, modality: Modality) -> Gauge {
        self.gauge(QUEUE_ROWS, &[("modality", modality.as_str())])
    }

    pub fn queue_duration(&self, modality: Modality) -> Histogram {
        self.histogram(QUEUE_DURATION, &[("modality", modality.as_str())])
    }

    pub fn batches(&self, modality: Modality, close_reason: &'static str) -> Counter {
        self.counter(BATCHES, &[("modality", modality.as_str()), ("close_reason", close_reason)])
    }

    pub fn batch_rows(&self, modality: Modality) -> Histogram {
        self.histogram(BATCH_ROWS, &[("modality", modality.as_str())])
    }

    /// Share of a batch's tokens that are padding.
    pub fn batch_padding(&self, modality: Modality) -> Histogram {
        self.histogram(BATCH_PADDING, &[("modality", modality.as_str())])
    }

    /// `device` and `precision` are those that the worker reported.
    pub fn inference_duration(&self, modality: Modality, device: &str, precision: &str) -> Histogram {
        let labels = [("modality", modality.as_str()), ("device", device), ("precision", precision)];
        self.histogram(INFERENCE_DURATION, &labels)
    }

    /// Before a batch: time for which its rows waited though the worker's device had nothing to do.
    pub fn device_idle_duration(&self, device: &str) -> Histogram {
        self.histogram(DEVICE_IDLE, &[("device", device)])
    }

    /// What the scheduler expects a batch of that size to take; `tokens` per row, 0 for images.
    pub fn predicted_duration(&self, device: &str, modality: Modality, rows: usize, tokens: u32) -> Gauge {
        let (rows, tokens) = (rows.to_string(), tokens.to_string());
        let labels = [
            ("device", device),
            ("modality", modality.as_str()),
            ("rows", rows.as_str()),
            ("tokens", tokens.as_str()),
        ];
        self.gauge(PREDICTED_DURATION, &labels)
    }

    /// Jobs by their one outcome.
    pub fn jobs(&self, outcome: &'static str) -> Counter {
        self.counter(JOBS, &[("outcome", outcome)])
    }

    pub fn label_cache_hits(&self) -> Counter {
        self.counter(LABEL_CACHE_HITS, &[])
    }

    pub fn label_cache_misses(&self) -> Counter {
        self.counter(LABEL_CACHE_MISSES, &[])
    }

    /// Spans of traces that the collector has taken.
    pub fn spans_exported(&self) -> Counter {
        self.counter(SPANS_EXPORTED, &[])
    }

    /// Spans that it will never see.
    pub fn spans_dropped(&self, reason: &'static str) -> Counter {
        self.counter(SPANS_DROPPED, &[("reason", reason)])
    }

    pub fn workers(&self, device: &str, state: &'static str) -> Gauge {
        self.gauge(WORKERS, &[("device", device), ("state", state)])
    }

    pub fn sample_ready(&self, value: impl Fn() -> bool + Send + 'static) {
        self.sample(self.gauge(READY, &[]), move || f64::from(u8::from(value())));
    }

    pub fn sample_draining(&self, value: impl Fn() -> bool + Send + 'static) {
        self.sample(self.gauge(DRAINING, &[]), move || f64::from(u8::from(value())));
    }

    fn counter(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        self.recorder.register_counter(&key(name, labels), &METADATA)
    }

    fn gauge(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
        self.recorder.register_gauge(&key(name, labels), &METADATA)
    }

    fn histogram(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Histogram {
        self.recorder.register_histogram(&key(name, labels), &METADATA)
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

fn word(modality: Option<Modality>) -> &'static str {
    modality.map_or("none", Modality::as_str)
}

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned()));
    Key::from_parts(name, labels.collect::<Vec<_>>())
}

/// Records a duration in seconds, the base unit of every duration here.
pub trait RecordDuration {
    fn record_duration(&self, duration: Duration);
}

impl RecordDuration for Histogram {
    fn record_duration(&self, duration: Duration) {
        self.record(duration.as_secs_f64());
    }
}

/// HELP lines.
fn describe(recorder: &PrometheusRecorder) {
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
