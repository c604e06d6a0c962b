//! The command line. Values stay text here, so that [`super::Config`] can report every bad one at once.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

#[cfg(feature = "bench")]
use super::bench::BenchFlags;
use super::calibrate::CalibrateFlags;
#[cfg(feature = "bench")]
use super::eval::EvalCommand;
use super::hub::HubFlags;
use super::keys::KeysFlags;
use super::model::ModelFlags;
use super::variant::VariantFlags;
use crate::cli::flags::{ClassifyFlags, EmbedFlags};
use crate::model::graph::{Operators, WeightType};

/// Serves CLIP over gRPC: embeddings and zero-shot classification.
#[derive(Debug, Parser)]
#[command(name = "clipd", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub logging: LoggingFlags,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server.
    Serve(Box<ServeFlags>),
    /// Score pictures against labels, with a running server
    Classify(ClassifyFlags),
    /// Embed pictures and texts, with a running server
    Embed(EmbedFlags),
    /// Download a model from the Hugging Face hub into its cache
    Pull(PullFlags),
    /// Write a model as ONNX files for other tools
    Export(ExportFlags),
    /// Find out how a model is rounded to 8 bits, from pictures and texts: what serve --precision int8 needs
    Calibrate(CalibrateFlags),
    /// Make, show and revoke API keys
    Keys(KeysFlags),
    /// Measure what this machine can do, and how much of it a server gives
    #[cfg(feature = "bench")]
    Bench(Box<BenchFlags>),
    /// Score the model on pictures with known answers, as the LAION CLIP Benchmark does
    #[cfg(feature = "bench")]
    #[command(subcommand)]
    Eval(EvalCommand),
}

#[derive(Debug, Args)]
pub struct LoggingFlags {
    /// What to log: a level (error, warn, info, debug, trace), or a filter such as `info,h2=warn`
    #[arg(long, env = "CLIPD_LOG", default_value = "info,ort=warn", global = true)]
    pub log: String,
    /// How to log: text or json
    #[arg(long, env = "CLIPD_LOG_FORMAT", default_value = "text", global = true)]
    pub log_format: String,
}

#[derive(Debug, Args)]
pub struct ExportFlags {
    #[command(flatten)]
    pub model: ModelFlags,
    /// Directory to write to; it is made, and no file in it is overwritten
    #[arg(long)]
    pub out: PathBuf,
    /// What weights are kept in: fp32 or fp16
    #[arg(long, default_value = "fp32")]
    pub precision: WeightType,
    /// File of clipd calibrate: multiply in 8 bits, as that says [default: in floating point]
    #[arg(long, value_name = "FILE")]
    pub calibration: Option<PathBuf>,
    /// standard: those of opset 20; fused: those of ONNX Runtime too, as clipd runs it on GPUs
    #[arg(long, default_value = "standard")]
    pub operators: Operators,
}

#[derive(Debug, Args)]
pub struct PullFlags {
    /// ORG/NAME or ORG/NAME@REVISION
    pub repository: String,
    #[command(flatten)]
    pub hub: HubFlags,
    #[command(flatten)]
    pub variant: VariantFlags,
}

/// Durations are written like 250ms or 5s; sizes are bytes.
#[derive(Clone, Debug, Args)]
pub struct ServeFlags {
    /// Print every flag with its value and where it came from, and the memory that the limits allow; load the
    /// model; do not serve
    #[arg(long)]
    pub check_config: bool,

    /// Address of the gRPC API
    #[arg(long, env = "CLIPD_LISTEN", default_value = "0.0.0.0:50051", help_heading = "Addresses")]
    pub listen: String,
    /// Address of the HTTP API, or off
    #[arg(long, env = "CLIPD_HTTP_LISTEN", default_value = "0.0.0.0:8080", help_heading = "Addresses")]
    pub http_listen: String,
    /// Address of the Prometheus endpoint, /metrics
    #[arg(long, env = "CLIPD_METRICS_LISTEN", default_value = "0.0.0.0:9090", help_heading = "Addresses")]
    pub metrics_listen: String,

    /// Collector that is sent traces, in OTLP over gRPC, such as http://127.0.0.1:4317 [default: none]
    #[arg(long, env = "CLIPD_OTLP_ENDPOINT", help_heading = "Tracing")]
    pub otlp_endpoint: Option<String>,
    /// Share of the calls that are traced, from 0 to 1; a call with a traceparent is traced as that says
    #[arg(long, env = "CLIPD_TRACE_SAMPLE", default_value = "1", help_heading = "Tracing")]
    pub trace_sample: String,

