//! Runs the CPU-heavy, pure functions of `clip` on a bounded number of blocking threads.

use std::num::NonZeroUsize;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
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
    images: Arc<ImagePreprocessor>,
    texts: Arc<TextTokenizer>,
    threads: usize,
    /// One per thread. The line for a permit is bounded by the edge's limit on calls in flight.
    permits: Arc<Semaphore>,
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
            images: Arc::new(images),
            texts: Arc::new(texts),
            threads: threads.get(),
            permits: Arc::new(Semaphore::new(threads.get())),
            clock,
            queue: metrics.preprocess_queue(),
            duration: Modality::ALL.map(|modality| metrics.preprocess_duration(modality)),
        }
    }

    /// One result per image, in order. `path` names an image in the request by its position, such as
    /// `images[2]`. A request has no more images in line than there are threads, so that one with many
    /// images does not hold up those with few.
    pub(super) async fn images(
        &self,
        images: Vec<ImageSource>,
        path: impl Fn(usize) -> String,
    ) -> Vec<Result<ImageRow, InputError>> {
        let images = images.into_iter().enumerate().map(|(index, source)| self.image(path(index), source));
        stream::iter(images).buffered(self.threads).collect().await
    }

    /// `path` names the image in the request.
    pub(super) async fn image(&self, path: String, source: ImageSource) -> Result<ImageRow, InputError> {
        let leaf = match &source {
            ImageSource::Encoded(_) => "encoded",
            ImageSource::Rgb { .. } => "rgb.pixels",
            ImageSource::Missing => {
                return Err(InputError::new(path, "one of encoded and rgb must be set"));
            }
        };
        let images = self.images.clone();
        let row = self
            .timed(Modality::Image, move || match &source {
                ImageSource::Encoded(bytes) => images.encoded(bytes),
                ImageSource::Rgb { width, height, pixels } => images.rgb(*width, *height, pixels),
                ImageSource::Missing => unreachable!("returned above"),
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
    pub(super) async fn texts(&self, texts: Vec<String>) -> Result<Vec<Result<Tokens, TextError>>, Error> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let tokenizer = self.texts.clone();
        self.timed(Modality::Text, move || texts.iter().map(|text| tokenizer.encode(text)).collect()).await
    }

    /// As `blocking`, and records how long `work` took.
    async fn timed<T: Send + 'static>(
        &self,
        modality: Modality,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (clock, duration) = (self.clock, self.duration[modality.index()].clone());
        self.blocking(move || {
            let start = clock.now();
            let done = work();
            duration.record_duration(clock.now().since(start));
            done
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
