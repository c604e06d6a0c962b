//! Flags and their environment twins, parsed into a [`Config`] that is valid by construction.
//!
//! All problems are found before anything starts, and are reported together. No other module reads
//! the environment for configuration.

#[cfg(feature = "bench")]
pub mod bench;
pub mod calibrate;
#[cfg(feature = "bench")]
pub mod eval;
#[cfg(feature = "bench")]
pub mod evaluation;
pub mod flags;
pub mod hub;
pub mod keys;
pub mod model;
#[cfg(feature = "bench")]
pub mod own_server;
mod problems;
pub mod report;
#[cfg(test)]
mod tests;
pub mod variant;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clip::image::ImageLimits;
use crate::connections::tls::TlsFiles;
use crate::connections::{Clocks, Http2, Protocol};
use crate::engine::choice::DeviceChoice;
use crate::engine::device::{CudaGraphs, GpuOptions, Precision};
use crate::modality::ByModality;
use crate::model::hub::{Access, Repository};
use crate::model::variant::Variant;
use crate::scheduler::Settings;
use crate::{admission, auth, connections, grpc, http, pipeline, trace};
use flags::ServeFlags;
pub use hub::hub_access;
use model::ModelFlags;
use problems::Problems;
pub use variant::onnx_variant;

/// Everything `serve` needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    pub listen: SocketAddr,
    /// `None`: no HTTP API.
    pub http_listen: Option<SocketAddr>,
    pub metrics_listen: SocketAddr,
    pub model: ModelSource,
    /// Where named classifiers are.
    pub classifiers: Option<PathBuf>,
    pub device: DeviceChoice,
    /// `None`: `auto`.
    pub precision: Option<Precision>,
    /// How the model is rounded to 8 bits. `None`: it is beside the model.
    pub calibration: Option<PathBuf>,
    pub gpu: GpuOptions,
    /// Worker threads of each device, each with a session of its own.
    pub workers_per_device: NonZeroUsize,
    /// Threads of one session.
    pub threads: NonZeroUsize,
    pub scheduling: Settings,
    pub limits: pipeline::Limits,
    pub image_limits: ImageLimits,
    pub preprocess_threads: NonZeroUsize,
    pub label_cache_bytes: u64,
    /// File of API keys. `None`: everybody may call.
    pub api_keys: Option<PathBuf>,
    /// What each address may take, where there are no keys.
    pub peer_limits: Option<auth::Limits>,
    /// `None`: both APIs speak in the clear.
    pub tls: Option<TlsFiles>,
    /// The same of the metrics port.
    pub metrics_tls: Option<TlsFiles>,
    /// `None`: no call is traced.
    pub tracing: Option<trace::Options>,
    pub admission: admission::Limits,
    pub grpc: grpc::Options,
    pub http: http::Options,
    /// Time between "not ready" and "no new calls" at shutdown.
    pub drain_delay: Duration,
    /// Longest time from the signal to the end of the process.
    pub shutdown_grace: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// The small model inside the binary.
    Builtin,
    /// A directory with a model's files, and which of its ONNX graphs.
    Directory(PathBuf, Variant),
    /// A repository of the Hugging Face hub, and which of its ONNX graphs.
    Hub(Repository, Access, Variant),
}

impl ModelSource {
    /// A directory that is there goes before a repository of the same name.
    pub fn from_flags(flags: &ModelFlags) -> Result<ModelSource, String> {
        let Some(model) = &flags.model else { return Ok(ModelSource::Builtin) };
        if Path::new(model).is_dir() {
            return Ok(ModelSource::Directory(model.into(), onnx_variant(&flags.variant)?));
        }
        let repository = model.parse().map_err(|()| {
            format!("--model: {model:?} is neither a directory nor ORG/NAME or ORG/NAME@REVISION of the hub")
        })?;
        Ok(ModelSource::Hub(repository, hub_access(&flags.hub)?, onnx_variant(&flags.variant)?))
    }
}

/// Of this machine, as far as the process may use them.
fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// A call with an earlier deadline overtakes calls that arrived less than this long before it; others run
/// first come, first served.
const INTERACTIVE_TARGET: Duration = Duration::from_millis(500);

/// Texts of a batch for each image of one: a caption costs a tenth of a picture or less, and there is a bound on tokens
/// beside it.
const TEXTS_PER_IMAGE: NonZeroUsize = NonZeroUsize::new(2).expect("it is not zero");

/// Bulk work gives way to interactive work that arrives up to this long, less the above, after it.
const BULK_TARGET: Duration = Duration::from_secs(3);

