//! A worker thread: opens its engine, warms it up, then runs one batch after another.
//!
//! It blocks only on its channel and in its engine. It answers the jobs of a batch itself, so a
//! result does not pass through the scheduler thread.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use metrics::Histogram;

use super::lost::{Lost, caught};
use super::staging::{Staged, Work, split};
use super::traced::Ran;
use super::warm_up::WarmUp;
use super::{JobError, OpenEngine, Shared};
use crate::clock::Timestamp;
use crate::engine::input::Input;
use crate::engine::{Description, Engine, EngineError};
use crate::modality::Modality;
use crate::scheduler::cost::{Measurement, Sizes};
use crate::scheduler::workers::WorkerId;
use crate::telemetry::metrics::{Metrics, RecordDuration};

/// A worker whose engine fails this often in a row is lost: its device is broken, not the batches.
const FAILURES_IN_A_ROW: u32 = 3;

/// How long a worker looks for its next batch before it sleeps. A few times what a sleep and a wake-up take.
const NEAR: Duration = Duration::from_micros(200);

/// What a worker tells the scheduler thread.
pub(super) enum Report {
    Ready {
        worker: WorkerId,
        description: Description,
        sizes: Sizes,
        measurements: Vec<Measurement>,
        /// Its next batch may be put together while one runs.
        stages: bool,
    },
    Done {
        worker: WorkerId,
        /// What the batch took, if it ran.
        batch: Option<Measurement>,
        /// See [`Staged::lead`].
        lead: Option<Duration>,
    },
    Lost {
        worker: WorkerId,
        error: String,
    },
}

pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) shared: Arc<Shared>,
    pub(super) warm_up: WarmUp,
    pub(super) work: Receiver<Work>,
    /// Empty inputs come back to both threads.
    pub(super) give_back: Sender<Input>,
    pub(super) inputs: Receiver<Input>,
    pub(super) reports: Sender<Report>,
}

impl Worker {
    /// Runs until the scheduler thread drops the channel.
    pub(super) fn run(self, open: OpenEngine) {
        if let Err(Lost(error)) = self.serve(open) {
            self.report(Report::Lost { worker: self.id, error });
            let Worker { shared, work, give_back, .. } = self;
            // The thread beside this one waits for no more inputs.
            drop(give_back);
            for work in work {
                let answers = match work {
                    Work::Close(assignment) => split(assignment).1,
                    Work::Staged(staged) => staged.answers,
                };
                answers.fail(&JobError::WorkerLost, &shared.outcomes);
            }
        }
    }

    fn serve(&self, open: OpenEngine) -> Result<(), Lost> {
        let mut engine = caught(|| open.open())??;
        let mut input = engine.input()?;
        let measurements = self.warm_up.run(&mut *engine, &mut input)?;
        self.give_back(input);
        let stages = engine.stages();
        let sizes = if engine.buckets().is_some() { Sizes::Buckets } else { Sizes::Any };
        if stages {
            let mut second = engine.input()?;
            // Buckets are recorded for each input.
            if sizes == Sizes::Buckets {
                self.warm_up.record(&mut *engine, &mut second)?;
            }
            self.give_back(second);
        }
        let description = engine.description().clone();
        let meters = Meters::new(&self.shared.metrics, &description);
        self.report(Report::Ready { worker: self.id, description, sizes, measurements, stages });
        let mut runner = Runner { worker: self, engine, meters, failures: 0, free_since: self.now() };
        while let Some(staged) = self.next() {
            runner.run(staged)?;
        }
        Ok(())
    }

    /// The next batch; `None` at the end.
    fn next(&self) -> Option<Staged> {
        match self.receive()? {
            Work::Staged(staged) => Some(staged),
            // One is there: nothing runs, and at most one is staged.
            Work::Close(assignment) => Some(Staged::new(assignment, self.inputs.recv().ok()?)),
        }
    }

    /// Where rows wait the next batch is near: to sleep and to be woken would take longer.
    fn receive(&self) -> Option<Work> {
        if self.shared.outlook.borrow().has_waiting() {
            let start = self.now();
            while self.now().since(start) < NEAR {
                if let Ok(work) = self.work.try_recv() {
                    return Some(work);
                }
                std::hint::spin_loop();
            }
        }
        self.work.recv().ok()
    }

    fn give_back(&self, input: Input) {
        // There is room for both, and this side has a receiver.
        let _ = self.give_back.send(input);
    }

    fn report(&self, report: Report) {
        // It fails only when the scheduler thread has ended, which ends this one too. It does not block: the channel
        // has room for what a worker may report before it has to be given something.
        let _ = self.reports.send(report);
    }

    fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }
}

/// What runs batches, once the engine is warm.
struct Runner<'a> {
    worker: &'a Worker,
    engine: Box<dyn Engine>,
    meters: Meters,
    /// In a row.
    failures: u32,
    /// The end of the last run.
    free_since: Timestamp,
}

