//! The doors of a server, and when they open.

use std::error::Error;

use tokio::sync::watch;

use super::ports::Port;
use crate::batcher::Workers;
use crate::engine::Description;
use crate::grpc::{self, ModelCard};
use crate::http;
use crate::shutdown::{self, Phase};

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