    #[command(flatten)]
    pub model: ModelFlags,
    /// Names by which clients of the HTTP API may ask for the model besides its own, such as text-embedding-3-small
    /// [default: none]
    #[arg(long, env = "CLIPD_MODEL_NAMES", value_delimiter = ',', help_heading = "Model and device")]
    pub model_names: Vec<String>,
    /// Hosts from which the HTTP API may fetch pictures, as in cdn.example.org,*.example.org; private:HOST:PORT may
    /// be in a private network [default: none]
    #[arg(long, env = "CLIPD_FETCH_IMAGES", value_delimiter = ',', help_heading = "Addresses")]
    pub fetch_images: Vec<String>,
    /// File of API keys (clipd keys add): who may call, and how much [default: none, everybody may]
    #[arg(long, env = "CLIPD_API_KEYS", help_heading = "Addresses")]
    pub api_keys: Option<PathBuf>,
    /// What each address may take where there are no keys, as in "requests_per_second = 50, burst = 100,
    /// rows_per_second = 500, concurrent_requests = 64, streams = 4" [default: no limits]
    #[arg(long, env = "CLIPD_PEER_LIMITS", conflicts_with = "api_keys", help_heading = "Addresses")]
    pub peer_limits: Option<String>,
    /// Certificate of the server in PEM, with those that vouch for it; both APIs then speak TLS [default: none]
    #[arg(long, env = "CLIPD_TLS_CERT", requires = "tls_key", help_heading = "Addresses")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key [default: none]
    #[arg(long, env = "CLIPD_TLS_KEY", requires = "tls_cert", help_heading = "Addresses")]
    pub tls_key: Option<PathBuf>,
    /// Certificates of those who vouch for clients, which then need one [default: none]
    #[arg(long, env = "CLIPD_TLS_CLIENT_CA", requires = "tls_cert", help_heading = "Addresses")]
    pub tls_client_ca: Option<PathBuf>,
    /// Speak TLS on the metrics port too; nobody needs a certificate there
    #[arg(long, env = "CLIPD_METRICS_TLS", requires = "tls_cert", help_heading = "Addresses")]
    pub metrics_tls: bool,
    /// Ask for no key for gRPC's reflection and /openapi.json
    #[arg(long, env = "CLIPD_OPEN_REFLECTION", help_heading = "Addresses")]
    pub open_reflection: bool,
    /// Have no page for people at / of the HTTP API
    #[arg(long, env = "CLIPD_NO_PAGE", help_heading = "Addresses")]
    pub no_page: bool,
    /// Directory with named classifiers: label sets and linear heads, as TOML or JSON
    /// [default: none]
    #[arg(long, env = "CLIPD_CLASSIFIERS", help_heading = "Model and device")]
    pub classifiers: Option<String>,
    /// auto, cpu, openvino, or GPUs such as cuda:0,cuda:1
    #[arg(long, env = "CLIPD_DEVICE", default_value = "auto", help_heading = "Model and device")]
    pub device: String,
    /// auto, fp32, bf16, int8 or fp16 (bf16 and int8: openvino only; fp16: GPUs only; auto never takes int8)
    #[arg(long, env = "CLIPD_PRECISION", default_value = "auto", help_heading = "Model and device")]
    pub precision: String,
    /// How the model is rounded to 8 bits, for --precision int8: a file of clipd calibrate
    /// [default: clipd_int8.json beside the model]
    #[arg(long, env = "CLIPD_CALIBRATION", help_heading = "Model and device")]
    pub calibration: Option<PathBuf>,
    /// Worker threads of each device, each with an inference session of its own
    #[arg(long, env = "CLIPD_WORKERS_PER_DEVICE", default_value = "1", help_heading = "Model and device")]
    pub workers_per_device: String,
    /// Most memory of a GPU for the weights and results of one worker [default: all of it]
    #[arg(long, env = "CLIPD_GPU_MEMORY_BYTES", help_heading = "Model and device")]
    pub gpu_memory_bytes: Option<String>,
    /// on or off: whether GPUs launch the kernels of a batch as one recorded graph
    #[arg(long, env = "CLIPD_CUDA_GRAPHS", default_value = "on", help_heading = "Model and device")]
    pub cuda_graphs: String,
    /// Threads of one session; GPUs need one [default: cores / workers of the device]
    #[arg(long, env = "CLIPD_THREADS", help_heading = "Model and device")]
    pub threads: Option<String>,
    /// Images decoded and texts tokenized at a time [default: cores]
    #[arg(long, env = "CLIPD_PREPROCESS_THREADS", help_heading = "Model and device")]
    pub preprocess_threads: Option<String>,

