//! The composition root: makes the parts, connects them, and takes them down in order.
//!
//! `serve` and the tests start a server through the same [`start`]; only the engines differ. [`load`] says where they
//! come from.
//!
//! A server has its [`ports`] before it has a model, and those of calls listen once every worker is warm or lost: until
//! then a connection is refused, which sends clients and balancers elsewhere, as an error inside a call would not.

mod descriptors;
mod edges;
mod limits;
pub mod load;
pub mod ports;
mod safety;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::admission::Door;
use crate::auth::file::KeyFileError;
use crate::batcher::{self, Batcher, OpenEngine, Workers};
use crate::clip::classifier::{Coefficient, Logits};
use crate::clip::image::ImagePreprocessor;
use crate::clip::spec::{ClipSpec, TextSpec};
use crate::clip::text::TextTokenizer;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::report::MemoryLimits;
use crate::connections::tls::TlsError;
use crate::engine::{Description, EngineError};
use crate::grpc::{self, ModelCard};
use crate::http;
use crate::metrics_port::MetricsServer;
use crate::model::ModelError;
use crate::model::classifiers::{ClassifierFileError, Head, read_classifiers};
use crate::model::hub::HubError;
use crate::pipeline::classifiers::{self, Source};
use crate::pipeline::{self, Pipeline};
use crate::shutdown::{self, Phase};
use crate::telemetry::metrics::Metrics;
use crate::trace::export::{self, Exporter};
use edges::Edges;
use limits::{http_limits, show_limits, wire_limits};
use ports::Ports;
use safety::{callers, tls};