/// `answer` is how long a client may leave a piece of an answer lying.
fn connection_limits(flags: &ServeFlags, answer: Duration, problems: &mut Problems) -> connections::Limits {
    connections::Limits {
        connections: problems.count("--max-connections", &flags.max_connections).get(),
        protocol: Protocol::Http2,
        clocks: Clocks {
            first_request: problems.duration("--first-request-timeout", &flags.first_request_timeout),
            idle: problems.duration("--max-connection-idle", &flags.max_connection_idle),
            answer,
            max_age: problems.lifetime("--max-connection-age", &flags.max_connection_age),
        },
        http2: Http2 {
            max_concurrent_streams: problems
                .bounded("--max-concurrent-streams", &flags.max_concurrent_streams),
            stream_window_bytes: problems.bounded("--stream-window-bytes", &flags.stream_window_bytes),
            connection_window_bytes: problems
                .bounded("--connection-window-bytes", &flags.connection_window_bytes),
            keepalive_interval: problems.duration("--keepalive-interval", &flags.keepalive_interval),
            keepalive_timeout: problems.duration("--keepalive-timeout", &flags.keepalive_timeout),
        },
    }
}

impl Config {
    /// Every problem, one per line, or the configuration.
    pub fn from_flags(flags: &ServeFlags) -> Result<Config, Vec<String>> {
        let mut problems = Problems::default();
        let cores = cores();
        let workers_per_device = problems.count("--workers-per-device", &flags.workers_per_device);
        // Sessions share the cores evenly unless told otherwise.
        let per_worker =
            NonZeroUsize::new(cores.get() / workers_per_device.get()).unwrap_or(NonZeroUsize::MIN);
        let images = problems.count("--max-batch-size", &flags.max_batch_size);
        let queue = problems.count("--max-queue-size", &flags.max_queue_size);
        let texts = problems.optional_count(
            "--max-text-batch-size",
            flags.max_text_batch_size.as_deref(),
            images.saturating_mul(TEXTS_PER_IMAGE).min(queue),
        );
        let timeout = problems.duration("--timeout", &flags.timeout);
        let answer_timeout = problems.duration("--answer-timeout", &flags.answer_timeout);
        let connections = connection_limits(flags, timeout + answer_timeout, &mut problems);
        let max_image_bytes = problems.bytes("--max-image-bytes", &flags.max_image_bytes);
        let max_message_bytes = problems.bytes("--max-message-bytes", &flags.max_message_bytes);
        let tls = flags.tls_cert.clone().zip(flags.tls_key.clone()).map(|(certificate, key)| TlsFiles {
            certificate,
            key,
            client_ca: flags.tls_client_ca.clone(),
        });
        let config = Config {
            listen: problems.address("--listen", &flags.listen),
            http_listen: match flags.http_listen.as_str() {
                "off" => None,
                address => Some(problems.address("--http-listen", address)),
            },
            metrics_listen: problems.address("--metrics-listen", &flags.metrics_listen),
            model: ModelSource::from_flags(&flags.model).unwrap_or_else(|problem| {
                problems.add(problem);
                ModelSource::Builtin
            }),
            classifiers: flags.classifiers.as_ref().map(PathBuf::from),
            device: problems.device("--device", &flags.device),
            precision: problems.choice(
                "--precision",
                &flags.precision,
                &[
                    ("auto", None),
                    ("fp32", Some(Precision::Fp32)),
                    ("bf16", Some(Precision::Bf16)),
                    ("int8", Some(Precision::Int8)),
                    ("fp16", Some(Precision::Fp16)),
                ],
            ),
            calibration: flags.calibration.clone(),
            gpu: GpuOptions {
                memory_bytes: problems
                    .optional_bytes("--gpu-memory-bytes", flags.gpu_memory_bytes.as_deref()),
                graphs: problems.choice(
                    "--cuda-graphs",
                    &flags.cuda_graphs,
                    &[("on", CudaGraphs::On), ("off", CudaGraphs::Off)],
                ),
            },
            workers_per_device,
            threads: problems.optional_count("--threads", flags.threads.as_deref(), per_worker),
            scheduling: Settings {
                max_batch_size: ByModality { image: images, text: texts },
                max_batch_tokens: problems.count("--max-batch-tokens", &flags.max_batch_tokens),
                max_queue_delay: problems.duration("--max-queue-delay", &flags.max_queue_delay),
                max_queue_size: queue.get(),
                interactive_target: INTERACTIVE_TARGET,
                bulk_target: BULK_TARGET,
            },
            limits: pipeline::Limits {
                inputs: problems.count("--max-inputs", &flags.max_inputs).get(),
                labels: problems.count("--max-labels", &flags.max_labels).get(),
                templates: problems.count("--max-templates", &flags.max_templates).get(),
                prompts: problems.count("--max-prompts", &flags.max_prompts).get(),
                predictions: problems.count("--max-predictions", &flags.max_predictions).get(),
                text_bytes: problems.bytes("--max-text-bytes", &flags.max_text_bytes),
                response_bytes: problems.bytes("--max-response-bytes", &flags.max_response_bytes),
            },
            image_limits: ImageLimits {
                max_bytes: max_image_bytes,
                max_pixels: problems.bytes("--max-image-pixels", &flags.max_image_pixels) as u64,
            },
            preprocess_threads: problems.optional_count(
                "--preprocess-threads",
                flags.preprocess_threads.as_deref(),
                cores,
            ),
            label_cache_bytes: problems.bytes("--label-cache-bytes", &flags.label_cache_bytes) as u64,
            api_keys: flags.api_keys.clone(),
            peer_limits: problems.list("--peer-limits", flags.peer_limits.as_slice()).pop(),
            metrics_tls: tls
                .clone()
                .filter(|_| flags.metrics_tls)
                .map(|tls| TlsFiles { client_ca: None, ..tls }),
            tls,
            tracing: flags.otlp_endpoint.as_ref().map(|endpoint| trace::Options {
                endpoint: problems.endpoint("--otlp-endpoint", endpoint),
                sample: problems.ratio("--trace-sample", &flags.trace_sample),
            }),
            admission: admission::Limits {
                concurrent_requests: problems
                    .count("--max-concurrent-requests", &flags.max_concurrent_requests)
                    .get(),
                streams: problems.count("--max-streams", &flags.max_streams).get(),
                request_bytes: problems
                    .bytes("--max-request-bytes-in-flight", &flags.max_request_bytes_in_flight),
                response_bytes: problems
                    .bytes("--max-response-bytes-in-flight", &flags.max_response_bytes_in_flight),
                timeout,
                answer_timeout,
            },
            grpc: grpc::Options {
                max_message_bytes,
                max_stream_inputs: problems.count("--max-stream-inputs", &flags.max_stream_inputs).get(),
                max_stream_age: problems.lifetime("--max-stream-age", &flags.max_stream_age),
                open_reflection: flags.open_reflection,
                connections: connections.clone(),
            },
            http: http::Options {
                max_request_bytes: max_message_bytes,
                model_names: flags.model_names.clone(),
                fetch_images: problems.list("--fetch-images", &flags.fetch_images),
                max_image_bytes: max_image_bytes as u64,
                open_reflection: flags.open_reflection,
                page: !flags.no_page,
                connections: connections::Limits { protocol: Protocol::Both, ..connections },
            },
            drain_delay: problems.duration("--drain-delay", &flags.drain_delay),
            shutdown_grace: problems.duration("--shutdown-grace", &flags.shutdown_grace),
        };
        config.check(&mut problems);
        problems.into_result(config)
    }

