//! `/metrics`, `/livez` and `/readyz` on a listener and a thread of their own, from the first moment of the process,
//! so that a server that loads its model, or is saturated, still shows how it is.

use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Router, extract};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::connections::tls::Tls;
use crate::connections::{self, Clocks, Http2, Limits, Listener, Protocol};
use crate::readiness::Readiness;
use crate::shutdown::{self, Phase};
use crate::telemetry::metrics::Metrics;

/// Content type of the Prometheus text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The runtime that serves calls runs a task of no work in this time, or it is stuck: Kubernetes' own default.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// Of Prometheus, probes, and people who look.
const LIMITS: Limits = Limits {
    connections: 64,
    protocol: Protocol::Http1,
    clocks: Clocks {
        first_request: Duration::from_secs(10),
        idle: Duration::from_secs(300),
        answer: Duration::from_secs(10),
        max_age: None,
    },
    // Not spoken here.
    http2: Http2 {
        max_concurrent_streams: 1,
        stream_window_bytes: 65_535,
        connection_window_bytes: 65_535,
        keepalive_interval: Duration::from_secs(60),
        keepalive_timeout: Duration::from_secs(20),
    },
};

/// A running listener.
pub struct MetricsServer {
    pub address: SocketAddr,
    phase: watch::Sender<Phase>,
    thread: JoinHandle<()>,
}

impl MetricsServer {
    /// Port 0 picks a free one; see `address`. Call it on the runtime that serves calls, whose liveness it tells.
    pub fn start(
        address: SocketAddr,
        tls: Option<Tls>,
        metrics: Metrics,
        readiness: Readiness,
        clock: Clock,
    ) -> std::io::Result<MetricsServer> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let phase = watch::Sender::new(Phase::Serving);
        let router = Router::new()
            .route("/metrics", get(exposition))
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .with_state(Pages { metrics: metrics.clone(), readiness, calls: Handle::current() });
        let stopped = phase.subscribe();
        let thread = std::thread::Builder::new()
            .name("metrics".into())
            .spawn(move || runtime.block_on(serve(listener, tls, router, stopped, clock, metrics)))?;
        Ok(MetricsServer { address, phase, thread })
    }

    /// Ends the thread. Blocks for a moment.
    pub fn stop(self) {
        shutdown::advance(&self.phase, Phase::Over);
        if self.thread.join().is_err() {
            tracing::error!("the metrics thread panicked");
        }
    }
}

/// What the pages are made of.
#[derive(Clone)]
struct Pages {
    metrics: Metrics,
    readiness: Readiness,
    /// The runtime that serves calls.
    calls: Handle,
}

async fn exposition(extract::State(pages): extract::State<Pages>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, TEXT_FORMAT)], pages.metrics.render())
}

/// Whether a restart would not help: a worker is left or on its way, and the runtime that serves calls runs tasks.
async fn livez(extract::State(pages): extract::State<Pages>) -> (StatusCode, &'static str) {
    let state = pages.readiness.now();
    if !state.is_alive() {
        return (StatusCode::SERVICE_UNAVAILABLE, state.as_str());
    }
    match tokio::time::timeout(STUCK_AFTER, pages.calls.spawn(async {})).await {
        Ok(_) => (StatusCode::OK, "alive"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the threads that serve calls are stuck"),
    }
}

/// Whether calls should be sent here; the text says why not.
async fn readyz(extract::State(pages): extract::State<Pages>) -> (StatusCode, &'static str) {
    let state = pages.readiness.now();
    let code = if state.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, state.as_str())
}

async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    phase: watch::Receiver<Phase>,
    clock: Clock,
    metrics: Metrics,
) {
    match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => {
            let listener = Listener { name: "metrics", socket: listener, limits: LIMITS, tls };
            connections::serve(listener, router, phase, clock, &metrics).await;
        }
        Err(error) => tracing::error!(%error, "metrics listener failed"),
    }
}
