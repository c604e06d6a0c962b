//! Runs the CPU-heavy, pure functions of `clip` on a bounded number of blocking threads.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use metrics::{Counter, Gauge, Histogram};
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
    line: Arc<Line>,
    /// Waiting for a thread. Indexed by `Modality::index`, as the next.
    wait: [Histogram; 2],
    duration: [Histogram; 2],
    image_errors: Counter,
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
            line: Arc::default(),
            wait: Modality::ALL.map(|modality| metrics.preprocess_queue_duration(modality)),
            image_errors: metrics.input_errors(Some(Modality::Image)),
            duration: Modality::ALL.map(|modality| metrics.preprocess_duration(modality)),
        }
    }

    /// How long `rows` more would take to prepare, with those before them. A text takes next to nothing.
    pub(super) fn expected_wait(&self, modality: Modality, rows: usize) -> Duration {
        match modality {
            Modality::Image => self.line.expected_wait(rows, self.threads),
            Modality::Text => Duration::ZERO,
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
        let row = self.image_row(path, source).await;
        if row.is_err() {
            self.image_errors.increment(1);
        }
        row
    }

    async fn image_row(&self, path: String, source: ImageSource) -> Result<ImageRow, InputError> {
        let leaf = match &source {
            ImageSource::Encoded(_) => "encoded",
            ImageSource::Rgb { .. } => "rgb.pixels",
            ImageSource::Missing => {
                return Err(InputError::new(path, "one of encoded and rgb must be set"));
            }
        };
        let images = self.images.clone();
        let _place = Place::take(&self.line);
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

    /// As `blocking`, and records how long `work` waited, and how long it took.
    async fn timed<T: Send + 'static>(
        &self,
        modality: Modality,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let place = modality.index();
        let (clock, wait, duration) = (self.clock, self.wait[place].clone(), self.duration[place].clone());
        let (line, queued) = (self.line.clone(), clock.now());
        self.blocking(move || {
            let start = clock.now();
            wait.record_duration(start.since(queued));
            let done = work();
            let elapsed = clock.now().since(start);
            duration.record_duration(elapsed);
            if modality == Modality::Image {
                line.learn(elapsed);
            }
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

/// The images being prepared and those that wait for it.
#[derive(Default)]
struct Line {
    images: AtomicUsize,
    /// What one takes, in nanoseconds: an average that forgets.
    mean: AtomicU64,
}

/// Share of the latest image in the average.
const LEARNING_RATE: f64 = 0.1;

impl Line {
    fn expected_wait(&self, more: usize, threads: usize) -> Duration {
        let images = self.images.load(Ordering::Relaxed) + more;
        let mean = Duration::from_nanos(self.mean.load(Ordering::Relaxed));
        mean.mul_f64(images.div_ceil(threads) as f64)
    }

    fn learn(&self, elapsed: Duration) {
        let latest = elapsed.as_nanos() as f64;
        // Two threads at a time may lose one observation of many.
        let mean = match self.mean.load(Ordering::Relaxed) {
            0 => latest,
            mean => mean as f64 + LEARNING_RATE * (latest - mean as f64),
        };
        self.mean.store(mean as u64, Ordering::Relaxed);
    }
}

/// A place in the line until dropped.
struct Place<'a>(&'a Line);

impl<'a> Place<'a> {
    fn take(line: &'a Line) -> Place<'a> {
        line.images.fetch_add(1, Ordering::Relaxed);
        Place(line)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.images.fetch_sub(1, Ordering::Relaxed);
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
