//! Connections of a port, from their acceptance to their end. Every wait on a client has a clock.
//!
//! It serves any HTTP service and knows no call: what a request means, how long it may take and what it may hold is the
//! service's. Three things that only a connection can see are decided here:
//!
//! - **Who is let in.** A full port ends the connection that has been without a call for longest, so that silent ones
//!   never keep anybody out.
//! - **Who is waited for.** An answer that its client does not take is dropped with all that it holds ([`body`]), and
//!   the connection goes away once its other calls are answered. The rest of such an answer cannot be sent, and
//!   HTTP/2's reset would wait behind it; yet the calls of others who share the connection, as behind a proxy, must
//!   not suffer.
//! - **Who holds up a shutdown.** Calls ([`Peer::call`]), and nothing else: not idle connections, nor watches.

mod body;
mod peer;
pub mod tls;

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use metrics::Counter;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::either::Either;
use tower_service::Service;

use crate::clock::Clock;
use crate::shutdown::{self, Phase};
use crate::telemetry::metrics::Metrics;
use body::Answer;
pub use body::{BoxError, Inbound, TakenBy};
pub use peer::{Call, Peer};
use peer::{Open, Why};
use tls::Tls;

/// Pause after a failed accept (out of file descriptors, say), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Failed accepts are logged at most once in this time.
const ACCEPT_LOG: Duration = Duration::from_secs(10);

/// What a connection that is to end may still take: to hear of it, and to send what is on its way. Also what a client
/// may take over the next piece of its answer once the server stops.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How often the clocks of a connection are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The same of one that is to end.
const LAST_LOOK: Duration = Duration::from_millis(50);

/// How long a full port waits before it looks again for a connection that it can end.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// Bytes of a request's headers, and of an answer over HTTP/1 that wait to be sent.
const HEADER_BYTES: usize = 64 << 10;

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
    let random = RandomState::new().build_hasher().finish();
    age.mul_f64(0.9 + 0.2 * (random as f64 / u64::MAX as f64))
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

/// What the connections of a port have in common.
struct Port {
    limits: Limits,
    tls: Option<Tls>,
    permits: Arc<Semaphore>,
    open: Mutex<HashMap<u64, Arc<Peer>>>,
    /// Of the next connection.
    number: AtomicU64,
    clock: Clock,
    ended: [(Why, Counter); Why::ALL.len()],
    untaken: Counter,
}

/// A connection's place in its port until dropped.
struct Place {
    port: Arc<Port>,
    number: u64,
    peer: Arc<Peer>,
    _permit: OwnedSemaphorePermit,
}

impl Port {
    fn new(
        name: &'static str,
        limits: Limits,
        tls: Option<Tls>,
        clock: Clock,
        metrics: &Metrics,
    ) -> Arc<Port> {
        let permits = Arc::new(Semaphore::new(limits.connections));
        let (free, all) = (permits.clone(), limits.connections);
        metrics.sample_connections(name, move || all.saturating_sub(free.available_permits()));
        let ended = Why::ALL.map(|why| {
            let counter = metrics.connections_ended(name, why.as_str());
            counter.increment(0);
            (why, counter)
        });
        let untaken = metrics.expirations("reply");
        untaken.increment(0);
        let (open, number) = (Mutex::default(), AtomicU64::new(0));
        Arc::new(Port { limits, tls, permits, open, number, clock, ended, untaken })
    }

    /// The next connection, and its place.
    async fn next(self: &Arc<Self>, listener: &TcpListener) -> (TcpStream, Place) {
        let (stream, address) = accept(listener).await;
        let permit = self.room().await;
        let peer = Arc::new(Peer::new(address, self.clock));
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        self.open().insert(number, peer.clone());
        (stream, Place { port: self.clone(), number, peer, _permit: permit })
    }

