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
use tokio::sync::oneshot;

use crate::readiness::Readiness;
use crate::telemetry::metrics::Metrics;

/// Content type of the Prometheus text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The runtime that serves calls runs a task of no work in this time, or it is stuck: Kubernetes' own default.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// A running listener.
pub struct MetricsServer {
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl MetricsServer {
    /// Port 0 picks a free one; see `address`. Call it on the runtime that serves calls, whose liveness it tells.
    pub fn start(
        address: SocketAddr,
        metrics: Metrics,
        readiness: Readiness,
    ) -> std::io::Result<MetricsServer> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let router = Router::new()
            .route("/metrics", get(exposition))
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .with_state(Pages { metrics, readiness, calls: Handle::current() });
        let thread = std::thread::Builder::new()
            .name("metrics".into())
            .spawn(move || runtime.block_on(serve(listener, router, stopped)))?;
        Ok(MetricsServer { address, stop, thread })
    }

    /// Ends the thread. Blocks for a moment.
    pub fn stop(self) {
        drop(self.stop);
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

async fn serve(listener: TcpListener, router: Router, stopped: oneshot::Receiver<()>) {
    let serving = async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        axum::serve(listener, router).await
    };
    tokio::select! {
        result = serving => if let Err(error) = result {
            tracing::error!(%error, "metrics listener failed");
        },
        _ = stopped => {}
    }
}
