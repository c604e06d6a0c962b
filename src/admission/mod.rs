//! What happens to a call before its body is read, and after its last byte is sent, whichever edge it came to.
//!
//! A [`Door`] gives each call that comes in a place among the calls in flight, or refuses it. Its [`Pass`] stamps the
//! arrival, meters the request's body and the answer against the bytes that may be held, and counts the call once,
//! however it ends. Only a pass makes a [`Deadline`] for work that a client waits for, so nothing is computed for a
//! call that did not come through the door. Without this, large bodies x calls x connections would be buffered before
//! anyone says no.
//!
//! It knows HTTP's bodies and neither tonic nor axum: what a refusal looks like is the edge's.

mod body;
mod deadline;
mod refusal;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use metrics::{Counter, Gauge};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::auth::{Exceeded, Key, Keys, Quota, Unknown};
use crate::class::Class;
use crate::clock::{Clock, Timestamp};
use crate::code::Code;
use crate::connections::{self, Peer, TakenBy};
use crate::shutdown::Phase;
use crate::telemetry::metrics::{Metrics, RecordDuration};
pub use body::{Counted, Fault, Metered, Status};
pub use deadline::Deadline;
pub use refusal::{NoEntry, Reason, Refusal};

/// Hint for calls refused at the door: they cost nothing, so an early second try is cheap.
const RETRY_AFTER: Duration = Duration::from_millis(100);

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

/// What the server holds at most for calls, of both edges together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls served at a time.
    pub concurrent_requests: usize,
    /// Streams served at a time.
    pub streams: usize,
    /// Bytes of request messages held at a time.
    pub request_bytes: usize,
    /// Bytes of answers held at a time.
    pub response_bytes: usize,
    /// Longest time a call, or an input of a stream, may take; the default for those without a timeout.
    pub timeout: Duration,
    /// Time to take an answer, beyond the deadline of its call.
    pub answer_timeout: Duration,
}

/// How a call is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By the deadline, and by the bytes of its one message, which are refused when there are too many.
    Unary,
    /// By the number of streams; its messages wait for each other.
    Stream,
}

/// One of the methods that an edge has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// A metric label, so never from the wire.
    pub name: &'static str,
    pub kind: Kind,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Door(Arc<Shared>);

struct Shared {
    limits: Limits,
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    request_bytes: Arc<Semaphore>,
    response_bytes: Arc<Semaphore>,
    keys: Option<Keys>,
    phase: watch::Receiver<Phase>,
    clock: Clock,
    metrics: Metrics,
    in_flight: Gauge,
    expired: Counter,
}

impl Door {
    /// Without `keys` everybody may call.
    pub fn new(
        limits: Limits,
        keys: Option<Keys>,
        phase: watch::Receiver<Phase>,
        clock: Clock,
        metrics: &Metrics,
    ) -> Door {
        let store = |permits: usize| Arc::new(Semaphore::new(permits));
        let (streams, request_bytes) = (store(limits.streams), store(limits.request_bytes));
        let response_bytes = store(limits.response_bytes);
        metrics.sample_streams(held(&streams, limits.streams));
        metrics.sample_request_bytes(held(&request_bytes, limits.request_bytes));
        metrics.sample_response_bytes(held(&response_bytes, limits.response_bytes));
        Reason::ALL.iter().for_each(|reason| metrics.rejections(reason.as_str()).increment(0));
        Door(Arc::new(Shared {
            calls: store(limits.concurrent_requests),
            streams,
            request_bytes,
            response_bytes,
            keys,
            phase,
            clock,
            in_flight: metrics.requests_in_flight(),
            expired: metrics.expirations("receive"),
            metrics: metrics.clone(),
            limits,
        }))
    }

    /// Shows the series of a method before its first call.
    pub fn announce(&self, method: Method) {
        let metrics = &self.0.metrics;
        let _ = metrics.request_duration(method.name, Code::Ok.as_str());
        CODES.iter().for_each(|code| metrics.requests(method.name, code.as_str()).increment(0));
    }

