//! The limits of the configuration as others see them: in metrics, in `GetModel`, and in `/v1/models`.

use crate::config::Config;
use crate::telemetry::metrics::Metrics;
use crate::{grpc, http};

/// What the gauges of the same things are at most.
pub(super) fn show_limits(config: &Config, metrics: &Metrics) {
    let limits = [
        ("connections", config.grpc.connections.connections),
        ("concurrent_requests", config.admission.concurrent_requests),
        ("streams", config.admission.streams),
        ("request_bytes_in_flight", config.admission.request_bytes),
        ("response_bytes_in_flight", config.admission.response_bytes),
        ("queue_rows", config.scheduling.max_queue_size),
        ("batch_images", config.scheduling.max_batch_size.image.get()),
        ("batch_texts", config.scheduling.max_batch_size.text.get()),
        ("preprocess_threads", config.preprocess_threads.get()),
    ];
    for (name, limit) in limits {
        metrics.limit(name).set(limit as f64);
    }
}

pub(super) fn wire_limits(config: &Config) -> grpc::proto::Limits {
    // Flags keep counts and messages below 2^32; text bytes may be more, which no message can carry.
    let wire = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    grpc::proto::Limits {
        inputs: wire(config.limits.inputs),
        labels: wire(config.limits.labels),
        templates: wire(config.limits.templates),
        prompts: wire(config.limits.prompts),
        predictions: wire(config.limits.predictions),
        text_bytes: wire(config.limits.text_bytes),
        image_bytes: config.image_limits.max_bytes as u64,
        image_pixels: config.image_limits.max_pixels,
        message_bytes: config.grpc.max_message_bytes as u64,
        response_bytes: config.limits.response_bytes as u64,
        queue_rows: wire(config.scheduling.max_queue_size),
        batch_rows: wire(config.scheduling.max_batch_size.image.get()),
        stream_inputs: wire(config.grpc.max_stream_inputs),
        timeout: prost_types::Duration::try_from(config.admission.timeout).ok(),
    }
}

pub(super) fn http_limits(config: &Config) -> http::Limits {
    http::Limits {
        inputs: config.limits.inputs,
        labels: config.limits.labels,
        templates: config.limits.templates,
        prompts: config.limits.prompts,
        predictions: config.limits.predictions,
        text_bytes: config.limits.text_bytes,
        image_bytes: config.image_limits.max_bytes,
        image_pixels: config.image_limits.max_pixels,
        message_bytes: config.http.max_request_bytes,
        response_bytes: config.limits.response_bytes,
        queue_rows: config.scheduling.max_queue_size,
        concurrent_requests: config.admission.concurrent_requests,
        timeout_seconds: config.admission.timeout.as_secs_f64(),
    }
}
