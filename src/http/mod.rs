//! The HTTP edge: the API of OpenAI, and of others whose clients people have, as thin adapters onto the operations of
//! `pipeline`. One of the two places that know axum.
//!
//! A call passes [`entrance`], which takes it through the door, reads its body and sends its answer; a file for each
//! endpoint turns JSON into a request and the response into JSON, with [`wire`] and [`images`] for what they have in
//! common; what is wrong is said by [`problem`]. For people there is [`page`]. No batching, no limits and no deadlines
//! of its own.

mod classify;
mod cohere;
mod embeddings;
mod entrance;
mod fetch;
pub mod hosts;
mod images;
mod models;
mod openapi;
mod page;
mod problem;
mod rerank;
mod weaviate;
mod wire;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use http::HeaderValue;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::admission::{Door, Kind, Method};
use crate::batcher::Workers;
use crate::clip::spec::ClipSpec;
use crate::connections::tls::Tls;
use crate::connections::{self, Listener};
use crate::pipeline::Pipeline;
use crate::readiness::Readiness;
use crate::telemetry::metrics::Metrics;
use entrance::Endpoint;
use fetch::Fetcher;
use hosts::Host;
pub use models::Limits;
use page::Live;
use problem::Problem;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of one request.
    pub max_request_bytes: usize,
    /// Names by which clients may ask for the model, besides its own.
    pub model_names: Vec<String>,
    /// Whence pictures may be fetched; none: they are not.
    pub fetch_images: Vec<Host>,
    /// Bytes of one of them.
    pub max_image_bytes: u64,
    /// Whether `/openapi.json` asks for no key.
    pub open_reflection: bool,
    /// Whether there is a page for people at `/`.
    pub page: bool,
    pub connections: connections::Limits,
}

/// What the edge serves from.
pub struct Services {
    pub pipeline: Arc<Pipeline>,
    pub name: String,
    pub fingerprint: String,
    pub spec: ClipSpec,
    pub limits: Limits,
    pub door: Door,
    pub workers: watch::Receiver<Workers>,
    pub tls: Option<Tls>,
    pub metrics: Metrics,
}

/// What every call needs.
struct Edge {
    pipeline: Arc<Pipeline>,
    /// The model's own name, then the others.
    names: Vec<String>,
    fingerprint: HeaderValue,
    spec: ClipSpec,
    limits: Limits,
    /// When the model was loaded, nearly: in seconds since 1970, as OpenAI's objects have it.
    created: u64,
    max_request_bytes: usize,
    fetcher: Option<Fetcher>,
    door: Door,
    workers: watch::Receiver<Workers>,
    readiness: Readiness,
    live: Live,
}

/// Serves until [`Phase::Stopping`](crate::shutdown::Phase), then answers the calls in flight, and returns how many of
/// them were cut off.
pub async fn serve(
    listener: TcpListener,
    options: Options,
    services: Services,
) -> Result<usize, Box<dyn std::error::Error + Send + Sync>> {
    let Services { pipeline, name, fingerprint, spec, limits, door, workers, tls, metrics } = services;
    let (phase, clock) = (door.phase(), door.clock());
    let edge = Arc::new(Edge {
        pipeline,
        names: std::iter::once(name).chain(options.model_names).collect(),
        fingerprint: fingerprint.parse()?,
        spec,
        limits,
        created: clock.unix_seconds(),
        max_request_bytes: options.max_request_bytes,
        fetcher: Fetcher::new(options.fetch_images, options.max_image_bytes),
        readiness: Readiness::new(phase.clone(), workers.clone()),
        live: Live::new(metrics.clone(), clock),
        door,
        workers,
    });
    let router = router(edge, options.open_reflection, options.page);
    let listener = Listener { name: "http", socket: listener, limits: options.connections, tls };
    Ok(connections::serve(listener, router, phase, clock, &metrics).await)
}

/// What answers calls, and where. Clients disagree on whether the version belongs to the address that they are given.
const ENDPOINTS: [(&[&str], Endpoint); 6] = [
    (&["/v1/embeddings", "/embeddings"], endpoint("/v1/embeddings", embeddings::answer)),
    (&["/v1/rerank", "/v2/rerank", "/rerank"], endpoint("/v1/rerank", rerank::answer)),
    (&["/v1/classify", "/classify"], endpoint("/v1/classify", classify::answer)),
    (&["/zero-shot-image-classification"], endpoint("/zero-shot", classify::zero_shot)),
    (&["/v2/embed", "/v1/embed"], endpoint("/v2/embed", cohere::answer)),
    (&["/vectorize"], endpoint("/vectorize", weaviate::vectorize)),
];

/// Shows the series of every endpoint before its first call.
pub fn announce(door: &Door) {
    ENDPOINTS.iter().for_each(|(_, endpoint)| door.announce(endpoint.method));
}

fn router(edge: Arc<Edge>, open_reflection: bool, page: bool) -> Router {
    let mut described = Router::new().route("/openapi.json", get(openapi::document));
    let models = Router::new()
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/meta", get(weaviate::meta))
        .route_layer(from_fn_with_state(edge.clone(), entrance::locked));
    if !open_reflection {
        described = described.route_layer(from_fn_with_state(edge.clone(), entrance::locked));
    }
    let mut router = models
        .merge(described)
        .route("/.well-known/live", get(weaviate::live))
        .route("/.well-known/ready", get(weaviate::ready))
        .route("/livez", get(models::livez))
        .route("/readyz", get(models::readyz));
    if page {
        router = router.merge(page::router(edge.clone()));
    }
    for (paths, endpoint) in ENDPOINTS {
        for path in paths {
            router = router.route(
                path,
                post(move |axum::extract::State(edge), request| entrance::call(edge, endpoint, request)),
            );
        }
    }
    router
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .fallback(async || Problem::no_such_path())
        .with_state(edge)
}

const fn endpoint(name: &'static str, answer: entrance::Answer) -> Endpoint {
    Endpoint { method: Method { name, kind: Kind::Unary }, answer }
}
