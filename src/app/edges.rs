//! The doors of a server: who may come in, and when they open.

use std::error::Error;
use std::net::SocketAddr;

use tokio::sync::watch;

use super::StartError;
use super::ports::Port;
use crate::auth::{Keys, reload};
use crate::batcher::Workers;
use crate::clock::Clock;
use crate::config::Config;
use crate::connections::Protocol;
use crate::connections::tls::Tls;
use crate::engine::Description;
use crate::grpc::{self, ModelCard};
use crate::http;
use crate::shutdown::{self, Phase};
use crate::telemetry::metrics::Metrics;

/// The doors of a server, and what is behind them.
pub(super) struct Edges {
    pub(super) grpc: Port,
    pub(super) grpc_options: grpc::Options,
    pub(super) services: grpc::Services,
    pub(super) http: Option<Port>,
    pub(super) http_options: http::Options,
    pub(super) http_services: http::Services,
}

/// Listens once every worker is warm or lost, and serves until the phase says stop. Returns how many calls were cut
/// off.
pub(super) async fn serve(
    edges: Edges,
    phase: watch::Sender<Phase>,
) -> Result<usize, Box<dyn Error + Send + Sync>> {
    let Edges { grpc, grpc_options, mut services, http, http_options, http_services } = edges;
    let warm = |workers: &Workers| workers.counts.starting == 0 && workers.counts.ready > 0;
    tokio::select! {
        // An error means that the batcher has ended, and the server with it.
        warm = services.workers.wait_for(warm) => if warm.is_err() { return Ok(0) },
        () = shutdown::reached(phase.subscribe(), Phase::Leaving) => return Ok(0),
    }
    let (address, http_address) =
        (grpc.address, http.as_ref().map(|port| tracing::field::display(port.address)));
    let listener = grpc.listen()?;
    let http = http.map(Port::listen).transpose()?;
    if let Some(Description { device, precision, .. }) = &services.workers.borrow().description {
        let ModelCard { name, fingerprint, .. } = &services.model;
        services.metrics.model_info(name, fingerprint, device, precision).set(1.0);
    }
    grpc::announce(&services.door);
    if http.is_some() {
        http::announce(&http_services.door);
    }
    tracing::info!(grpc = %address, http = http_address, "listening");
    shutdown::advance(&phase, Phase::Serving);
    // Should the others be gone, the server is to end.
    drop(phase);
    let http = async {
        match http {
            Some(listener) => http::serve(listener, http_options, http_services).await,
            None => Ok(0),
        }
    };
    let (cut, more) = tokio::try_join!(grpc::serve(listener, grpc_options, services), http)?;
    Ok(cut + more)
}

/// Who may call.
pub(super) fn keys(config: &Config, clock: Clock, metrics: &Metrics) -> Result<Option<Keys>, StartError> {
    let Some(path) = &config.api_keys else {
        let open: Vec<SocketAddr> = [Some(config.listen), config.http_listen]
            .into_iter()
            .flatten()
            .filter(|address| !address.ip().is_loopback())
            .collect();
        if !open.is_empty() {
            tracing::warn!(?open, "whoever reaches these addresses may call: there are no --api-keys");
        }
        return Ok(None);
    };
    let failed = |error| StartError::Keys { path: path.display().to_string(), error };
    reload::follow(path, clock, metrics).map(Some).map_err(failed)
}

/// What a port speaks TLS with, if it does.
pub(super) fn tls(config: &Config, protocol: Protocol, metrics: &Metrics) -> Result<Option<Tls>, StartError> {
    Ok(config.tls.as_ref().map(|files| Tls::follow(files, protocol, metrics)).transpose()?)
}
