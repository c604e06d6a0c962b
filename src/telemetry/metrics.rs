//! Every metric of the process, with its labels; [`super::names`] has the names.
//!
//! Each server has a recorder of its own rather than a global one, so that several live in one test
//! process. Handles are cheap to clone; ask for them once and keep them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::names::*;
use crate::modality::Modality;

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
