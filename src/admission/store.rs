//! What all calls have in common: places and bytes, of which there are only so many.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge};
use tokio::sync::{Semaphore, watch};

use super::Limits;
use super::refusal::{Reason, Refusal};
use crate::auth::Callers;
use crate::clock::Clock;
use crate::shutdown::Phase;
use crate::telemetry::metrics::Metrics;
use crate::trace::Tracer;

/// Hint for calls refused at the door: they cost nothing, so an early second try is cheap.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(100);

pub(super) struct Store {
    pub(super) limits: Limits,
    pub(super) calls: Arc<Semaphore>,
    pub(super) streams: Arc<Semaphore>,
    pub(super) request_bytes: Arc<Semaphore>,
    pub(super) response_bytes: Arc<Semaphore>,
    pub(super) callers: Callers,
    pub(super) tracer: Option<Tracer>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) in_flight: Gauge,
    pub(super) expired: Counter,
}

impl Store {
    pub(super) fn new(
        limits: Limits,
        callers: Callers,
        phase: watch::Receiver<Phase>,
        clock: Clock,
        metrics: &Metrics,
        tracer: Option<Tracer>,
    ) -> Store {
        let store = |permits: usize| Arc::new(Semaphore::new(permits));
        let (streams, request_bytes) = (store(limits.streams), store(limits.request_bytes));
        let response_bytes = store(limits.response_bytes);
        metrics.sample_streams(held(&streams, limits.streams));
        metrics.sample_request_bytes(held(&request_bytes, limits.request_bytes));
        metrics.sample_response_bytes(held(&response_bytes, limits.response_bytes));
        Reason::ALL.iter().for_each(|reason| metrics.rejections(reason.as_str()).increment(0));
        Store {
            calls: store(limits.concurrent_requests),
            streams,
            request_bytes,
            response_bytes,
            callers,
            tracer,
            phase,
            clock,
            in_flight: metrics.requests_in_flight(),
            expired: metrics.expirations("receive"),
            metrics: metrics.clone(),
            limits,
        }
    }

    /// Counts it.
    pub(super) fn refuse(&self, reason: Reason, retry_after: Duration) -> Refusal {
        self.metrics.rejections(reason.as_str()).increment(1);
        Refusal { reason, retry_after }
    }
}

/// How many permits are taken of `limit`.
fn held(permits: &Arc<Semaphore>, limit: usize) -> impl Fn() -> usize + Send + 'static {
    let permits = permits.clone();
    move || limit.saturating_sub(permits.available_permits())
}

/// As permits are counted.
pub(super) fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
