//! One call, from its arrival to the last byte of its answer.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::admitted::Admitted;
use super::refusal::{Reason, Refusal};
use super::store::{RETRY_AFTER, Store};
use super::{Caller, Kind, Method};
use crate::auth::{Account, Exceeded, Quota};
use crate::class::Class;
use crate::clock::Timestamp;
use crate::code::Code;
use crate::connections::{self, TakenBy};
use crate::telemetry::metrics::RecordDuration;
use crate::trace::{Details, Span, text};

/// Dropping it frees its places and counts it.
pub struct Pass {
    admitted: Admitted,
    method: Method,
    /// Unknown until the answer says; a call that never says was dropped by its client.
    code: Code,
    /// What the caller has left of its calls.
    quota: Option<Quota>,
    /// When the answer was there, if it is to be told.
    answered: Option<Timestamp>,
    /// Of the caller, and of the server.
    places: [Option<OwnedSemaphorePermit>; 2],
    _call: Option<connections::Call>,
}

impl Pass {
    /// Of a call that arrives now.
    pub(super) fn new(store: &Arc<Store>, method: Method, caller: Caller<'_>, account: Account) -> Pass {
        store.in_flight.increment(1.0);
        Pass {
            admitted: Admitted::new(store, method, caller, account),
            method,
            code: Code::Cancelled,
            quota: None,
            answered: None,
            places: [None, None],
            _call: caller.peer.map(|peer| peer.call(method.name, caller.request_id.value())),
        }
    }

    /// Those of its caller first.
    pub(super) fn find_place(&mut self) -> Result<(), Refusal> {
        let store = &self.admitted.store;
        let (places, reason, of_caller) = match self.method.kind {
            Kind::Unary => (&store.calls, Reason::ConcurrentRequests, Reason::CallerConcurrency),
            Kind::Stream => (&store.streams, Reason::Streams, Reason::CallerStreams),
        };
        let (account, refused) = (&self.admitted.account, |reason| {
            move |exceeded: Exceeded| store.refuse(reason, exceeded.retry_after)
        });
        let place = account.place(self.method.kind == Kind::Stream);
        self.places[0] = place.map_err(refused(of_caller))?;
        self.quota = account.take_request().map_err(refused(Reason::CallerRequests))?;
        let place = places.clone().try_acquire_owned();
        self.places[1] = Some(place.map_err(|_| store.refuse(reason, RETRY_AFTER))?);
        Ok(())
    }

    /// What the caller has left of its calls. `None`: they are not limited.
    pub fn quota(&self) -> Option<Quota> {
        self.quota
    }

    /// What goes on with the request.
    pub fn admitted(&self) -> &Admitted {
        &self.admitted
    }

    /// By when the answer is taken. `None`: the call is a stream, whose answers have no common end.
    pub fn taken_by(&self) -> Option<TakenBy> {
        let patience = self.admitted.store.limits.answer_timeout;
        let end = self.admitted.call_deadline(Class::default()).reply_by;
        (self.method.kind == Kind::Unary).then(|| TakenBy(end.saturating_add(patience)))
    }

    /// The answer is there, and is sent from now on.
    pub(super) fn answer(&mut self) {
        if self.method.kind == Kind::Unary && self.admitted.span().is_some() {
            self.answered = Some(self.admitted.store.clock.now());
        }
    }

    pub fn finish(&mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let store = &self.admitted.store;
        let (metrics, code) = (&store.metrics, self.code.as_str());
        metrics.requests(self.method.name, code).increment(1);
        let now = store.clock.now();
        let duration = now.since(self.admitted.arrival);
        metrics.request_duration(self.method.name, code).record_duration(duration);
        store.in_flight.decrement(1.0);
        if store.callers.are_named() {
            // Unknown keys share a name that no key can have.
            let name = self.admitted.account.name().unwrap_or("?");
            metrics.key_requests(name, code).increment(1);
        }
        let (request_id, key, span) =
            (self.admitted.request_id(), self.admitted.key_name(), self.admitted.span());
        let method = self.method.name;
        tracing::debug!(request_id, key, method, code, ?duration, trace = span.map(Span::trace), "call");
        if let Some(span) = span {
            if let Some(answered) = self.answered {
                span.stage("reply", answered, now);
            }
            let status = text("rpc.response.status_code", code);
            let key = key.map(|key| text("clip.key", key));
            let attributes = [status, text("clip.request_id", request_id)].into_iter().chain(key).collect();
            let error = self.code.is_fault().then(|| code.to_owned());
            span.end(now, Details { attributes, error, ..Details::default() });
        }
    }
}