    /// A place for a call that arrives now: first its key is looked at, then the key's limits, then the server's.
    pub fn enter(&self, method: Method, caller: Caller<'_>) -> Result<Pass, NoEntry> {
        let shared = &self.0;
        shared.in_flight.increment(1.0);
        let key = self.identify(caller.headers);
        let mut pass = Pass {
            admitted: Admitted {
                door: self.clone(),
                arrival: shared.clock.now(),
                asked: caller.asked,
                key: key.clone().unwrap_or_default(),
                held: Arc::default(),
            },
            method,
            code: Code::Cancelled,
            quota: None,
            places: Vec::new(),
            _call: caller.peer.map(|peer| peer.call(method.name)),
        };
        if let Err(unknown) = key {
            pass.finish(Code::Unauthenticated);
            return Err(unknown.into());
        }
        match pass.find_place() {
            Ok(()) => Ok(pass),
            Err((reason, retry_after)) => {
                pass.finish(Code::ResourceExhausted);
                Err(self.refuse(reason, retry_after).into())
            }
        }
    }

    /// Whose key the headers have. `None`: the server is open to all.
    pub fn identify(&self, headers: &HeaderMap) -> Result<Option<Arc<Key>>, Unknown> {
        self.0.keys.as_ref().map(|keys| keys.identify(headers)).transpose()
    }

    pub fn clock(&self) -> Clock {
        self.0.clock
    }

    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.0.phase.clone()
    }

    /// A permit for each byte of request messages that may be held.
    pub fn request_bytes(&self) -> &Arc<Semaphore> {
        &self.0.request_bytes
    }

    /// A permit for each byte of answers that may be held.
    pub fn response_bytes(&self) -> &Arc<Semaphore> {
        &self.0.response_bytes
    }

    fn refuse(&self, reason: Reason, retry_after: Duration) -> Refusal {
        self.0.metrics.rejections(reason.as_str()).increment(1);
        Refusal { reason, retry_after }
    }
}

/// What a call brings to the door.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// Where its key is.
    pub headers: &'a HeaderMap,
    /// The time that its client gives it.
    pub asked: Option<Duration>,
    /// Whom it comes from.
    pub peer: Option<&'a Arc<Peer>>,
}

/// How many permits are taken of `limit`.
fn held(permits: &Arc<Semaphore>, limit: usize) -> impl Fn() -> usize + Send + 'static {
    let permits = permits.clone();
    move || limit.saturating_sub(permits.available_permits())
}

/// As permits are counted.
fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// One call from arrival to the last byte of its answer. Dropping it frees its places and counts it.
pub struct Pass {
    admitted: Admitted,
    method: Method,
    /// Unknown until the answer says; a call that never says was dropped by its client.
    code: Code,
    /// What the key has left of its calls.
    quota: Option<Quota>,
    /// Of the server, and of the key.
    places: Vec<OwnedSemaphorePermit>,
    _call: Option<connections::Call>,
}

impl Pass {
    /// Or which limit is in the way, and for how long.
    fn find_place(&mut self) -> Result<(), (Reason, Duration)> {
        let shared = &self.admitted.door.0;
        let stream = self.method.kind == Kind::Stream;
        if let Some(key) = &self.admitted.key {
            let (bounds, why) =
                (key.bounds(), if stream { Reason::KeyStreams } else { Reason::KeyConcurrency });
            let of = |reason| move |exceeded: Exceeded| (reason, exceeded.retry_after);
            self.places.extend(bounds.place(stream).map_err(of(why))?);
            self.quota = bounds.take_request().map_err(of(Reason::KeyRequests))?;
        }
        let (places, reason) = match self.method.kind {
            Kind::Unary => (&shared.calls, Reason::ConcurrentRequests),
            Kind::Stream => (&shared.streams, Reason::Streams),
        };
        let place = places.clone().try_acquire_owned();
        self.places.push(place.map_err(|_| (reason, RETRY_AFTER))?);
        Ok(())
    }

    /// What the key has left of its calls. `None`: they are not limited.
    pub fn quota(&self) -> Option<Quota> {
        self.quota
    }

    /// What goes on with the request.
    pub fn admitted(&self) -> &Admitted {
        &self.admitted
    }

    /// By when the answer is taken. `None`: the call is a stream, whose answers have no common end.
    pub fn taken_by(&self) -> Option<TakenBy> {
        let patience = self.admitted.door.0.limits.answer_timeout;
        let end = self.admitted.call_deadline(Class::default()).reply_by;
        (self.method.kind == Kind::Unary).then(|| TakenBy(end.saturating_add(patience)))
    }

