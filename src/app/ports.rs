//! What a server has before it has a model: its ports.
//!
//! A port that is taken is an error at once, and the metrics port answers from the first moment. Those that serve calls
//! are bound and do not listen: a connection to them is refused, rather than accepted by the kernel and left without an
//! answer.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

use super::StartError;
use super::safety::tls;
use crate::batcher::Workers;
use crate::clock::Clock;
use crate::config::Config;
use crate::connections::Protocol;
use crate::metrics_port::MetricsServer;
use crate::readiness::{Readiness, State};
use crate::shutdown::Phase;
use crate::telemetry::metrics::Metrics;

/// Connections that wait to be accepted; the kernel may allow fewer.
const BACKLOG: u32 = 1024;

pub struct Ports {
    pub(super) grpc: Port,
    /// `None`: switched off.
    pub(super) http: Option<Port>,
    pub(super) metrics_server: MetricsServer,
    pub(super) metrics: Metrics,
    pub(super) clock: Clock,
    /// What the metrics port tells the state of the server by.
    pub(super) phase: watch::Sender<Phase>,
    pub(super) workers: watch::Sender<Workers>,
}

impl Ports {
    /// Must be called on the runtime that serves calls.
    pub fn open(config: &Config) -> Result<Ports, StartError> {
        let (flag, address) = ("--metrics-listen", config.metrics_listen);
        let failed = |error| StartError::Listen { flag, address, error };
        let grpc = Port::bind("--listen", config.listen)?;
        let http = config.http_listen.map(|address| Port::bind("--http-listen", address)).transpose()?;
        let clock = Clock::start();
        let (metrics, phase) = (Metrics::new(), watch::Sender::new(Phase::Starting));
        let workers = watch::Sender::default();
        let readiness = Readiness::new(phase.subscribe(), workers.subscribe());
        let (ready, draining) = (readiness.clone(), readiness.clone());
        metrics.sample_ready(move || ready.now() == State::Ready);
        metrics.sample_draining(move || draining.now() == State::Draining);
        let tls = tls(config.metrics_tls.as_ref(), Protocol::Http1, &metrics)?;
        let metrics_server =
            MetricsServer::start(config.metrics_listen, tls, metrics.clone(), readiness, clock)
                .map_err(failed)?;
        let http_address = http.as_ref().map(|port| tracing::field::display(port.address));
        tracing::info!(
            grpc = %grpc.address, http = http_address, metrics = %metrics_server.address, "starting"
        );
        Ok(Ports { grpc, http, metrics_server, metrics, clock, phase, workers })
    }

    /// Where `/metrics`, `/livez` and `/readyz` are.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics_server.address
    }
}

/// Bound and not listening. Another server that starts at the same time can bind it too: the one that listens first has
/// it.
pub(super) struct Port {
    flag: &'static str,
    socket: TcpSocket,
    /// With the port that was chosen if the configuration said 0.
    pub(super) address: SocketAddr,
}

impl Port {
    fn bind(flag: &'static str, address: SocketAddr) -> Result<Port, StartError> {
        Port::bound(flag, address).map_err(|error| StartError::Listen { flag, address, error })
    }

    fn bound(flag: &'static str, address: SocketAddr) -> io::Result<Port> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Connections of an earlier process that still close must not hold up a restart.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let address = socket.local_addr()?;
        Ok(Port { flag, socket, address })
    }

    pub(super) fn listen(self) -> Result<TcpListener, String> {
        let listener = self.socket.listen(BACKLOG);
        listener.map_err(|error| format!("cannot listen on {} ({}): {error}", self.address, self.flag))
    }
}
