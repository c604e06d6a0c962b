//! Every metric of the process: names, labels, buckets. No other file names a metric.
//!
//! Each server has a recorder of its own rather than a global one, so that several live in one test
//! process. Handles are cheap to clone; ask for them once and keep them.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::modality::Modality;

const REQUESTS: &str = "clip_requests_total";
const REQUEST_DURATION: &str = "clip_request_duration_seconds";
const REQUESTS_IN_FLIGHT: &str = "clip_requests_in_flight";
pub(crate) const REJECTIONS: &str = "clip_rejections_total";
const PREPROCESS_QUEUE: &str = "clip_preprocess_queue_rows";
const PREPROCESS_WAIT: &str = "clip_preprocess_wait_seconds";
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
const BUILD_INFO: &str = "clip_build_info";

/// From 100 us (a cached classification) to a minute (a saturated CPU), a factor of 2 to 2.5 apart.
const SECONDS: [f64; 18] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0,
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
}

impl Metrics {
    #[expect(clippy::expect_used, reason = "the bucket lists are constants and not empty")]
    pub fn new() -> Metrics {
        let buckets = [
            (Matcher::Suffix("_seconds".into()), &SECONDS[..]),
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
        let handle = recorder.handle();
        let metrics =
            Metrics { recorder: Arc::new(recorder), handle, process: metrics_process::Collector::default() };
        metrics.gauge(BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION"))]).set(1.0);
        metrics
    }

    /// The Prometheus text of this moment.
    pub fn render(&self) -> String {
        metrics::with_local_recorder(&*self.recorder, || self.process.collect());
        self.handle.run_upkeep();
        self.handle.render()
    }

    /// Calls by method and canonical gRPC status code name.
    pub fn requests(&self, method: &'static str, code: &'static str) -> Counter {
        self.counter(REQUESTS, &[("method", method), ("code", code)])
    }

    pub fn request_duration(&self, method: &'static str) -> Histogram {
        self.histogram(REQUEST_DURATION, &[("method", method)])
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

    pub fn preprocess_wait(&self) -> Histogram {
        self.histogram(PREPROCESS_WAIT, &[])
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

    pub fn workers(&self, device: &str, state: &'static str) -> Gauge {
        self.gauge(WORKERS, &[("device", device), ("state", state)])
    }

    pub fn ready(&self) -> Gauge {
        self.gauge(READY, &[])
    }

    pub fn draining(&self) -> Gauge {
        self.gauge(DRAINING, &[])
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
        (REJECTIONS, "Calls refused for lack of room, by reason."),
        (BATCHES, "Batches by modality and the reason they closed."),
        (JOBS, "Rows submitted, by outcome: completed, expired, cancelled, rejected, failed."),
        (LABEL_CACHE_HITS, "Prompts whose embedding was cached."),
        (LABEL_CACHE_MISSES, "Prompts that had to be embedded."),
    ];
    let gauges = [
        (REQUESTS_IN_FLIGHT, "Calls being served."),
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
        (
            PREPROCESS_WAIT,
            "An image's wait for a preprocessing thread, also of one that was dropped as too late.",
        ),
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