    /// Limits that contradict each other.
    fn check(&self, problems: &mut Problems) {
        let queue = self.scheduling.max_queue_size;
        if queue < self.limits.inputs {
            problems.add(format!(
                "--max-queue-size ({queue}) is less than --max-inputs ({}): a full request could never be admitted",
                self.limits.inputs
            ));
        }
        let ByModality { image, text } = self.scheduling.max_batch_size;
        for (flag, rows) in [("--max-batch-size", image), ("--max-text-batch-size", text)] {
            if queue < rows.get() {
                problems.add(format!(
                    "--max-queue-size ({queue}) is less than {flag} ({rows}): a batch could never be full"
                ));
            }
        }
        let (held, each) = (self.admission.response_bytes, self.limits.response_bytes);
        if held < each {
            problems.add(format!(
                "--max-response-bytes-in-flight ({held}) is less than --max-response-bytes ({each}): \
                 the largest answer could never be given"
            ));
        }
        if self.admission.request_bytes < self.grpc.max_message_bytes {
            problems.add(format!(
                "--max-request-bytes-in-flight ({}) is less than --max-message-bytes ({}): \
                 the largest message could never be read",
                self.admission.request_bytes, self.grpc.max_message_bytes
            ));
        }
        let connections::Limits { clocks, http2, .. } = &self.grpc.connections;
        for (flag, duration) in [
            ("--timeout", self.admission.timeout),
            ("--answer-timeout", self.admission.answer_timeout),
            ("--first-request-timeout", clocks.first_request),
            ("--max-connection-idle", clocks.idle),
            ("--keepalive-interval", http2.keepalive_interval),
            ("--keepalive-timeout", http2.keepalive_timeout),
            ("--shutdown-grace", self.shutdown_grace),
        ] {
            if duration.is_zero() {
                problems.add(format!("{flag} must be more than zero"));
            }
        }
        if self.drain_delay >= self.shutdown_grace && !self.shutdown_grace.is_zero() {
            problems.add(format!(
                "--drain-delay ({:?}) leaves nothing of --shutdown-grace ({:?})",
                self.drain_delay, self.shutdown_grace
            ));
        }
    }
}
