//! The life of one connection: it serves its client's requests, and ends by one of its clocks.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::either::Either;
use tower_service::Service;

use super::body::{Answer, BoxError, Inbound, TakenBy};
use super::peer::{Open, Peer, Why};
use super::port::Place;
use super::tls;
use super::{Clocks, Http2, Limits, Protocol, jittered};
use crate::clock::Clock;
use crate::shutdown::{self, Phase};

/// What a connection that is to end may still take: to hear of it, and to send what is on its way. Also what a client
/// may take over the next piece of its answer once the server stops.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How often the clocks of a connection are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The same of one that is to end.
const LAST_LOOK: Duration = Duration::from_millis(50);

/// Bytes of a request's headers, and of an answer over HTTP/1 that wait to be sent.
const HEADER_BYTES: usize = 64 << 10;

impl Place {
    /// Serves the connection to its end; returns how many calls were cut off.
    pub(super) async fn live<S, B>(
        self,
        stream: TcpStream,
        service: S,
        phase: watch::Receiver<Phase>,
    ) -> usize
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
                    Ok(Ok(stream)) => {
                        peer.is_called(tls::names(&stream));
                        Either::Right(stream)
                    }
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
        events.push(Box::pin(reached(Phase::Leaving, Event::Leaving)));
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
                Event::Leaving => {
                    peer.ask_to_go();
                    None
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
                // It goes with its next answer, or once it has been idle for too long.
                (None, Some(Why::Age)) if peer.is_one_by_one() => {
                    port.count(Why::Age);
                    peer.ask_to_go();
                }
                (None, Some(why)) => {
                    leaving = Some(now);
                    port.count(why);
                    pause = LAST_LOOK;
                    events.push(look(pause));
                    connection.as_mut().graceful_shutdown();
                }
                // What the last call ended with may be on its way still.
                (Some(since), _) if peer.quiet(now) >= LAST_WORDS && now.since(since) >= LAST_WORDS => {
                    return 0;
                }
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
    Leaving,
    Stopping,
    Over,
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
        let (open, clock) = (Open::new(self.peer.clone(), request.version()), self.clock);
        let peer = self.peer.clone();
        let mut request = request.map(Inbound::new);
        request.extensions_mut().insert(self.peer.clone());
        let mut service = self.service.clone();
        Box::pin(async move {
            std::future::poll_fn(|context| service.poll_ready(context)).await?;
            let mut response = service.call(request).await?;
            if peer.is_last() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            let taken_by = response.extensions().get::<TakenBy>().copied();
            Ok(response.map(|body| Answer::new(body, open, taken_by, clock)))
        })
    }
}