    async fn room(&self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(permit) = self.permits.clone().try_acquire_owned() {
                return permit;
            }
            self.evict_one();
            tokio::select! {
                biased;
                permit = self.permits.clone().acquire_owned() => if let Ok(permit) = permit { return permit },
                () = sleep(FULL_PAUSE) => {}
            }
        }
    }

    /// Ends the connection that has been without a call for longest, if there is one.
    fn evict_one(&self) {
        let open = self.open();
        let idle = open.values().filter_map(|peer| Some((peer.idle()?, peer)));
        if let Some((_, peer)) = idle.min_by_key(|(since, _)| *since) {
            peer.evict();
        }
    }

    fn count(&self, why: Why) {
        self.ended.iter().filter(|(each, _)| *each == why).for_each(|(_, counter)| counter.increment(1));
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<Peer>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Serves the connection to its end; returns how many calls were cut off.
    async fn live<S, B>(self, stream: TcpStream, service: S, phase: watch::Receiver<Phase>) -> usize
    where
        S: Service<Request<Inbound>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let Place { port, peer, .. } = &self;
        let Limits { protocol, clocks, http2, .. } = &port.limits;
        let builder = builder(*protocol, http2);
        let service = Counted { service, peer: peer.clone(), clock: port.clock };
        let mut stopping = pin!(shutdown::reached(phase.clone(), Phase::Stopping));
        let stream = match &port.tls {
            None => Either::Left(stream),
            Some(tls) => tokio::select! {
                handshake = timeout(clocks.first_request, tls.accept(stream)) => match handshake {
                    Ok(Ok(stream)) => Either::Right(stream),
                    // Somebody who speaks no TLS, or none that we speak, or has no certificate.
                    Ok(Err(_)) => {
                        port.count(Why::Handshake);
                        return 0;
                    }
                    Err(_) => {
                        port.count(Why::FirstRequest);
                        return 0;
                    }
                },
                () = peer.clone().evicted() => {
                    port.count(Why::Full);
                    return 0;
                }
                () = &mut stopping => return 0,
            },
        };
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let clocks = Clocks { max_age: clocks.max_age.map(jittered), ..*clocks };
        // Polled together, they cost a connection that is busy with its client next to nothing.
        let mut events = FuturesUnordered::<Pin<Box<dyn Future<Output = Event> + Send>>>::new();
        let reached = |at, event| shutdown::reached(phase.clone(), at).map(move |()| event);
        events.push(Box::pin(reached(Phase::Stopping, Event::Stopping)));
        events.push(Box::pin(reached(Phase::Over, Event::Over)));
        events.push(Box::pin(peer.clone().evicted().map(|()| Event::Evicted)));
        let mut pause = LOOK.min(clocks.answer / 4).min(clocks.first_request / 4);
        let look = |pause| Box::pin(sleep(pause).map(move |()| Event::Look(pause)));
        events.push(look(pause));
        let (mut stops, mut leaving) = (false, None);
        loop {
            let event = tokio::select! {
                // How a client breaks a connection is its own affair.
                _ = &mut connection => return 0,
                Some(event) = events.next() => event,
            };
            let now = port.clock.now();
            let why = match event {
                Event::Over => return peer.cut(),
                Event::Evicted => {
                    port.count(Why::Full);
                    return 0;
                }
                Event::Stopping => {
                    stops = true;
                    Some(Why::Shutdown)
                }
                Event::Look(paused) => {
                    if paused == pause {
                        events.push(look(pause));
                    }
                    let patience = if stops { LAST_WORDS.min(clocks.answer) } else { clocks.answer };
                    let untaken = peer.drop_untaken(now, patience);
                    port.untaken.increment(untaken as u64);
                    if untaken > 0 { Some(Why::Answer) } else { peer.overdue(now, &clocks) }
                }
            };
            match (leaving, why) {
                (None, Some(why)) => {
                    leaving = Some(now);
                    port.count(why);
                    pause = LAST_LOOK;
                    events.push(look(pause));
                    connection.as_mut().graceful_shutdown();
                }
                (Some(since), _) if peer.calls() == 0 && now.since(since) >= LAST_WORDS => return 0,
                // Calls are waited for.
                _ => {}
            }
        }
    }
}

/// What a connection hears of, beside its client.
#[derive(Clone, Copy)]
enum Event {
    /// It is time to look at the clocks, so long after the last time.
    Look(Duration),
    /// Its place is needed.
    Evicted,
    Stopping,
    Over,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.port.open().remove(&self.number);
    }
}

fn builder(protocol: Protocol, http2: &Http2) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder = match protocol {
        Protocol::Http1 => builder.http1_only(),
        Protocol::Http2 => builder.http2_only(),
        Protocol::Both => builder,
    };
    // Of one request's headers; connections without a request have clocks of their own.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(HEADER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(http2.max_concurrent_streams)
        .initial_stream_window_size(http2.stream_window_bytes)
        .initial_connection_window_size(http2.connection_window_bytes)
        .keep_alive_interval(http2.keepalive_interval)
        .keep_alive_timeout(http2.keepalive_timeout);
    builder
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let (mut failed, mut logged): (u64, Option<Instant>) = (0, None);
    loop {
        let accepted = listener.accept().await;
        match accepted.and_then(|(stream, address)| stream.set_nodelay(true).map(|()| (stream, address))) {
            Ok(accepted) => return accepted,
            Err(error) => {
                failed += 1;
                if logged.is_none_or(|at| at.elapsed() >= ACCEPT_LOG) {
                    tracing::warn!(%error, failed, "connections are not accepted");
                    logged = Some(Instant::now());
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The service as hyper calls it: requests and answers are seen by their connection.
struct Counted<S> {
    service: S,
    peer: Arc<Peer>,
    clock: Clock,
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Counted<S>
where
    S: Service<Request<Inbound>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Answer<B>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (open, clock) = (Open::new(self.peer.clone()), self.clock);
        let mut request = request.map(Inbound::new);
        request.extensions_mut().insert(self.peer.clone());
        let mut service = self.service.clone();
        Box::pin(async move {
            std::future::poll_fn(|context| service.poll_ready(context)).await?;
            let response = service.call(request).await?;
            let taken_by = response.extensions().get::<TakenBy>().copied();
            Ok(response.map(|body| Answer::new(body, open, taken_by, clock)))
        })
    }
}
