//! What a configuration amounts to: the memory that its limits allow, and every flag with where it came from.

use std::fmt;

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory};

use super::Config;
use super::flags::Cli;
use crate::clip::spec::ClipSpec;

/// Bytes that the limits allow at worst, beside the model itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Request messages of calls.
    pub requests: u64,
    /// Pictures being decoded.
    pub decoding: u64,
    /// Rows that wait for a worker.
    pub queue: u64,
    /// Messages that streams have read and not yet counted, and rows that wait for room in the queue.
    pub streams: u64,
    pub label_cache: u64,
    /// Labels that streams keep.
    pub stream_labels: u64,
    /// Answers that are not taken yet, and those that streams are writing.
    pub answers: u64,
    /// What clients may send ahead.
    pub connection_windows: u64,
}

impl MemoryLimits {
    pub fn new(config: &Config, spec: &ClipSpec) -> MemoryLimits {
        let image_row = spec.image.row_bytes() as u64;
        let text_row = spec.text.as_ref().map_or(0, |text| text.context_length as u64 * 4);
        let connections = &config.grpc.connections;
        let inputs = config.grpc.max_stream_inputs as u64;
        MemoryLimits {
            requests: config.admission.request_bytes as u64,
            // A decoded picture is at most RGBA with 16 bits, and is held once more while it is converted.
            decoding: config.preprocess_threads.get() as u64 * config.image_limits.max_pixels * 16,
            queue: config.scheduling.max_queue_size as u64 * (image_row + text_row),
            streams: config.admission.streams as u64
                * (config.grpc.max_message_bytes as u64 + inputs * image_row.max(text_row)),
            label_cache: config.label_cache_bytes,
            stream_labels: config.label_cache_bytes,
            answers: config.admission.response_bytes as u64,
            // Each of the two APIs has a port.
            connection_windows: (1 + u64::from(config.http_listen.is_some()))
                * connections.connections as u64
                * u64::from(connections.http2.connection_window_bytes),
        }
    }
}

/// Such as `requests 256 MiB, decoding 1525 MiB, ..., together 3074 MiB`.
impl fmt::Display for MemoryLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = [
            ("requests", self.requests),
            ("decoding", self.decoding),
            ("queue", self.queue),
            ("streams", self.streams),
            ("label cache", self.label_cache),
            ("labels of streams", self.stream_labels),
            ("answers", self.answers),
            ("connection windows", self.connection_windows),
        ];
        for (name, bytes) in entries {
            write!(f, "{name} {} MiB, ", bytes >> 20)?;
        }
        write!(f, "together {} MiB", entries.iter().map(|(_, bytes)| bytes).sum::<u64>() >> 20)
    }
}

/// Every flag of `serve` with its value and where it came from, one per line, as in
/// `--max-batch-size 64 (default)`.
pub fn flags(serve: &ArgMatches, config: &Config) -> Vec<String> {
    let command = Cli::command();
    let arguments = command.find_subcommand("serve").into_iter().flat_map(clap::Command::get_arguments);
    arguments
        .filter(|argument| argument.get_action().takes_values())
        .filter_map(|argument| Some((argument, argument.get_id().as_str(), argument.get_long()?)))
        .map(|(argument, id, long)| {
            let given = serve.get_raw(id).is_some();
            let secret = argument.is_hide_env_values_set() && given;
            let value = if secret { "(hidden)".to_owned() } else { value(serve, id, config) };
            format!("--{long} {value} ({})", source(serve, id))
        })
        .collect()
}

fn value(serve: &ArgMatches, id: &str, config: &Config) -> String {
    if let Some(given) = serve.get_raw(id) {
        return given.map(|value| value.to_string_lossy()).collect();
    }
    // Defaults that depend on the machine, or are nothing.
    match id {
        "threads" => config.threads.to_string(),
        "preprocess_threads" => config.preprocess_threads.to_string(),
        "gpu_memory_bytes" => "all".to_owned(),
        "model" => "the embedded model".to_owned(),
        _ => "none".to_owned(),
    }
}

fn source(serve: &ArgMatches, id: &str) -> &'static str {
    match serve.value_source(id) {
        Some(ValueSource::CommandLine) => "command line",
        Some(ValueSource::EnvVariable) => "environment",
        _ => "default",
    }
}
