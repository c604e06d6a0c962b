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

use super::{Options, status};
use crate::clock::{Clock, Timestamp};
use crate::pipeline::Deadline;
use crate::telemetry::metrics::{Metrics, RecordDuration};

/// Longest time kept back for the reply. The answer must leave before the client's own timer fires, and
/// before tonic's, which starts at the headers and answers CANCELLED.
const REPLY_MARGIN: Duration = Duration::from_millis(20);

/// Hint for calls refused at the door: they cost nothing, so an early second try is cheap.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Method names that may become metric labels.
const METHODS: [&str; 3] = ["Embed", "Classify", "GetModel"];

#[derive(Clone)]
pub(super) struct Admission<S> {
    inner: S,
    door: Arc<Door>,
}

struct Door {
    calls: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    timeout: Duration,
    clock: Clock,
    metrics: Metrics,
    in_flight: Gauge,
    refused_calls: Counter,
    refused_bytes: Counter,
}

impl<S> Admission<S> {
    pub(super) fn new(inner: S, options: &Options, clock: Clock, metrics: &Metrics) -> Admission<S> {
        let door = Door {
            calls: Arc::new(Semaphore::new(options.max_concurrent_requests)),
            bytes: Arc::new(Semaphore::new(options.max_request_bytes_in_flight)),
            timeout: options.timeout,
            clock,
            metrics: metrics.clone(),
            in_flight: metrics.requests_in_flight(),
            refused_calls: metrics.rejections("concurrent_requests"),
            refused_bytes: metrics.rejections("bytes_in_flight"),
        };
        Admission { inner, door: Arc::new(door) }
    }
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
        let mut call = Call::new(self.door.clone(), method(request.uri().path()), arrival);
        if call.place.is_none() {
            self.door.refused_calls.increment(1);
            let response = status::overloaded("overloaded: concurrent_requests", RETRY_AFTER).into_http();
            call.observe(response.headers());
            return Box::pin(std::future::ready(Ok(response)));
        }
        let deadline = deadline(arrival, self.door.timeout, request.headers());
        request.extensions_mut().insert(deadline);
        let metered = |body| MeteredBody::new(body, self.door.clone(), call.bytes.clone(), deadline);
        let response = self.inner.call(request.map(|body| Body::new(metered(body))));
        Box::pin(async move {
            let response = response.await?;
            call.observe(response.headers());
            Ok(response.map(|body| Body::new(CountedBody { body, call })))
        })
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
    fn new(door: Arc<Door>, method: &'static str, arrival: Timestamp) -> Call {
        door.in_flight.increment(1.0);
        let place = door.calls.clone().try_acquire_owned().ok();
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
        let metrics = &self.door.metrics;
        self.door.in_flight.decrement(1.0);
        metrics.requests(self.method, status::code_name(self.code)).increment(1);
        metrics.request_duration(self.method).record_duration(self.door.clock.now().since(self.arrival));
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
fn method(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or_default();
    METHODS.into_iter().find(|known| *known == name).unwrap_or("unknown")
}

fn deadline(arrival: Timestamp, limit: Duration, headers: &HeaderMap) -> Deadline {
    let asked = headers
        .get("grpc-timeout")
        .and_then(|value| value.to_str().ok())
        .and_then(parse_timeout)
        .unwrap_or(limit);
    let timeout = asked.min(limit);
    let margin = (timeout / 4).min(REPLY_MARGIN);
    Deadline {
        start_by: arrival.saturating_add(timeout - margin),
        reply_by: arrival.saturating_add(timeout - margin / 2),
    }
}

/// `grpc-timeout`: up to eight digits and a unit (gRPC over HTTP/2, "Timeout"). Nonsense is no timeout.
fn parse_timeout(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let digits = text.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(value * 3600)),
        'M' => Some(Duration::from_secs(value * 60)),
        'S' => Some(Duration::from_secs(value)),
        'm' => Some(Duration::from_millis(value)),
        'u' => Some(Duration::from_micros(value)),
        'n' => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts() {
        let check = |text: &str, expected: Option<Duration>| {
            assert_eq!(parse_timeout(text), expected, "{text:?}");
        };
        check("2H", Some(Duration::from_secs(7200)));
        check("3M", Some(Duration::from_secs(180)));
        check("10S", Some(Duration::from_secs(10)));
        check("250m", Some(Duration::from_millis(250)));
        check("99999999u", Some(Duration::from_micros(99_999_999)));
        check("1n", Some(Duration::from_nanos(1)));
        check("100000000m", None);
        check("m", None);
        check("1.5S", None);
        check("-1S", None);
        check("10", None);
        check("", None);
        check("1\u{e9}", None);
    }

    #[test]
    fn a_reply_leaves_before_the_clients_timer() {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", "100m".parse().unwrap());
        let deadline = deadline(Timestamp::from_nanos(0), Duration::from_secs(30), &headers);
        assert_eq!(deadline.start_by, Timestamp::from_nanos(80_000_000));
        assert_eq!(deadline.reply_by, Timestamp::from_nanos(90_000_000));
    }

    #[test]
    fn unknown_methods_share_a_label() {
        assert_eq!(method("/clip.v1.ClipService/Embed"), "Embed");
        assert_eq!(method("/clip.v1.ClipService/evil-label"), "unknown");
    }
}
