//! The gRPC edge: the only place that knows tonic and the generated types.
//!
//! A call passes [`admission`] (before its body is read), [`service`] with [`convert`], and leaves through
//! [`status`]; [`streams`] is the flow of the calls that stream. Policy about batches, images or labels is not here; it is in `pipeline`.

mod admission;
mod convert;
mod health;
mod listener;
mod service;
pub(crate) mod status;
mod streams;
mod timeout;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tonic::transport::Server;

use crate::batcher::Workers;
use crate::clock::Clock;
use crate::pipeline::Pipeline;
use crate::readiness::Readiness;
use crate::shutdown::{self, Phase};
use crate::telemetry::metrics::Metrics;
use admission::Admission;
use proto::clip_service_server::ClipServiceServer;
pub use service::ModelCard;
use streams::Terms;

/// Message types, client and server generated from `proto/clip/v1/clip.proto`.
pub mod proto {
    tonic::include_proto!("clip.v1");

    /// What reflection serves.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}

/// Limits and timers of the edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of one request message.
    pub max_message_bytes: usize,
    /// Calls served at a time.
    pub max_concurrent_requests: usize,
    /// Bytes of request messages held at a time.
    pub max_request_bytes_in_flight: usize,
    /// Longest time a call, or an input of a stream, may take; the default for those without a timeout.
    pub timeout: Duration,
    /// Streams served at a time.
    pub max_streams: usize,
    /// Inputs of one stream that may be without an answer.
    pub max_stream_inputs: usize,
    /// A stream is ended after this time, so that clients find new servers; `None`: never.
    pub max_stream_age: Option<Duration>,
    pub max_connections: usize,
    /// Calls at a time per connection.
    pub max_concurrent_streams: u32,
    /// Bytes a client may send ahead on one call.
    pub stream_window_bytes: u32,
    /// Bytes a client may send ahead on one connection.
    pub connection_window_bytes: u32,
    /// A ping after this much silence finds dead clients.
    pub keepalive_interval: Duration,
    /// A ping unanswered for this long ends the connection.
    pub keepalive_timeout: Duration,
    /// A connection is asked to go away after this time, so that clients find new servers; `None`: never.
    pub max_connection_age: Option<Duration>,
}

/// What the edge serves from.
pub struct Services {
    pub pipeline: Arc<Pipeline>,
    pub model: ModelCard,
    pub workers: watch::Receiver<Workers>,
    pub phase: watch::Receiver<Phase>,
    pub clock: Clock,
    pub metrics: Metrics,
}

/// Serves until [`Phase::Stopping`], then answers the calls in flight and returns.
pub async fn serve(
    listener: TcpListener,
    options: Options,
    services: Services,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let Services { pipeline, model, workers, phase, clock, metrics } = services;
    let incoming = listener::incoming(listener, options.max_connections, metrics.connections());
    let readiness = Readiness::new(phase.clone(), workers.clone());
    let state = readiness.now();
    let (health_reporter, health_service) = health::reporter(state).await;
    let health = tokio::spawn(health::follow(health_reporter, readiness, state));

    let bytes = Arc::new(Semaphore::new(options.max_request_bytes_in_flight));
    let terms = Terms {
        window: options.max_stream_inputs,
        bytes: bytes.clone(),
        ends_by: None,
        max_age: options.max_stream_age.map(jittered),
        phase: phase.clone(),
        clock,
    };
    let fingerprint = model.fingerprint.parse()?;
    let clip = service::Clip { pipeline, model, fingerprint, workers, timeout: options.timeout, terms };
    let clip = ClipServiceServer::new(clip).max_decoding_message_size(options.max_message_bytes);
    let descriptors = [proto::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET];
    let reflection = || {
        descriptors.iter().fold(tonic_reflection::server::Builder::configure(), |builder, set| {
            builder.register_encoded_file_descriptor_set(set)
        })
    };

    let mut server = Server::builder()
        .tcp_nodelay(true)
        .max_concurrent_streams(options.max_concurrent_streams)
        .initial_stream_window_size(options.stream_window_bytes)
        .initial_connection_window_size(options.connection_window_bytes)
        .http2_keepalive_interval(Some(options.keepalive_interval))
        .http2_keepalive_timeout(Some(options.keepalive_timeout));
    if let Some(age) = options.max_connection_age {
        // Without max_connection_age_grace: tonic 0.14 with a grace drops the connection, without it
        // it says GOAWAY and lets the calls end.
        server = server.max_connection_age(jittered(age));
    }
    server
        .add_service(Admission::new(clip, &options, bytes, clock, &metrics))
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .serve_with_incoming_shutdown(incoming, shutdown::reached(phase, Phase::Stopping))
        .await?;
    health.await?;
    Ok(())
}

/// Within 10 % of `age`, differently in each process, so that the connections of a fleet that started together
/// do not all move at once.
fn jittered(age: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    age.mul_f64(0.9 + 0.2 * (random as f64 / u64::MAX as f64))
}
