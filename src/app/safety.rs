//! What keeps a server safe on a network that it shares: who may call, and what its ports speak TLS with.

use std::net::SocketAddr;

use super::StartError;
use crate::auth::{Addresses, Callers, reload};
use crate::clock::Clock;
use crate::config::Config;
use crate::connections::Protocol;
use crate::connections::tls::{Tls, TlsFiles};
use crate::telemetry::metrics::Metrics;

/// Who may call.
pub(super) fn callers(config: &Config, clock: Clock, metrics: &Metrics) -> Result<Callers, StartError> {
    let Some(path) = &config.api_keys else {
        let open: Vec<SocketAddr> = [Some(config.listen), config.http_listen]
            .into_iter()
            .flatten()
            .filter(|address| !address.ip().is_loopback())
            .collect();
        if !open.is_empty() {
            tracing::warn!(?open, "whoever reaches these addresses may call: there are no --api-keys");
        }
        return Ok(config
            .peer_limits
            .clone()
            .map_or(Callers::All, |limits| Callers::Bounded(Addresses::new(limits))));
    };
    let failed = |error| StartError::Keys { path: path.display().to_string(), error };
    reload::follow(path, clock, metrics).map(Callers::Keyed).map_err(failed)
}

/// What a port speaks TLS with, if it does.
pub(super) fn tls(
    files: Option<&TlsFiles>,
    protocol: Protocol,
    metrics: &Metrics,
) -> Result<Option<Tls>, StartError> {
    Ok(files.map(|files| Tls::follow(files, protocol, metrics)).transpose()?)
}
