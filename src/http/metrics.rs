//! `GET /metrics` on a listener and a thread of its own, so that a saturated server still shows its metrics.

use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use tokio::sync::oneshot;

use crate::telemetry::metrics::Metrics;

/// Content type of the Prometheus text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A running listener.
pub struct MetricsServer {
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl MetricsServer {
    /// Port 0 picks a free one; see `address`.
    pub fn start(address: SocketAddr, metrics: Metrics) -> std::io::Result<MetricsServer> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("metrics".into())
            .spawn(move || runtime.block_on(serve(listener, metrics, stopped)))?;
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

async fn serve(listener: TcpListener, metrics: Metrics, stopped: oneshot::Receiver<()>) {
    let render = move || async move { ([(header::CONTENT_TYPE, TEXT_FORMAT)], metrics.render()) };
    let router = Router::new().route("/metrics", get(render));
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