impl Runner<'_> {
    fn run(&mut self, staged: Staged) -> Result<(), Lost> {
        let Staged { input, filled, mut answers, close_reason, lead } = staged;
        let (worker, outcomes) = (self.worker, &self.worker.shared.outcomes);
        let start = worker.now();
        answers.expire(start, outcomes);
        let Some(oldest) = answers.arrivals().min() else {
            // Whatever became of the rows; but an input that broke is not used again.
            let _ = filled?;
            worker.give_back(input);
            worker.report(Report::Done { worker: worker.id, batch: None, lead });
            return Ok(());
        };
        let result = filled.and_then(|filled| {
            caught(|| {
                filled?;
                let embeddings = self.engine.run(&input)?;
                assert_eq!(embeddings.nrows(), input.rows(), "an engine returns one embedding per row");
                Ok::<_, EngineError>(embeddings)
            })
        });
        let end = worker.now();
        let idle = start.since(self.free_since.max(oldest));
        self.free_since = end;
        let traced = answers.traced();
        let (modality, rows) = (input.modality(), input.rows());
        let device = &*self.engine.description().device;
        let ran = Ran { start, end, modality, rows, close_reason, worker: worker.id, device, error: None };
        match result {
            Ok(Ok(embeddings)) => {
                self.failures = 0;
                let inference = end.since(start);
                let elapsed = self.engine.declared(&input).unwrap_or(inference);
                let measured = Measurement { modality, rows, tokens: input.longest(), elapsed };
                self.meters.record(&input, inference, idle);
                worker.give_back(input);
                // Before the answers, so that the next batch is closed meanwhile.
                worker.report(Report::Done { worker: worker.id, batch: Some(measured), lead });
                let queued = answers.arrivals().map(|arrival| start.since(arrival));
                queued.for_each(|queued| self.meters.queue[modality.index()].record_duration(queued));
                answers.complete(&embeddings, start, inference, outcomes);
                traced.tell(&ran);
            }
            Ok(Err(error)) => {
                tracing::error!(worker = worker.id.0, %error, "batch failed");
                answers.fail(&JobError::Failed(error.to_string()), outcomes);
                traced.tell(&Ran { error: Some(&error.to_string()), ..ran });
                self.failures += 1;
                if self.failures == FAILURES_IN_A_ROW {
                    return Err(Lost(format!("{} batches failed in a row: {error}", self.failures)));
                }
                worker.give_back(input);
                worker.report(Report::Done { worker: worker.id, batch: None, lead });
            }
            Err(lost) => {
                answers.fail(&JobError::WorkerLost, outcomes);
                traced.tell(&Ran { error: Some("the worker was lost"), ..ran });
                return Err(lost);
            }
        }
        Ok(())
    }
}

/// Histograms of one worker, made once its engine is known. Arrays are indexed by `Modality::index`.
struct Meters {
    queue: [Histogram; 2],
    rows: [Histogram; 2],
    padding: Histogram,
    inference: [Histogram; 2],
    idle: Histogram,
}

impl Meters {
    fn new(metrics: &Metrics, description: &Description) -> Meters {
        let Description { device, precision, .. } = description;
        Meters {
            queue: Modality::ALL.map(|modality| metrics.queue_duration(modality)),
            rows: Modality::ALL.map(|modality| metrics.batch_rows(modality)),
            padding: metrics.batch_padding(Modality::Text),
            inference: Modality::ALL.map(|modality| metrics.inference_duration(modality, device, precision)),
            idle: metrics.device_idle_duration(device),
        }
    }

    fn record(&self, input: &Input, inference: Duration, idle: Duration) {
        let modality = input.modality().index();
        self.rows[modality].record(input.rows() as f64);
        self.inference[modality].record_duration(inference);
        self.idle.record_duration(idle);
        if input.modality() == Modality::Text {
            self.padding.record(input.padding());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batcher::answers::Answers;
    use crate::batcher::tests::{options, shared};
    use crate::engine::synthetic::{Gate, SyntheticEngine};
    use crate::scheduler::CloseReason;

    /// What a worker says of a batch that nobody waits for any more, and the inputs that it has then.
    fn run(filled: Result<Result<(), EngineError>, Lost>) -> (Result<(), Lost>, usize) {
        let (shared, id) = (shared(), WorkerId(0));
        let (_, work) = crossbeam_channel::bounded(1);
        let (give_back, inputs) = crossbeam_channel::bounded(2);
        let (reports, _reports) = crossbeam_channel::bounded(1);
        let warm_up = WarmUp::new(&options(shared.clock, &shared.metrics));
        let worker = Worker { id, shared, warm_up, work, give_back, inputs, reports };
        let mut engine = SyntheticEngine::gated(1, Gate::open());
        let input = engine.input().unwrap();
        let meters = Meters::new(&worker.shared.metrics, engine.description());
        let (engine, free_since) = (Box::new(engine), Timestamp::default());
        let mut runner = Runner { worker: &worker, engine, meters, failures: 0, free_since };
        let ran = runner.run(Staged {
            input,
            filled,
            answers: Answers::new(Vec::new()),
            close_reason: CloseReason::Idle,
            lead: None,
        });
        (ran, worker.inputs.len())
    }

    #[test]
    fn an_input_that_broke_is_not_used_again() {
        let (ran, inputs) = run(Err(Lost("filling panicked".to_owned())));
        assert_eq!((ran.map_err(|Lost(error)| error), inputs), (Err("filling panicked".to_owned()), 0));
        let (ran, inputs) = run(Ok(Ok(())));
        assert_eq!((ran.is_ok(), inputs), (true, 1), "nothing broke");
    }
}
