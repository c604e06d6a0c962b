//! The gRPC edge: the only place that knows tonic and the generated types.
//!
//! A call passes [`entrance`] (before its body is read), [`gzip`], [`codec`] and [`service`] with [`convert`], and
//! leaves through [`status`]; [`streams`] is the flow of the calls that stream. Policy about batches, images or labels
//! is not here; it is in `pipeline`.

mod codec;
mod convert;
mod entrance;
mod gzip;
mod health;
mod place;
mod service;
pub(crate) mod status;
mod streams;
mod timeout;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;

use crate::admission::Door;
use crate::batcher::Workers;
use crate::connections::tls::Tls;
use crate::connections::{self, Listener};
use crate::pipeline::Pipeline;
use crate::readiness::Readiness;
use crate::telemetry::metrics::Metrics;
use entrance::{Entrance, Lock};
use gzip::Accepting;
use proto::clip_service_server::ClipServiceServer;
pub use service::ModelCard;

/// Request metadata with the class of a call.
pub(crate) const CLASS: &str = "clip-class";
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
    /// Inputs of one stream that may be without an answer.
    pub max_stream_inputs: usize,
    /// A stream is ended after this time, so that clients find new servers; `None`: never. Within 10 %, differently for
    /// each.
    pub max_stream_age: Option<Duration>,
    /// Whether reflection asks for no key.
    pub open_reflection: bool,
    pub connections: connections::Limits,
}

/// What the edge serves from.
pub struct Services {
    pub pipeline: Arc<Pipeline>,
    pub model: ModelCard,
    pub door: Door,
    pub workers: watch::Receiver<Workers>,
    pub tls: Option<Tls>,
    pub metrics: Metrics,
}

/// Shows the series of every method before its first call.
pub fn announce(door: &Door) {
    entrance::announce(door);
}

/// Serves until [`Phase::Stopping`](crate::shutdown::Phase), then answers the calls in flight, and returns how many of
/// them were cut off.
pub async fn serve(
    listener: TcpListener,
    options: Options,
    services: Services,
) -> Result<usize, Box<dyn std::error::Error + Send + Sync>> {
    let Services { pipeline, model, door, workers, tls, metrics } = services;
    let (phase, clock) = (door.phase(), door.clock());
    let readiness = Readiness::new(phase.clone(), workers.clone());
    let state = readiness.now();
    let (health_reporter, health_service) = health::reporter(state).await;
    let health = tokio::spawn(health::follow(health_reporter, readiness, state));

    let terms = Terms {
        window: options.max_stream_inputs,
        request_bytes: door.request_bytes().clone(),
        response_bytes: door.response_bytes().clone(),
        ends_by: None,
        max_age: options.max_stream_age,
        phase: phase.clone(),
        clock,
    };
    let fingerprint = model.fingerprint.parse()?;
    let clip = service::Clip { pipeline, model, fingerprint, workers, terms };
    let clip = ClipServiceServer::new(clip).max_decoding_message_size(options.max_message_bytes);
    let descriptors = [proto::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET];
    let reflection = || {
        descriptors.iter().fold(tonic_reflection::server::Builder::configure(), |builder, set| {
            builder.register_encoded_file_descriptor_set(set)
        })
    };
    let lock = Lock((!options.open_reflection).then(|| door.clone()));
    let routes = Routes::new(Entrance::new(clip, door, options.max_message_bytes))
        .add_service(Accepting(health_service))
        .add_service(Accepting(InterceptedService::new(reflection().build_v1()?, lock.clone())))
        .add_service(Accepting(InterceptedService::new(reflection().build_v1alpha()?, lock)))
        .prepare();
    let listener = Listener { name: "grpc", socket: listener, limits: options.connections, tls };
    let cut = connections::serve(listener, routes, phase, clock, &metrics).await;
    health.await?;
    Ok(cut)
}