    /// Most images of a batch; fewer run together where that gives as many per second, or takes half a second
    #[arg(long, env = "CLIPD_MAX_BATCH_SIZE", default_value = "64", help_heading = "Batching")]
    pub max_batch_size: String,
    /// Most texts of a batch; half a second is their limit too [default: twice as many as images]
    #[arg(long, env = "CLIPD_MAX_TEXT_BATCH_SIZE", help_heading = "Batching")]
    pub max_text_batch_size: Option<String>,
    /// Most tokens of a batch of texts, padding included
    #[arg(long, env = "CLIPD_MAX_BATCH_TOKENS", default_value = "16384", help_heading = "Batching")]
    pub max_batch_tokens: String,
    /// Longest time a row waits for company while a worker is idle
    #[arg(long, env = "CLIPD_MAX_QUEUE_DELAY", default_value = "0s", help_heading = "Batching")]
    pub max_queue_delay: String,
    /// Most waiting rows per modality; more is RESOURCE_EXHAUSTED
    #[arg(long, env = "CLIPD_MAX_QUEUE_SIZE", default_value = "1024", help_heading = "Batching")]
    pub max_queue_size: String,

    /// Inputs of one Embed, images of one Classify
    #[arg(long, env = "CLIPD_MAX_INPUTS", default_value = "256", help_heading = "Limits of a request")]
    pub max_inputs: String,
    /// Labels of one Classify
    #[arg(long, env = "CLIPD_MAX_LABELS", default_value = "20000", help_heading = "Limits of a request")]
    pub max_labels: String,
    /// Templates of one Classify
    #[arg(long, env = "CLIPD_MAX_TEMPLATES", default_value = "128", help_heading = "Limits of a request")]
    pub max_templates: String,
    /// Labels x templates of one Classify
    #[arg(long, env = "CLIPD_MAX_PROMPTS", default_value = "100000", help_heading = "Limits of a request")]
    pub max_prompts: String,
    /// Images x predictions of one Classify
    #[arg(
        long,
        env = "CLIPD_MAX_PREDICTIONS",
        default_value = "200000",
        help_heading = "Limits of a request"
    )]
    pub max_predictions: String,
    /// Bytes of one text or label
    #[arg(long, env = "CLIPD_MAX_TEXT_BYTES", default_value = "8192", help_heading = "Limits of a request")]
    pub max_text_bytes: String,
    /// Bytes of one encoded image
    #[arg(
        long,
        env = "CLIPD_MAX_IMAGE_BYTES",
        default_value = "10000000",
        help_heading = "Limits of a request"
    )]
    pub max_image_bytes: String,
    /// Width x height of one image
    #[arg(
        long,
        env = "CLIPD_MAX_IMAGE_PIXELS",
        default_value = "50000000",
        help_heading = "Limits of a request"
    )]
    pub max_image_pixels: String,
    /// Bytes of one request message
    #[arg(
        long,
        env = "CLIPD_MAX_MESSAGE_BYTES",
        default_value = "16777216",
        help_heading = "Limits of a request"
    )]
    pub max_message_bytes: String,
    /// Most bytes of one answer, as far as they are known before; most clients take 4 MB unless told otherwise
    #[arg(
        long,
        env = "CLIPD_MAX_RESPONSE_BYTES",
        default_value = "16777216",
        help_heading = "Limits of a request"
    )]
    pub max_response_bytes: String,
    /// Longest time a call, or an input of a stream, may take; the default for those without a timeout
    #[arg(long, env = "CLIPD_TIMEOUT", default_value = "30s", help_heading = "Limits of a request")]
    pub timeout: String,

    /// Calls served at a time; more is RESOURCE_EXHAUSTED
    #[arg(
        long,
        env = "CLIPD_MAX_CONCURRENT_REQUESTS",
        default_value = "512",
        help_heading = "Limits of the server"
    )]
    pub max_concurrent_requests: String,
    /// Bytes of request messages held at a time; more is RESOURCE_EXHAUSTED
    #[arg(
        long,
        env = "CLIPD_MAX_REQUEST_BYTES_IN_FLIGHT",
        default_value = "268435456",
        help_heading = "Limits of the server"
    )]
    pub max_request_bytes_in_flight: String,
    /// Bytes of answers that are not taken yet, at a time; further answers wait, then are RESOURCE_EXHAUSTED
    #[arg(
        long,
        env = "CLIPD_MAX_RESPONSE_BYTES_IN_FLIGHT",
        default_value = "268435456",
        help_heading = "Limits of the server"
    )]
    pub max_response_bytes_in_flight: String,
    /// Streams served at a time; more is RESOURCE_EXHAUSTED
    #[arg(long, env = "CLIPD_MAX_STREAMS", default_value = "64", help_heading = "Limits of the server")]
    pub max_streams: String,
    /// Inputs of one stream without an answer; the next ones wait in the client
    #[arg(
        long,
        env = "CLIPD_MAX_STREAM_INPUTS",
        default_value = "64",
        help_heading = "Limits of the server"
    )]
    pub max_stream_inputs: String,
    /// Memory for cached label embeddings
    #[arg(
        long,
        env = "CLIPD_LABEL_CACHE_BYTES",
        default_value = "268435456",
        help_heading = "Limits of the server"
    )]
    pub label_cache_bytes: String,

    /// Connections at a time; where there are more, those go that have been without a call for longest
    #[arg(long, env = "CLIPD_MAX_CONNECTIONS", default_value = "1024", help_heading = "Connections")]
    pub max_connections: String,
    /// Calls at a time per connection; the next ones wait in the client
    #[arg(long, env = "CLIPD_MAX_CONCURRENT_STREAMS", default_value = "256", help_heading = "Connections")]
    pub max_concurrent_streams: String,
    /// Bytes a client may send ahead on one call
    #[arg(long, env = "CLIPD_STREAM_WINDOW_BYTES", default_value = "1048576", help_heading = "Connections")]
    pub stream_window_bytes: String,
    /// Bytes a client may send ahead on one connection
    #[arg(
        long,
        env = "CLIPD_CONNECTION_WINDOW_BYTES",
        default_value = "2097152",
        help_heading = "Connections"
    )]
    pub connection_window_bytes: String,
    /// Time from a connection to its first request
    #[arg(long, env = "CLIPD_FIRST_REQUEST_TIMEOUT", default_value = "30s", help_heading = "Connections")]
    pub first_request_timeout: String,
    /// Time a connection may be without a call
    #[arg(long, env = "CLIPD_MAX_CONNECTION_IDLE", default_value = "5m", help_heading = "Connections")]
    pub max_connection_idle: String,
    /// Time to take an answer, beyond the deadline of its call
    #[arg(long, env = "CLIPD_ANSWER_TIMEOUT", default_value = "10s", help_heading = "Connections")]
    pub answer_timeout: String,
    /// Silence after which a connection is pinged
    #[arg(long, env = "CLIPD_KEEPALIVE_INTERVAL", default_value = "60s", help_heading = "Connections")]
    pub keepalive_interval: String,
    /// Time an answer to a ping may take
    #[arg(long, env = "CLIPD_KEEPALIVE_TIMEOUT", default_value = "20s", help_heading = "Connections")]
    pub keepalive_timeout: String,
    /// Age at which a connection is asked to go away, so that clients find new servers; 0s: never
    #[arg(long, env = "CLIPD_MAX_CONNECTION_AGE", default_value = "30m", help_heading = "Connections")]
    pub max_connection_age: String,

    /// Age at which a stream is ended, so that clients find new servers; 0s: never
    #[arg(long, env = "CLIPD_MAX_STREAM_AGE", default_value = "30m", help_heading = "Connections")]
    pub max_stream_age: String,

    /// Time between "not ready" and "no new calls" after SIGTERM or SIGINT
    #[arg(long, env = "CLIPD_DRAIN_DELAY", default_value = "0s", help_heading = "Shutdown")]
    pub drain_delay: String,
    /// Longest time from the signal to the end of the process
    #[arg(long, env = "CLIPD_SHUTDOWN_GRACE", default_value = "25s", help_heading = "Shutdown")]
    pub shutdown_grace: String,
}
