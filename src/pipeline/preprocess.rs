//! Runs brief pure functions of `clip` on a bounded number of blocking threads: tokenizing, scoring, labels.
//!
//! What takes long are images, which have a [`line`](super::line) and threads of their own: a text is tokenized in
//! microseconds, and does not stand behind pictures.

use std::num::NonZeroUsize;
use std::sync::Arc;

use metrics::{Gauge, Histogram};
use tokio::sync::Semaphore;

use super::error::Error;
use crate::clip::text::{TextError, TextTokenizer, Tokens};
use crate::clock::Clock;
use crate::modality::Modality;
use crate::telemetry::metrics::{Metrics, RecordDuration};

pub(super) struct Preprocessor {
    /// `None`: the model has no text encoder.
    texts: Option<Arc<TextTokenizer>>,
    /// One per thread. The line for a permit is bounded by the edge's limit on calls in flight.
    permits: Arc<Semaphore>,
    clock: Clock,
    queue: Gauge,
    /// Waiting for a thread.
    wait: Histogram,
    duration: Histogram,
}

impl Preprocessor {
    pub(super) fn new(
        texts: Option<TextTokenizer>,
        threads: NonZeroUsize,
        clock: Clock,
        metrics: &Metrics,
    ) -> Preprocessor {
        Preprocessor {
            texts: texts.map(Arc::new),
            permits: Arc::new(Semaphore::new(threads.get())),
            clock,
            queue: metrics.preprocess_queue(),
            wait: metrics.preprocess_queue_duration(Modality::Text),
            duration: metrics.preprocess_duration(Modality::Text),
        }
    }

    /// Whether texts can be embedded.
    pub(super) fn takes_texts(&self) -> Result<&Arc<TextTokenizer>, Error> {
        self.texts.as_ref().ok_or(Error::NoTextEncoder)
    }

    /// One result per text, in order.
    pub(super) async fn texts(&self, texts: Vec<String>) -> Result<Vec<Result<Tokens, TextError>>, Error> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let (tokenizer, clock) = (self.takes_texts()?.clone(), self.clock);
        let (wait, duration) = (self.wait.clone(), self.duration.clone());
        let queued = clock.now();
        self.blocking(move || {
            let start = clock.now();
            wait.record_duration(start.since(queued));
            let tokens = texts.iter().map(|text| tokenizer.encode(text)).collect();
            duration.record_duration(clock.now().since(start));
            tokens
        })
        .await
    }

    /// Runs `work` on a blocking thread when one of ours is free. Dropping the future before that
    /// drops the work; after that the work ends unheard.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let _queued = Queued::new(&self.queue);
        let permit = self
            .permits
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| Error::Unavailable("the server is shutting down"))?;
        let thread = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        thread.await.map_err(|error| {
            tracing::error!(%error, "preprocessing panicked");
            Error::Internal(error.to_string())
        })
    }
}

/// Counts an input as queued until dropped.
pub(super) struct Queued(Gauge);

impl Queued {
    pub(super) fn new(gauge: &Gauge) -> Queued {
        gauge.increment(1.0);
        Queued(gauge.clone())
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
