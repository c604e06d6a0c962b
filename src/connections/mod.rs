//! Connections of a port, from their acceptance to their end. Every wait on a client has a clock.
//!
//! It serves any HTTP service and knows no call: what a request means, how long it may take and what it may hold is the
//! service's. Three things that only a connection can see are decided here, where [`port`] has all of them and [`life`]
//! is of one:
//!
//! - **Who is let in.** A full port ends the connection that has been without a call for longest, so that silent ones
//!   never keep anybody out.
//! - **Who is waited for.** An answer that its client does not take is dropped with all that it holds ([`body`]), and
//!   the connection goes away once its other calls are answered. The rest of such an answer cannot be sent, and
//!   HTTP/2's reset would wait behind it; yet the calls of others who share the connection, as behind a proxy, must
//!   not suffer.
//! - **Who holds up a shutdown.** Calls ([`Peer::call`]), and nothing else: not idle connections, nor watches.

mod body;
mod certificate;
mod life;
mod peer;
mod port;
pub mod tls;

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower_service::Service;

use crate::clock::Clock;
use crate::random::random;
use crate::shutdown::{self, Phase};
use crate::telemetry::metrics::Metrics;
pub use body::{BoxError, Inbound, TakenBy};
pub use peer::{Call, Peer};
use port::Port;
use tls::Tls;

/// What a port takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub connections: usize,
    pub protocol: Protocol,
    pub clocks: Clocks,
    pub http2: Http2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    /// From the first byte, as gRPC speaks it.
    Http2,
    Both,
}

/// How long a client is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// From the acceptance to the headers of a request.
    pub first_request: Duration,
    /// Without a request.
    pub idle: Duration,
    /// For each 16 KiB of an answer to be taken, counted from when they are ready.
    pub answer: Duration,
    /// A connection is asked to go away after this time, so that clients find new servers; `None`: never. Within 10 %,
    /// differently for each.
    pub max_age: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2 {
    /// Requests at a time on one connection.
    pub max_concurrent_streams: u32,
    /// Bytes a client may send ahead on one request.
    pub stream_window_bytes: u32,
    /// Bytes a client may send ahead on one connection.
    pub connection_window_bytes: u32,
    /// A ping after this much silence finds dead clients.
    pub keepalive_interval: Duration,
    /// A ping unanswered for this long ends the connection.
    pub keepalive_timeout: Duration,
}

/// Within 10 % of `age`, so that those who came together do not all leave together.
pub fn jittered(age: Duration) -> Duration {
    age.mul_f64(0.9 + 0.2 * (random() as f64 / u64::MAX as f64))
}

/// A port that listens.
pub struct Listener {
    /// For metrics.
    pub name: &'static str,
    pub socket: TcpListener,
    pub limits: Limits,
    /// `None`: it speaks in the clear.
    pub tls: Option<Tls>,
}

/// Accepts connections until [`Phase::Stopping`], then waits for the calls in flight, until [`Phase::Over`] at the
/// latest. Returns how many calls were cut off.
pub async fn serve<S, B>(
    listener: Listener,
    service: S,
    phase: watch::Receiver<Phase>,
    clock: Clock,
    metrics: &Metrics,
) -> usize
where
    S: Service<Request<Inbound>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let Listener { name, socket: listener, limits, tls } = listener;
    let port = Port::new(name, limits, tls, clock, metrics);
    let mut connections = JoinSet::new();
    {
        let mut stopping = pin!(shutdown::reached(phase.clone(), Phase::Stopping));
        // Kept from turn to turn: it may have accepted a connection that waits for a place.
        let mut next = pin!(port.next(&listener));
        loop {
            tokio::select! {
                () = &mut stopping => break,
                (stream, place) = &mut next => {
                    let (service, phase) = (service.clone(), phase.clone());
                    connections.spawn(place.live(stream, service, phase));
                    next.set(port.next(&listener));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }
    drop(listener);
    let mut cut = 0;
    while let Some(ended) = connections.join_next().await {
        cut += ended.unwrap_or(0);
    }
    cut
}