/// What a server serves, and what runs it.
pub struct Served {
    pub name: String,
    /// Of all that an embedding depends on; see [`load::fingerprint`].
    pub fingerprint: String,
    pub spec: ClipSpec,
    pub tokenizer_json: Vec<u8>,
    /// One per worker.
    pub engines: Vec<OpenEngine>,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Hub(#[from] HubError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(
        "precision int8 needs a calibration of the model, and there is no {}; make one with \
         clipd calibrate --images DIR, or name one with --calibration", .0.display()
    )]
    NotCalibrated(PathBuf),
    #[error("tokenizer.json: {0}")]
    Tokenizer(#[from] crate::clip::text::TokenizerError),
    #[error(transparent)]
    Classifier(#[from] ClassifierFileError),
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    #[error("--api-keys {path}: {error}")]
    Keys { path: String, error: KeyFileError },
    #[error("cannot listen on {address} ({flag}): {error}")]
    Listen { flag: &'static str, address: SocketAddr, error: std::io::Error },
    #[error("--otlp-endpoint: {0}")]
    Collector(#[from] export::Unfit),
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// Why a server did not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    #[error("after {grace:?} {calls} calls were cut off")]
    CutOff { grace: Duration, calls: usize },
    #[error("after {grace:?} a batch was still running")]
    BatchRunning { grace: Duration },
    #[error("a server failed: {0}")]
    Serve(String),
}

/// A server that has its model. It listens once its workers are warm; see [`Running::ready`].
pub struct Running {
    /// Where the gRPC server listens, or will.
    pub grpc_address: SocketAddr,
    /// The same of the HTTP API; `None`: it is switched off.
    pub http_address: Option<SocketAddr>,
    /// Where `/metrics`, `/livez` and `/readyz` are.
    pub metrics_address: SocketAddr,
    phase: watch::Sender<Phase>,
    workers: watch::Receiver<Workers>,
    /// How the servers of calls ended, with how many calls that were cut off; `None` until they have.
    served: watch::Receiver<Option<Result<usize, String>>>,
    batcher: Batcher,
    metrics_server: MetricsServer,
    /// `None`: no call is traced.
    exporter: Option<Exporter>,
    drain_delay: Duration,
    shutdown_grace: Duration,
}

/// Starts to warm up in the background, and then listens.
pub fn start(config: &Config, ports: Ports, served: Served) -> Result<Running, StartError> {
    let Ports { grpc, http, metrics_server, metrics, clock, phase, workers } = ports;
    let (grpc_address, http_address) = (grpc.address, http.as_ref().map(|port| port.address));
    show_limits(config, &metrics);
    let memory = MemoryLimits::new(config, &served.spec);
    tracing::info!("most memory that the limits allow beside the model: {memory}");
    let images = ImagePreprocessor::new(served.spec.image.clone(), config.image_limits);
    let tokenizer = |spec| TextTokenizer::new(&served.tokenizer_json, spec, config.limits.text_bytes);
    let texts = served.spec.text.as_ref().map(tokenizer).transpose()?;

    let options = batcher::Options {
        settings: config.scheduling.clone(),
        text_lengths: served.spec.text.as_ref().map_or_else(Vec::new, TextSpec::lengths),
        image_row_bytes: served.spec.image.row_bytes(),
        clock,
        metrics: metrics.clone(),
        workers,
    };
    let batcher = Batcher::start(options, served.engines).map_err(StartError::Thread)?;
    let workers = batcher.workers();
    let options = pipeline_options(config, &served.spec, clock, &metrics);
    let mut pipeline = Pipeline::new(options, images, texts, batcher.handle());
    if let Some(directory) = &config.classifiers {
        add_classifiers(&mut pipeline, directory)?;
    }
    let pipeline = Arc::new(pipeline);
    embed_when_ready(pipeline.clone(), workers.clone());

    let callers = callers(config, clock, &metrics)?;
    let tracing =
        config.tracing.as_ref().map(|options| export::start(options, clock, &metrics)).transpose()?;
    let (tracer, exporter) = tracing.unzip();
    let door = Door::new(config.admission.clone(), callers, phase.subscribe(), clock, &metrics, tracer);
    let http_services = http::Services {
        pipeline: pipeline.clone(),
        name: served.name.clone(),
        fingerprint: served.fingerprint.clone(),
        spec: served.spec.clone(),
        limits: http_limits(config),
        door: door.clone(),
        workers: workers.clone(),
        tls: tls(config.tls.as_ref(), config.http.connections.protocol, &metrics)?,
        metrics: metrics.clone(),
    };
    let services = grpc::Services {
        pipeline,
        door,
        model: ModelCard {
            name: served.name,
            fingerprint: served.fingerprint,
            spec: served.spec,
            limits: wire_limits(config),
        },
        workers: workers.clone(),
        tls: tls(config.tls.as_ref(), config.grpc.connections.protocol, &metrics)?,
        metrics,
    };
    let (ended, served) = watch::channel(None);
    let (mut grpc_options, mut http_options) = (config.grpc.clone(), config.http.clone());
    let ports = 1 + usize::from(http.is_some());
    let allowed = descriptors::allow(ports * grpc_options.connections.connections) / ports;
    grpc_options.connections.connections = allowed;
    http_options.connections.connections = allowed;
    let edges = Edges { grpc, grpc_options, services, http, http_options, http_services };
    let serving = edges::serve(edges, phase.clone());
    tokio::spawn(async move {
        ended.send_replace(Some(serving.await.map_err(|error| error.to_string())));
    });
    Ok(Running {
        grpc_address,
        http_address,
        metrics_address: metrics_server.address,
        phase,
        workers,
        served,
        batcher,
        metrics_server,
        exporter,
        drain_delay: config.drain_delay,
        shutdown_grace: config.shutdown_grace,
    })
}

fn add_classifiers(pipeline: &mut Pipeline, directory: &Path) -> Result<(), StartError> {
    for (name, file) in read_classifiers(directory)? {
        let source = match file.head {
            Some(Head { weights, biases }) => Source::Head { weights, biases },
            None => Source::Prompts { templates: file.templates },
        };
        let path = directory.join(&name);
        let description = classifiers::Description { name, labels: file.labels, source, top_k: file.top_k };
        pipeline
            .add_classifier(description)
            .map_err(|error| StartError::Classifier(ClassifierFileError::new(&path, error)))?;
    }
    Ok(())
}

/// Embeds the named classifiers in the background; readiness does not wait for them.
fn embed_when_ready(pipeline: Arc<Pipeline>, mut workers: watch::Receiver<Workers>) {
    tokio::spawn(async move {
        // An error means that the batcher has ended, and the server with it.
        if workers.wait_for(|workers| workers.counts.ready > 0).await.is_ok() {
            pipeline.embed_named_classifiers().await;
        }
    });
}

fn pipeline_options(config: &Config, spec: &ClipSpec, clock: Clock, metrics: &Metrics) -> pipeline::Options {
    pipeline::Options {
        limits: config.limits.clone(),
        preprocess_threads: config.preprocess_threads,
        interactive_target: config.scheduling.interactive_target,
        bulk_target: config.scheduling.bulk_target,
        label_cache_bytes: config.label_cache_bytes,
        // Two parts are in flight, and together they must fit the queue beside everything else.
        fill_rows: NonZeroUsize::new(config.scheduling.max_queue_size / 4)
            .map_or(NonZeroUsize::MIN, |quarter| quarter.min(config.scheduling.max_batch_size.text)),
        fill_timeout: config.admission.timeout,
        embed_dim: NonZeroUsize::new(spec.embed_dim).unwrap_or(NonZeroUsize::MIN),
        logits: Logits {
            scale: Coefficient::Shared(spec.logit_scale),
            bias: Coefficient::Shared(spec.logit_bias),
            scores: spec.scores,
        },
        clock,
        metrics: metrics.clone(),
    }
}

impl Running {
    /// Waits until the server listens, and says what it runs; an error says why it never will.
    pub async fn ready(&self) -> Result<Description, String> {
        tokio::select! {
            () = shutdown::reached(self.phase.subscribe(), Phase::Serving) => {}
            failure = self.failure() => return Err(failure),
        }
        let description = self.workers.borrow().description.clone();
        description.ok_or_else(|| "it stopped before a worker was warm".to_owned())
    }

    /// Waits until the server can serve no more, since the last worker is lost or a server of calls has failed; says
    /// why.
    pub async fn failure(&self) -> String {
        let (mut workers, mut served) = (self.workers.clone(), self.served.clone());
        tokio::select! {
            lost = workers.wait_for(Workers::all_lost) => lost.map_or_else(
                |_| "the batcher has ended".to_owned(),
                |lost| lost.last_error.clone().unwrap_or_default(),
            ),
            failed = served.wait_for(|served| matches!(served, Some(Err(_)))) => match failed.as_deref() {
                Ok(Some(Err(error))) => error.clone(),
                _ => "a server panicked".to_owned(),
            },
        }
    }

    /// Ends the server in order: not ready, then no new calls, then every accepted call is answered, then
    /// the threads end.
    pub async fn shutdown(self) -> Result<(), StopError> {
        let grace = self.shutdown_grace;
        let mut deadline = pin!(tokio::time::sleep(grace));

        shutdown::advance(&self.phase, Phase::Leaving);
        tracing::info!(delay = ?self.drain_delay, "leaving: not ready any more");
        tokio::time::sleep(self.drain_delay).await;

        shutdown::advance(&self.phase, Phase::Stopping);
        tracing::info!("stopping: answering the calls in flight");
        let mut served = self.served;
        let over = async {
            deadline.as_mut().await;
            shutdown::advance(&self.phase, Phase::Over);
            std::future::pending().await
        };
        let cut = tokio::select! {
            served = served.wait_for(Option::is_some) => match served.as_deref() {
                Ok(Some(Ok(cut))) => *cut,
                Ok(Some(Err(error))) => return Err(StopError::Serve(error.clone())),
                Ok(None) | Err(_) => return Err(StopError::Serve("it panicked".to_owned())),
            },
            () = over => 0,
        };
        if cut > 0 {
            return Err(StopError::CutOff { grace, calls: cut });
        }
        let (batcher, metrics_server) = (self.batcher, self.metrics_server);
        let threads = tokio::task::spawn_blocking(move || {
            batcher.drain();
            metrics_server.stop();
        });
        tokio::select! {
            _ = threads => {}
            () = &mut deadline => return Err(StopError::BatchRunning { grace }),
        }
        // Now that nothing ends any more.
        if let Some(exporter) = self.exporter {
            tokio::select! {
                () = exporter.finish() => {}
                () = deadline => tracing::warn!("the last spans were not sent: the grace period is over"),
            }
        }
        tracing::info!("stopped");
        Ok(())
    }
}
