//! The operations, without a transport: embed, classify and rank.
//!
//! Validates requests, turns inputs into rows off the async threads, submits the rows, and turns the rows
//! that come back into answers. It knows neither tonic nor HTTP; both edges call it.
//!
//! What is wrong with one input is that input's error; what is wrong with the request, or with the server,
//! is the request's error.

pub mod classifiers;
pub mod classify;
pub mod embed;
pub mod error;
mod images;
mod label_set;
mod labels;
mod line;
mod preprocess;
mod progress;
pub mod rank;
mod slots;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use crate::admission::{Admitted, Deadline};
use crate::batcher::ticket::Ticket;
use crate::batcher::{Embedded, Handle, JobError, Row};
use crate::clip::classifier::Logits;
use crate::clip::embedding;
use crate::clip::image::ImagePreprocessor;
use crate::clip::text::TextTokenizer;
use crate::clock::Clock;
use crate::modality::{ByModality, Modality};
use crate::scheduler::cost::CostModel;
use crate::scheduler::outlook::Arrival;
use crate::scheduler::preparation::Preparation;
use crate::telemetry::metrics::{Metrics, RecordDuration};
use crate::trace::Span;
use bytes::Bytes;
use classifiers::Named;
use error::{Error, InputError, Part, Place};
use labels::LabelCache;
use line::Line;
use preprocess::Preprocessor;
use progress::{Expirations, Progress};
use tokio::sync::Semaphore;

/// What one request may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Inputs of one embed, images of one classify.
    pub inputs: usize,
    /// Labels of one classify.
    pub labels: usize,
    /// Templates of one classify.
    pub templates: usize,
    /// Labels x templates of one classify.
    pub prompts: usize,
    /// Images x predictions of one classify.
    pub predictions: usize,
    /// Bytes of one text or label.
    pub text_bytes: usize,
    /// Bytes of one answer.
    pub response_bytes: usize,
}

pub struct Options {
    pub limits: Limits,
    /// Images preprocessed at a time, and as many texts.
    pub preprocess_threads: NonZeroUsize,
    /// An image counts as due this long after its arrival, by its class.
    pub interactive_target: Duration,
    pub bulk_target: Duration,
    /// Memory for cached prompt embeddings and classifiers.
    pub label_cache_bytes: u64,
    /// Rows submitted at a time when a label set is embedded.
    pub fill_rows: NonZeroUsize,
    /// How long a row of a label set may wait for a worker.
    pub fill_timeout: Duration,
    /// Width of an embedding.
    pub embed_dim: NonZeroUsize,
    /// The model's own scale and bias.
    pub logits: Logits,
    pub clock: Clock,
    pub metrics: Metrics,
}

/// An image as a client sends it.
#[derive(Clone, Debug)]
pub enum ImageSource {
    /// A file in one of the formats of [`ImageFormat`](crate::clip::image::ImageFormat).
    Encoded(Bytes),
    /// `width * height * 3` bytes.
    Rgb { width: u32, height: u32, pixels: Bytes },
    /// The edge could not make either of what the client sent, and says why.
    Wrong(Part, String),
}

/// Where the time of a request went; for several inputs, the slowest one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    pub preprocess: Duration,
    pub queue: Duration,
    pub inference: Duration,
}

/// Serves one model.
pub struct Pipeline {
    limits: Limits,
    line: Arc<Line>,
    preprocessor: Arc<Preprocessor>,
    batcher: Handle,
    /// Rows of streams wait for room one at a time, in order of arrival.
    turnstile: ByModality<Semaphore>,
    labels: LabelCache,
    named: Named,
    /// A permit for each byte of labels and their embeddings that streams may keep: as much as the label cache, which
    /// may have let go of them.
    stream_labels: Arc<Semaphore>,
    embed_dim: NonZeroUsize,
    logits: Logits,
    expirations: Expirations,
    clock: Clock,
    metrics: Metrics,
}

impl Pipeline {
    pub fn new(
        options: Options,
        images: ImagePreprocessor,
        texts: Option<TextTokenizer>,
        batcher: Handle,
    ) -> Pipeline {
        let (threads, clock, metrics) = (options.preprocess_threads, options.clock, &options.metrics);
        let (interactive, bulk) = (options.interactive_target, options.bulk_target);
        let preparation = Preparation::new(threads, interactive, bulk);
        let preprocessor = Arc::new(Preprocessor::new(texts, threads, clock, metrics));
        [None, Some(Modality::Image), Some(Modality::Text)]
            .iter()
            .for_each(|each| metrics.input_errors(*each).increment(0));
        let stream_label_bytes = usize::try_from(options.label_cache_bytes).unwrap_or(usize::MAX);
        let stream_label_bytes = stream_label_bytes.min(Semaphore::MAX_PERMITS);
        let labels = LabelCache::new(&options, preprocessor.clone(), batcher.clone());
        Pipeline {
            limits: options.limits,
            line: Arc::new(Line::new(images, preparation, batcher.clone(), clock, metrics)),
            preprocessor,
            batcher,
            turnstile: ByModality { image: Semaphore::new(1), text: Semaphore::new(1) },
            labels,
            named: Named::new(),
            stream_labels: Arc::new(Semaphore::new(stream_label_bytes)),
            embed_dim: options.embed_dim,
            logits: options.logits,
            expirations: Expirations::new(&options.metrics),
            clock: options.clock,
            metrics: options.metrics,
        }
    }

