//! What happens to a call before its body is read, and after its last byte is sent, whichever edge it came to.
//!
//! A [`Door`] gives each call that comes in a place among the calls in flight, or refuses it. Its [`Pass`] stamps the
//! arrival, meters the request's body and the answer against the bytes that may be held, and counts the call once,
//! however it ends. Only a pass makes a [`Deadline`] for work that a client waits for, so nothing is computed for a
//! call that did not come through the door. Without this, large bodies x calls x connections would be buffered before
//! anyone says no.
//!
//! It knows HTTP's bodies and neither tonic nor axum: what a refusal looks like is the edge's.

mod admitted;
mod body;
mod deadline;
mod pass;
mod refusal;
mod request_id;
mod store;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::{Semaphore, watch};

use crate::auth::{Account, Callers, Unknown};
use crate::clock::Clock;
use crate::code::Code;
use crate::connections::Peer;
use crate::shutdown::Phase;
use crate::telemetry::metrics::Metrics;
use crate::trace::Tracer;
pub use admitted::Admitted;
pub use body::{Counted, Fault, Metered, Status};
pub use deadline::Deadline;
pub use pass::Pass;
pub use refusal::{NoEntry, Reason, Refusal};
pub use request_id::RequestId;
use store::Store;

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
pub struct Door(Arc<Store>);

impl Door {
    /// Without a `tracer` no call is traced.
    pub fn new(
        limits: Limits,
        callers: Callers,
        phase: watch::Receiver<Phase>,
        clock: Clock,
        metrics: &Metrics,
        tracer: Option<Tracer>,
    ) -> Door {
        Door(Arc::new(Store::new(limits, callers, phase, clock, metrics, tracer)))
    }

    /// Shows the series of a method before its first call.
    pub fn announce(&self, method: Method) {
        let metrics = &self.0.metrics;
        let _ = metrics.request_duration(method.name, Code::Ok.as_str());
        CODES.iter().for_each(|code| metrics.requests(method.name, code.as_str()).increment(0));
    }

    /// A place for a call that arrives now: first its caller is looked at, then the caller's limits, then the server's.
    pub fn enter(&self, method: Method, caller: Caller<'_>) -> Result<Pass, NoEntry> {
        let account = self.identify(caller.headers, caller.peer);
        let mut pass = Pass::new(&self.0, method, caller, account.clone().unwrap_or_default());
        if let Err(unknown) = account {
            pass.finish(Code::Unauthenticated);
            return Err(unknown.into());
        }
        match pass.find_place() {
            Ok(()) => Ok(pass),
            Err(refusal) => {
                pass.finish(Code::ResourceExhausted);
                Err(refusal.into())
            }
        }
    }

    /// Whom a request is counted for, by its headers and whom it comes from.
    pub fn identify(&self, headers: &HeaderMap, peer: Option<&Arc<Peer>>) -> Result<Account, Unknown> {
        self.0.callers.account(headers, peer.map(|peer| (peer.address.ip(), peer.names())))
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
}

/// What a call brings to the door.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// Where its key is, and what it says of its trace.
    pub headers: &'a HeaderMap,
    pub request_id: &'a RequestId,
    /// The time that its client gives it.
    pub asked: Option<Duration>,
    /// Whom it comes from.
    pub peer: Option<&'a Arc<Peer>>,
}
