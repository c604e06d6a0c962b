//! A worker thread: opens its engine, warms it up, then runs one batch after another.
//!
//! It blocks only on its batch channel and in its engine. It answers the jobs of a batch itself, so a
//! result does not pass through the scheduler thread.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use metrics::Histogram;

use super::{Embedded, JobError, OpenEngine, Options, Payload, Row, Shared};
use crate::clip::row::{ImageRow, TokenRow};
use crate::clock::Timestamp;
use crate::engine::input::Input;
use crate::engine::{self, Description, Engine, EngineError};
use crate::modality::Modality;
use crate::scheduler::cost::Measurement;
use crate::scheduler::workers::WorkerId;
use crate::telemetry::metrics::{Metrics, RecordDuration};

/// A worker whose engine fails this often in a row is lost: its device is broken, not the batches.
const FAILURES_IN_A_ROW: u32 = 3;

/// Tokens of a caption of a few words: beside the longest texts, the other point of the cost model.
const SHORT_TEXT: usize = 8;

/// A warm-up batch that takes longer is not run again.
const LONG_RUN: Duration = Duration::from_millis(250);

/// How long a worker looks for its next batch before it sleeps. A few times what a sleep and a wake-up take.
const NEAR: Duration = Duration::from_micros(200);

/// Rows of the jobs in `jobs` are all of `modality`.
pub(super) struct Assignment {
    pub(super) modality: Modality,
    pub(super) jobs: Vec<Payload>,
}

/// What a worker tells the scheduler thread.
pub(super) enum Report {
    Ready {
        worker: WorkerId,
        description: Description,
        measurements: Vec<Measurement>,
    },
    /// What its batch took, if it ran.
    Idle {
        worker: WorkerId,
        batch: Option<Measurement>,
    },
    Lost {
        worker: WorkerId,
        error: String,
    },
}

pub(super) struct Worker {
    id: WorkerId,
    shared: Arc<Shared>,
    batches: Receiver<Assignment>,
    reports: Sender<Report>,
    max_batch_size: usize,
    context_length: usize,
    image_row_bytes: usize,
    metrics: Metrics,
}

/// Histograms of one worker, made once its engine is known. Arrays are indexed by `Modality::index`.
struct Meters {
    queue: [Histogram; 2],
    rows: [Histogram; 2],
    padding: Histogram,
    inference: [Histogram; 2],
}

/// The engine broke; the worker ends.
struct Lost(String);

impl Worker {
    pub(super) fn new(
        index: usize,
        options: &Options,
        shared: Arc<Shared>,
        batches: Receiver<Assignment>,
        reports: Sender<Report>,
    ) -> Worker {
        Worker {
            id: WorkerId(index),
            shared,
            batches,
            reports,
            max_batch_size: options.settings.max_batch_size.get(),
            context_length: options.context_length,
            image_row_bytes: options.image_row_bytes,
            metrics: options.metrics.clone(),
        }
    }

    /// Runs until the scheduler thread drops the batch channel, or the engine is lost.
    pub(super) fn run(self, open: OpenEngine) {
        if let Err(Lost(error)) = self.serve(open) {
            self.report(Report::Lost { worker: self.id, error });
        }
    }

    fn serve(&self, open: OpenEngine) -> Result<(), Lost> {
        let mut engine = caught(|| open.open())?.map_err(|error| Lost(error.to_string()))?;
        let mut input = engine.input().map_err(|error| Lost(error.to_string()))?;
        let measurements = self.warm_up(&mut *engine, &mut input)?;
        let description = engine.description().clone();
        let meters = Meters::new(&self.metrics, &description);
        self.report(Report::Ready { worker: self.id, description, measurements });
        let mut failures = 0;
        while let Some(assignment) = self.next() {
            let modality = assignment.modality;
            let (batch, waiting) = split(assignment);
            let start = self.shared.clock.now();
            let result = caught(|| {
                input.fill(&batch);
                let embeddings = engine.run(&input)?;
                assert_eq!(embeddings.nrows(), input.rows(), "an engine returns one embedding per row");
                Ok::<_, EngineError>(embeddings)
            });
            let inference = self.shared.clock.now().since(start);
            match result {
                Ok(Ok(embeddings)) => {
                    failures = 0;
                    let (rows, tokens) = (input.rows(), input.longest());
                    let ran = Measurement { modality, rows, tokens, elapsed: inference };
                    // Before the answers, so that the next batch is closed meanwhile.
                    self.report(Report::Idle { worker: self.id, batch: Some(ran) });
                    meters.record(&input, inference);
                    self.shared.outcomes.completed.increment(waiting.len() as u64);
                    for (values, job) in embeddings.outer_iter().zip(waiting) {
                        let queue = start.since(job.arrival);
                        meters.queue[modality.index()].record_duration(queue);
                        // A client that has gone needs no answer.
                        let _ = job.reply.send(Ok(Embedded { values: values.to_vec(), queue, inference }));
                    }
                }
                Ok(Err(error)) => {
                    tracing::error!(worker = self.id.0, %error, "batch failed");
                    self.fail(waiting, &JobError::Failed(error.to_string()));
                    failures += 1;
                    if failures == FAILURES_IN_A_ROW {
                        return Err(Lost(format!("{failures} batches failed in a row: {error}")));
                    }
                    self.report(Report::Idle { worker: self.id, batch: None });
                }
                Err(lost) => {
                    self.fail(waiting, &JobError::WorkerLost);
                    return Err(lost);
                }
            }
        }
        Ok(())
    }

