//! What happens to a call before its body is read, and after its last byte is sent.
//!
//! Outermost layer of the service: stamps the arrival, sets the deadline, takes a place among the calls in
//! flight, and meters the body against the bytes in flight. Without this, large bodies x calls x connections
//! would be buffered before anyone says no. The call is counted once, by a guard that covers dropped clients.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use metrics::{Counter, Gauge};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep_until};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower_service::Service;

use super::{Options, status, timeout};
use crate::clock::{Clock, Timestamp};
use crate::pipeline::Deadline;
use crate::telemetry::metrics::{Metrics, RecordDuration};

/// Hint for calls refused at the door: they cost nothing, so an early second try is cheap.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Method names that may become metric labels.
const METHODS: [(&str, Kind); 5] = [
    ("Embed", Kind::Unary),
    ("Classify", Kind::Unary),
    ("GetModel", Kind::Unary),
    ("StreamEmbed", Kind::Stream),
    ("StreamClassify", Kind::Stream),
];

/// Codes that calls of every method may end with: counted from the first moment, so that the first of a kind shows as
/// an increase.
const CODES: [Code; 8] = [
    Code::Ok,
    Code::Cancelled,
    Code::InvalidArgument,
    Code::DeadlineExceeded,
    Code::ResourceExhausted,
    Code::OutOfRange,
    Code::Internal,
    Code::Unavailable,
];

/// How a call is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// By the deadline, and by the bytes of its one message, which are refused when there are too many.
    Unary,
    /// By the number of streams; its messages wait for each other (see [`super::streams`]).
    Stream,
}

#[derive(Clone)]
pub(super) struct Admission<S> {
    inner: S,
    door: Arc<Door>,
}

struct Door {
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    timeout: Duration,
    clock: Clock,
    metrics: Metrics,
    in_flight: Gauge,
    refused_calls: Counter,
    refused_streams: Counter,
    refused_bytes: Counter,
    expired: Counter,
}

impl<S> Admission<S> {
    /// `bytes` has a permit for each byte of request messages that may be held at a time.
    pub(super) fn new(
        inner: S,
        options: &Options,
        bytes: Arc<Semaphore>,
        clock: Clock,
        metrics: &Metrics,
    ) -> Admission<S> {
        for (method, _) in METHODS {
            let _ = metrics.request_duration(method, status::code_name(Code::Ok));
            CODES.iter().for_each(|code| metrics.requests(method, status::code_name(*code)).increment(0));
        }
        let streams = Arc::new(Semaphore::new(options.max_streams));
        metrics.sample_streams(held(&streams, options.max_streams));
        metrics.sample_request_bytes(held(&bytes, options.max_request_bytes_in_flight));
        let door = Door {
            calls: Arc::new(Semaphore::new(options.max_concurrent_requests)),
            streams,
            bytes,
            timeout: options.timeout,
            clock,
            metrics: metrics.clone(),
            in_flight: metrics.requests_in_flight(),
            refused_calls: metrics.rejections("concurrent_requests"),
            refused_streams: metrics.rejections("streams"),
            refused_bytes: metrics.rejections("bytes_in_flight"),
            expired: metrics.expirations("receive"),
        };
        Admission { inner, door: Arc::new(door) }
    }
}

/// How many permits are taken of `limit`.
fn held(permits: &Arc<Semaphore>, limit: usize) -> impl Fn() -> usize + Send + 'static {
    let permits = permits.clone();
    move || limit.saturating_sub(permits.available_permits())
}

impl<S: NamedService> NamedService for Admission<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Admission<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let arrival = self.door.clock.now();
        let (method, kind) = method(request.uri().path());
        let mut call = Call::new(self.door.clone(), method, kind, arrival);
        if call.place.is_none() {
            let response = self.door.refuse(kind).into_http();
            call.observe(response.headers());
            return Box::pin(std::future::ready(Ok(response)));
        }
        let asked = timeout::of(request.headers());
        let request = match kind {
            Kind::Unary => {
                let limit = self.door.timeout;
                let deadline = Deadline::new(arrival, asked.map_or(limit, |asked| asked.min(limit)));
                request.extensions_mut().insert(deadline);
                let (door, bytes) = (self.door.clone(), call.bytes.clone());
                request.map(|body| Body::new(MeteredBody::new(body, door, bytes, deadline)))
            }
            Kind::Stream => {
                let ends_by = asked.map(|asked| arrival.saturating_add(asked));
                request.extensions_mut().insert(StreamEnd(ends_by));
                request
            }
        };
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await?;
            call.observe(response.headers());
            Ok(response.map(|body| Body::new(CountedBody { body, call })))
        })
    }
}