    pub fn finish(&mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let shared = &self.admitted.door.0;
        let (metrics, code) = (&shared.metrics, self.code.as_str());
        metrics.requests(self.method.name, code).increment(1);
        let duration = shared.clock.now().since(self.admitted.arrival);
        metrics.request_duration(self.method.name, code).record_duration(duration);
        shared.in_flight.decrement(1.0);
        if shared.keys.is_some() {
            // Unknown keys share a name that no key can have.
            let name = self.admitted.key.as_ref().map_or("?", |key| key.name());
            metrics.key_requests(name, code).increment(1);
        }
    }
}

/// What a call that was let in may take: time, and bytes. Cheap to clone.
#[derive(Clone)]
pub struct Admitted {
    door: Door,
    arrival: Timestamp,
    asked: Option<Duration>,
    key: Option<Arc<Key>>,
    held: Arc<Mutex<Held>>,
}

/// Bytes that count against the limits until the call ends.
#[derive(Default)]
struct Held {
    request: Option<OwnedSemaphorePermit>,
    response: Option<OwnedSemaphorePermit>,
}

impl Admitted {
    /// Of a unary call.
    pub fn call_deadline(&self, class: Class) -> Deadline {
        let limit = self.door.0.limits.timeout;
        Deadline::new(self.arrival, self.asked.map_or(limit, |asked| asked.min(limit)), self.ceiling(class))
    }

    /// Of an input of a stream, which has come now and may take what it asks for.
    pub fn input_deadline(&self, asked: Option<Duration>, class: Class) -> Deadline {
        let (now, limit) = (self.door.0.clock.now(), self.door.0.limits.timeout);
        let left = self.stream_end().map_or(limit, |end| end.since(now).min(limit));
        Deadline::new(now, asked.map_or(left, |asked| asked.min(left)), self.ceiling(class))
    }

    /// The class that the key lets it have.
    fn ceiling(&self, class: Class) -> Class {
        if self.key.as_ref().is_some_and(|key| key.is_bulk()) { Class::Bulk } else { class }
    }

    /// Counts rows of a call against the limits of its key.
    pub fn take_rows(&self, rows: usize) -> Result<(), Refusal> {
        let refused = |exceeded: Exceeded| self.door.refuse(Reason::KeyRows, exceeded.retry_after);
        self.rows(rows).map_err(refused)
    }

    /// Counts an input of a stream, and waits where a call would be refused: its sender is slowed down.
    pub async fn take_row_in_turn(&self) {
        while let Err(Exceeded { retry_after }) = self.rows(1) {
            tokio::time::sleep(retry_after).await;
        }
    }

    fn rows(&self, rows: usize) -> Result<(), Exceeded> {
        let Some(key) = &self.key else { return Ok(()) };
        key.bounds().take_rows(rows)?;
        key.meters.rows.increment(rows as u64);
        Ok(())
    }

    /// The client's own end for a whole stream.
    pub fn stream_end(&self) -> Option<Timestamp> {
        self.asked.map(|asked| self.arrival.saturating_add(asked))
    }

    /// Counts the bytes of the answer as held until it has been taken. Waits for room, as long as the call may take.
    pub async fn hold_answer(&self, bytes: usize) -> Result<(), Refusal> {
        let shared = &self.door.0;
        let store = shared.response_bytes.clone();
        let permit = match store.clone().try_acquire_many_owned(permits(bytes)) {
            Ok(permit) => Ok(permit),
            Err(_) => {
                let end = shared.clock.instant(self.call_deadline(Class::default()).reply_by);
                let end = end.map_or_else(tokio::time::Instant::now, Into::into);
                tokio::time::timeout_at(end, store.acquire_many_owned(permits(bytes)))
                    .await
                    .ok()
                    .and_then(Result::ok)
                    .ok_or(())
            }
        };
        let permit = permit.map_err(|()| self.door.refuse(Reason::ResponseBytes, RETRY_AFTER))?;
        self.held().response = Some(permit);
        Ok(())
    }

    /// Counts bytes of the request, or that it brought about, as held until the call ends.
    pub fn hold_request(&self, bytes: usize) -> Result<(), Refusal> {
        let store = self.door.0.request_bytes.clone();
        let permit = store.try_acquire_many_owned(permits(bytes));
        let permit = permit.map_err(|_| self.door.refuse(Reason::RequestBytes, RETRY_AFTER))?;
        if let Some(key) = &self.key {
            key.meters.bytes.increment(bytes as u64);
        }
        let mut held = self.held();
        match held.request.as_mut() {
            Some(held) => held.merge(permit),
            None => held.request = Some(permit),
        }
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
