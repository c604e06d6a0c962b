//! Runs the CPU-heavy, pure functions of `clip` on a bounded number of blocking threads.

use std::num::NonZeroUsize;
use std::sync::Arc;

use metrics::{Gauge, Histogram};
use tokio::sync::Semaphore;

use super::ImageSource;
use super::error::{Error, InputError};
use crate::clip::image::ImagePreprocessor;
use crate::clip::row::ImageRow;
use crate::clip::text::{TextError, TextTokenizer, Tokens};
use crate::clock::Clock;
use crate::modality::Modality;
use crate::telemetry::metrics::{Metrics, RecordDuration};

pub(super) struct Preprocessor {
    images: ImagePreprocessor,
    texts: TextTokenizer,
    /// One permit per thread. The line for a permit is bounded by the edge's limit on calls in flight.
    threads: Arc<Semaphore>,
    clock: Clock,
    queue: Gauge,
    /// Indexed by `Modality::index`.
    duration: [Histogram; 2],
}

impl Preprocessor {
    pub(super) fn new(
        images: ImagePreprocessor,
        texts: TextTokenizer,
        threads: NonZeroUsize,
        clock: Clock,
        metrics: &Metrics,
    ) -> Preprocessor {
        Preprocessor {
            images,
            texts,
            threads: Arc::new(Semaphore::new(threads.get())),
            clock,
            queue: metrics.preprocess_queue(),
            duration: Modality::ALL.map(|modality| metrics.preprocess_duration(modality)),
        }
    }

    /// `path` is that of the image message in the request, such as `images[2]`.
    pub(super) async fn image(
        self: &Arc<Self>,
        path: String,
        source: ImageSource,
    ) -> Result<ImageRow, InputError> {
        let leaf = match &source {
            ImageSource::Encoded(_) => "encoded",
            ImageSource::Rgb { .. } => "rgb.pixels",
            ImageSource::Missing => {
                return Err(InputError::new(path, "one of encoded and rgb must be set"));
            }
        };
        let this = self.clone();
        let row = self
            .blocking(move || {
                let start = this.clock.now();
                let row = match &source {
                    ImageSource::Encoded(bytes) => this.images.encoded(bytes),
                    ImageSource::Rgb { width, height, pixels } => this.images.rgb(*width, *height, pixels),
                    ImageSource::Missing => unreachable!("returned above"),
                };
                this.duration[Modality::Image.index()].record_duration(this.clock.now().since(start));
                row
            })
            .await;
        match row {
            Ok(Ok(row)) => Ok(row),
            Ok(Err(error)) => Err(InputError::new(format!("{path}.{leaf}"), error)),
            // A decoder that panics has met a file that nobody foresaw: that input's fault.
            Err(_) => Err(InputError::new(format!("{path}.{leaf}"), "the image cannot be decoded")),
        }
    }

    /// One result per text, in order.
    pub(super) async fn texts(
        self: &Arc<Self>,
        texts: Vec<String>,
    ) -> Result<Vec<Result<Tokens, TextError>>, Error> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let this = self.clone();
        self.blocking(move || {
            let start = this.clock.now();
            let tokens = texts.iter().map(|text| this.texts.encode(text)).collect();
            this.duration[Modality::Text.index()].record_duration(this.clock.now().since(start));
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
            .threads
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
struct Queued<'a>(&'a Gauge);

impl<'a> Queued<'a> {
    fn new(gauge: &'a Gauge) -> Queued<'a> {
        gauge.increment(1.0);
        Queued(gauge)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