/// The client's deadline for a whole stream, if it has one.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamEnd(pub(super) Option<Timestamp>);

impl Door {
    fn refuse(&self, kind: Kind) -> Status {
        match kind {
            Kind::Unary => {
                self.refused_calls.increment(1);
                status::overloaded("overloaded: concurrent_requests", RETRY_AFTER)
            }
            Kind::Stream => {
                self.refused_streams.increment(1);
                status::overloaded("overloaded: streams", RETRY_AFTER)
            }
        }
    }
}

/// One call from arrival to the last byte of its response. Dropping it frees its places and counts it.
struct Call {
    door: Arc<Door>,
    method: &'static str,
    arrival: Timestamp,
    /// `None`: there was no room.
    place: Option<OwnedSemaphorePermit>,
    bytes: HeldBytes,
    /// Unknown until the response says; a call that never says was dropped by its client.
    code: Code,
}

/// Bytes of the body so far, counted against the limit until the call ends.
type HeldBytes = Arc<Mutex<Option<OwnedSemaphorePermit>>>;

impl Call {
    fn new(door: Arc<Door>, method: &'static str, kind: Kind, arrival: Timestamp) -> Call {
        door.in_flight.increment(1.0);
        let places = match kind {
            Kind::Unary => &door.calls,
            Kind::Stream => &door.streams,
        };
        let place = places.clone().try_acquire_owned().ok();
        Call { door, method, arrival, place, bytes: HeldBytes::default(), code: Code::Cancelled }
    }

    /// Headers of a response that is only an error, or trailers of any other.
    fn observe(&mut self, headers: &HeaderMap) {
        if let Some(value) = headers.get(Status::GRPC_STATUS) {
            self.code = Code::from_bytes(value.as_bytes());
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let (metrics, code) = (&self.door.metrics, status::code_name(self.code));
        metrics.requests(self.method, code).increment(1);
        let duration = self.door.clock.now().since(self.arrival);
        metrics.request_duration(self.method, code).record_duration(duration);
        self.door.in_flight.decrement(1.0);
    }
}

/// A request body that takes permits for the bytes it delivers, and fails when there are none, or when it
/// has not arrived by the deadline: a client that stalls must not keep its place for ever.
struct MeteredBody {
    body: Body,
    door: Arc<Door>,
    bytes: HeldBytes,
    /// `None`: the deadline is beyond what the platform's clock can say.
    too_late: Option<Pin<Box<Sleep>>>,
}

impl MeteredBody {
    fn new(body: Body, door: Arc<Door>, bytes: HeldBytes, deadline: Deadline) -> MeteredBody {
        let instant = door.clock.instant(deadline.reply_by);
        let too_late = instant.map(|instant| Box::pin(sleep_until(instant.into())));
        MeteredBody { body, door, bytes, too_late }
    }

    fn take(&self, bytes: usize) -> Result<(), Status> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Ok(permit) = self.door.bytes.clone().try_acquire_many_owned(permits) else {
            self.door.refused_bytes.increment(1);
            return Err(status::overloaded("overloaded: bytes_in_flight", RETRY_AFTER));
        };
        let mut held = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        match held.as_mut() {
            Some(held) => held.merge(permit),
            None => *held = Some(permit),
        }
        Ok(())
    }
}

impl HttpBody for MeteredBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(too_late) = &mut self.too_late
            && too_late.as_mut().poll(context).is_ready()
        {
            self.door.expired.increment(1);
            let late = Status::deadline_exceeded("the request did not arrive before the deadline");
            return Poll::Ready(Some(Err(late)));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(bytes) = frame.data_ref()
        {
            self.take(bytes.len())?;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response body that keeps its call alive and sees the status in the trailers.
struct CountedBody {
    body: Body,
    call: Call,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            self.call.observe(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The last segment of the path, if it is one of ours.
fn method(path: &str) -> (&'static str, Kind) {
    let name = path.rsplit('/').next().unwrap_or_default();
    METHODS.into_iter().find(|(known, _)| *known == name).unwrap_or(("unknown", Kind::Unary))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_methods_share_a_label() {
        assert_eq!(method("/clip.v1.ClipService/Embed"), ("Embed", Kind::Unary));
        assert_eq!(method("/clip.v1.ClipService/StreamEmbed"), ("StreamEmbed", Kind::Stream));
        assert_eq!(method("/clip.v1.ClipService/evil-label"), ("unknown", Kind::Unary));
    }
}