    /// What batches are predicted to take now, by device.
    pub fn costs(&self) -> Vec<(String, CostModel)> {
        self.batcher.costs()
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Runs `operation` until the deadline, and counts it if it is refused.
    /// Dropping `operation` drops its tickets, which cancels what is still queued.
    async fn until<T>(
        &self,
        deadline: Deadline,
        progress: &Progress<'_>,
        operation: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let in_time = match self.clock.instant(deadline.reply_by) {
            Some(instant) => tokio::time::timeout_at(instant.into(), operation).await.ok(),
            None => Some(operation.await),
        };
        match &in_time {
            None => self.expirations.timed_out(progress),
            Some(Err(Error::DeadlineExceeded)) => self.expirations.dropped(progress),
            Some(_) => {}
        }
        self.counted(in_time.unwrap_or(Err(Error::DeadlineExceeded)), progress.call())
    }

    /// Counts it if it is a refusal, and logs it if it is a fault of ours.
    fn counted<T>(&self, result: Result<T, Error>, call: &Admitted) -> Result<T, Error> {
        if let Err(error) = &result {
            error.log(call);
            if let Error::Refused(refusal) = error {
                self.metrics.rejections(refusal.reason.as_str()).increment(1);
            }
        }
        result
    }

    /// As `until`, for an input of a stream, which it times.
    async fn until_answered<T>(
        &self,
        modality: Option<Modality>,
        deadline: Deadline,
        progress: &Progress<'_>,
        operation: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let start = self.clock.now();
        let result = self.until(deadline, progress, operation).await;
        let outcome = result.as_ref().err().map_or("answered", Error::outcome);
        self.metrics.stream_input_duration(modality, outcome).record_duration(self.clock.now().since(start));
        progress.answered(outcome, result.as_ref().err());
        result
    }

    /// Refuses work that would be refused later, before it is prepared.
    fn admissible(&self, modality: Modality, rows: usize, deadline: Deadline) -> Result<(), Error> {
        let Deadline { done_by, class, .. } = deadline;
        match self.batcher.refusal(&Arrival { modality, rows, class, deadline: done_by }) {
            Some(rejection) => Err(rejection.into()),
            None => Ok(()),
        }
    }

    /// Submits rows; returns their results in order.
    async fn run(
        &self,
        rows: Vec<Row>,
        deadline: Deadline,
        span: Option<&Span>,
    ) -> Result<Vec<Embedded>, Error> {
        run(&self.batcher, rows, deadline, span).await
    }

    /// Submits one row, and waits for room in the queue as long as the deadline allows.
    async fn run_when_there_is_room(
        &self,
        row: Row,
        deadline: Deadline,
        span: Option<&Span>,
    ) -> Result<Embedded, Error> {
        let Deadline { done_by, class, .. } = deadline;
        let modality = row.modality();
        let arrival = Arrival { modality, rows: 1, class, deadline: done_by };
        loop {
            // Who needs time, not room, must not hold up those behind it.
            self.batcher.time(&arrival).await;
            let tickets = {
                let _turn = self.turnstile[modality].acquire().await;
                self.batcher.room(modality).await;
                self.batcher.submit(vec![row.clone()], class, done_by, span)
            };
            match tickets_in_order(tickets).await {
                // Another one was faster, or time has become short.
                Err(Error::Refused(_)) => {}
                Ok(mut rows) => return rows.pop().ok_or_else(|| Error::Internal("a row was lost".into())),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Submits rows together; the first that fails fails all of them, and cancels those still queued.
async fn run(
    batcher: &Handle,
    rows: Vec<Row>,
    deadline: Deadline,
    span: Option<&Span>,
) -> Result<Vec<Embedded>, Error> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    tickets_in_order(batcher.submit(rows, deadline.class, deadline.done_by, span)).await
}

async fn tickets_in_order(tickets: Result<Vec<Ticket>, JobError>) -> Result<Vec<Embedded>, Error> {
    Ok(futures_util::future::try_join_all(tickets?).await?)
}

/// The slowest of each step.
fn timing(preprocess: Duration, rows: &[Embedded]) -> Timing {
    Timing {
        preprocess,
        queue: rows.iter().map(|row| row.queue).max().unwrap_or_default(),
        inference: rows.iter().map(|row| row.inference).max().unwrap_or_default(),
    }
}

/// To unit length. A vector without a direction is the model's fault, not the input's.
fn unit(values: &mut [f32]) -> Result<(), Error> {
    embedding::normalize(values)
        .map_err(|error| Error::Internal(format!("the model gave an embedding: {error}")))
}

fn check_limit(place: Place, count: usize, limit: usize) -> Result<(), Error> {
    if count > limit {
        let message = format!("{count} are more than the limit of {limit}");
        return Err(Error::Invalid(InputError::new(place, message)));
    }
    Ok(())
}
