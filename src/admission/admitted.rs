//! What a call that was let in may take.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout_at;

use super::deadline::Deadline;
use super::refusal::{Reason, Refusal};
use super::request_id::RequestId;
use super::store::{RETRY_AFTER, Store, permits};
use super::{Caller, Method};
use crate::auth::{Account, Exceeded};
use crate::class::Class;
use crate::clock::Timestamp;
use crate::trace::Span;

/// Time, and bytes; and what the call is called. Cheap to clone.
#[derive(Clone)]
pub struct Admitted {
    pub(super) store: Arc<Store>,
    pub(super) arrival: Timestamp,
    asked: Option<Duration>,
    pub(super) account: Account,
    own: Arc<Own>,
}

/// What all copies share.
struct Own {
    request_id: RequestId,
    /// `None`: the call is not traced.
    span: Option<Span>,
    held: Mutex<Held>,
}

/// Bytes that count against the limits until the call ends.
#[derive(Default)]
struct Held {
    request: Option<OwnedSemaphorePermit>,
    response: Option<OwnedSemaphorePermit>,
}

impl Admitted {
    pub(super) fn new(store: &Arc<Store>, method: Method, caller: Caller<'_>, account: Account) -> Admitted {
        let Caller { headers, request_id, asked, .. } = caller;
        let arrival = store.clock.now();
        // Nobody writes into the traces without a key, where there are keys.
        let tracer = store.tracer.as_ref().filter(|_| !store.callers.are_named() || account.name().is_some());
        let span = tracer.and_then(|tracer| tracer.call(method.name, headers, arrival));
        let own = Own { request_id: request_id.clone(), span, held: Mutex::default() };
        Admitted { store: store.clone(), arrival, asked, account, own: Arc::new(own) }
    }

    pub fn request_id(&self) -> &str {
        self.own.request_id.as_str()
    }

    /// `None`: the call came without a key.
    pub fn key_name(&self) -> Option<&str> {
        self.account.name()
    }

    /// `None`: the call is not traced.
    pub fn span(&self) -> Option<&Span> {
        self.own.span.as_ref()
    }

    /// Its request is here, or will come piece by piece: what was to be done at the door is done.
    pub fn begin(&self) {
        if let Some(span) = self.span() {
            span.stage("admission", self.arrival, self.store.clock.now());
        }
    }

    /// Does `work`, which its trace is told of as a stage of that name.
    pub async fn stage<T>(&self, name: &'static str, work: impl Future<Output = T>) -> T {
        let Some(span) = self.span() else { return work.await };
        let start = self.store.clock.now();
        let done = work.await;
        span.stage(name, start, self.store.clock.now());
        done
    }

    /// Of a unary call.
    pub fn call_deadline(&self, class: Class) -> Deadline {
        let limit = self.store.limits.timeout;
        Deadline::new(self.arrival, self.asked.map_or(limit, |asked| asked.min(limit)), self.ceiling(class))
    }

    /// Of an input of a stream, which has come now and may take what it asks for.
    pub fn input_deadline(&self, asked: Option<Duration>, class: Class) -> Deadline {
        let (now, limit) = (self.store.clock.now(), self.store.limits.timeout);
        let left = self.stream_end().map_or(limit, |end| end.since(now).min(limit));
        Deadline::new(now, asked.map_or(left, |asked| asked.min(left)), self.ceiling(class))
    }

    /// The class that the caller may have.
    fn ceiling(&self, class: Class) -> Class {
        if self.account.is_bulk() { Class::Bulk } else { class }
    }

    /// Counts rows of a call against the limits of its caller.
    pub fn take_rows(&self, rows: usize) -> Result<(), Refusal> {
        let refused = |exceeded: Exceeded| self.store.refuse(Reason::CallerRows, exceeded.retry_after);
        self.account.take_rows(rows).map_err(refused)
    }

    /// Counts an input of a stream, and waits where a call would be refused: its sender is slowed down.
    pub async fn take_row_in_turn(&self) {
        while let Err(Exceeded { retry_after }) = self.account.take_rows(1) {
            tokio::time::sleep(retry_after).await;
        }
    }

    /// The client's own end for a whole stream.
    pub fn stream_end(&self) -> Option<Timestamp> {
        self.asked.map(|asked| self.arrival.saturating_add(asked))
    }

    /// Counts the bytes of the answer as held until it has been taken. Waits for room, as long as the call may take.
    pub async fn hold_answer(&self, bytes: usize) -> Result<(), Refusal> {
        let (store, permits) = (&self.store.response_bytes, permits(bytes));
        let end = self.store.clock.instant(self.call_deadline(Class::default()).reply_by);
        let held = match end {
            Some(end) => timeout_at(end.into(), store.clone().acquire_many_owned(permits)).await.ok(),
            // Beyond what the platform's clock can say.
            None => Some(store.clone().acquire_many_owned(permits).await),
        };
        let refused = || self.store.refuse(Reason::ResponseBytes, RETRY_AFTER);
        let permit = held.and_then(Result::ok).ok_or_else(refused)?;
        self.held().response = Some(permit);
        Ok(())
    }

    /// Counts bytes of the request, or that it brought about, as held until the call ends.
    pub fn hold_request(&self, bytes: usize) -> Result<(), Refusal> {
        let store = self.store.request_bytes.clone();
        let permit = store.try_acquire_many_owned(permits(bytes));
        let permit = permit.map_err(|_| self.store.refuse(Reason::RequestBytes, RETRY_AFTER))?;
        self.account.sent(bytes);
        let mut held = self.held();
        match held.request.as_mut() {
            Some(held) => held.merge(permit),
            None => held.request = Some(permit),
        }
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.own.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