    /// The next batch; `None` at the end. Where rows wait the next one is near: to sleep and to be woken would
    /// take longer.
    fn next(&self) -> Option<Assignment> {
        if self.shared.outlook.borrow().has_waiting() {
            let start = self.shared.clock.now();
            while self.shared.clock.now().since(start) < NEAR {
                if let Ok(assignment) = self.batches.try_recv() {
                    return Some(assignment);
                }
                std::hint::spin_loop();
            }
        }
        self.batches.recv().ok()
    }

    /// Runs batches of zeros of rising size: the first use of a shape is slow, and the scheduler
    /// learns what a batch costs.
    fn warm_up(&self, engine: &mut dyn Engine, input: &mut Input) -> Result<Vec<Measurement>, Lost> {
        self.warm_up_batches()
            .map(|batch| {
                input.fill(&batch);
                self.measure(engine, input)
            })
            .collect()
    }

    /// Every kind of batch that serves as a point of the cost model.
    fn warm_up_batches(&self) -> impl Iterator<Item = engine::Batch> {
        let sizes = batch_sizes(self.max_batch_size);
        let images = sizes.clone().into_iter().map(|rows| {
            let row = ImageRow(vec![0; self.image_row_bytes].into());
            engine::Batch::Images(vec![row; rows])
        });
        let lengths = [self.context_length.min(SHORT_TEXT), self.context_length];
        let texts = sizes.into_iter().flat_map(move |rows| {
            lengths.map(|length| {
                let row = TokenRow(vec![0; length].into());
                engine::Batch::Texts(vec![row; rows])
            })
        });
        images.chain(texts)
    }

    /// Times a batch. The first run of a shape pays for allocation and compilation, so it counts only
    /// where a second one would take long.
    fn measure(&self, engine: &mut dyn Engine, input: &Input) -> Result<Measurement, Lost> {
        let mut timed = || {
            let start = self.shared.clock.now();
            caught(|| engine.run(input))?.map_err(|error| Lost(error.to_string()))?;
            Ok(self.shared.clock.now().since(start))
        };
        let first = timed()?;
        let elapsed = if first < LONG_RUN { timed()? } else { first };
        Ok(Measurement { modality: input.modality(), rows: input.rows(), tokens: input.longest(), elapsed })
    }

    fn fail(&self, waiting: Vec<Waiting>, error: &JobError) {
        self.shared.outcomes.failed.increment(waiting.len() as u64);
        for job in waiting {
            let _ = job.reply.send(Err(error.clone()));
        }
    }

    fn report(&self, report: Report) {
        // It fails only when the scheduler thread has ended, which ends this one too. It does not block:
        // the channel has a place per worker, and a worker reports again only after its last report was read.
        let _ = self.reports.send(report);
    }
}

struct Waiting {
    arrival: Timestamp,
    reply: tokio::sync::oneshot::Sender<Result<Embedded, JobError>>,
}

/// Separates what the engine needs from what the answers need.
fn split(assignment: Assignment) -> (engine::Batch, Vec<Waiting>) {
    let mut images = Vec::new();
    let mut texts = Vec::new();
    let mut waiting = Vec::with_capacity(assignment.jobs.len());
    for Payload { row, arrival, reply } in assignment.jobs {
        match row {
            Row::Image(row) => images.push(row),
            Row::Text(row) => texts.push(row),
        }
        waiting.push(Waiting { arrival, reply });
    }
    let batch = match assignment.modality {
        Modality::Image => engine::Batch::Images(images),
        Modality::Text => engine::Batch::Texts(texts),
    };
    (batch, waiting)
}

/// A panic inside an engine costs its worker, not the process.
fn caught<T>(run: impl FnOnce() -> T) -> Result<T, Lost> {
    // The engine is not used again after a panic, so broken invariants inside it cannot be seen.
    std::panic::catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let message = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned());
        Lost(format!("the engine panicked: {message}"))
    })
}

/// 1, 2, 4, ... and the largest.
fn batch_sizes(largest: usize) -> Vec<usize> {
    std::iter::successors(Some(1), |size| Some(size * 2))
        .take_while(|size| *size < largest)
        .chain([largest])
        .collect()
}

impl Meters {
    fn new(metrics: &Metrics, description: &Description) -> Meters {
        let Description { device, precision, .. } = description;
        Meters {
            queue: Modality::ALL.map(|modality| metrics.queue_duration(modality)),
            rows: Modality::ALL.map(|modality| metrics.batch_rows(modality)),
            padding: metrics.batch_padding(Modality::Text),
            inference: Modality::ALL.map(|modality| metrics.inference_duration(modality, device, precision)),
        }
    }

    fn record(&self, input: &Input, inference: Duration) {
        let modality = input.modality().index();
        self.rows[modality].record(input.rows() as f64);
        self.inference[modality].record_duration(inference);
        if input.modality() == Modality::Text {
            self.padding.record(input.padding());
        }
    }
}
