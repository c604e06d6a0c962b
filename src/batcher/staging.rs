//! Putting batches together: an idle worker does it itself, a busy one has it done by the thread beside it.
//!
//! A worker has an input, or two where the next batch is put together while one runs. They go round between the two
//! threads: taken empty, filled, run, and given back.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::answers::Answers;
use super::lost::{Lost, caught};
use super::{Payload, Row};
use crate::clock::{Clock, Timestamp};
use crate::engine::input::Input;
use crate::engine::{Batch, EngineError};
use crate::modality::Modality;
use crate::scheduler::CloseReason;

/// A batch as the scheduler closed it. Its rows are all of `modality`.
pub(super) struct Assignment {
    pub(super) modality: Modality,
    pub(super) jobs: Vec<Payload>,
    pub(super) closed: Timestamp,
    pub(super) close_reason: CloseReason,
}

/// What a worker does next.
#[expect(clippy::large_enum_variant, reason = "a worker has room for two")]
pub(super) enum Work {
    /// Puts the batch together and runs it.
    Close(Assignment),
    /// Runs it.
    Staged(Staged),
}

/// A batch that has been put together.
pub(super) struct Staged {
    pub(super) input: Input,
    /// A panic costs the worker, an error the batch.
    pub(super) filled: Result<Result<(), EngineError>, Lost>,
    pub(super) answers: Answers,
    pub(super) close_reason: CloseReason,
    /// From closing the batch until it was ready, if that happened while another one ran.
    pub(super) lead: Option<Duration>,
}

impl Staged {
    pub(super) fn new(assignment: Assignment, mut input: Input) -> Staged {
        let close_reason = assignment.close_reason;
        let (batch, answers) = split(assignment);
        let filled = caught(|| input.fill(&batch));
        Staged { input, filled, answers, close_reason, lead: None }
    }
}

/// The thread beside a worker. It ends when the scheduler thread drops the sender of the assignments.
pub(super) struct Stager {
    pub(super) assignments: Receiver<Assignment>,
    /// Empty ones.
    pub(super) inputs: Receiver<Input>,
    pub(super) work: Sender<Work>,
    pub(super) clock: Clock,
}

impl Stager {
    pub(super) fn run(self) {
        for assignment in &self.assignments {
            // It fails only when the worker has ended, and then nothing is assigned any more. It does not block for
            // long: the channel has room for a batch beside the one that an idle worker is given.
            let _ = self.work.send(self.stage(assignment));
        }
    }

    fn stage(&self, assignment: Assignment) -> Work {
        let closed = assignment.closed;
        match self.inputs.recv() {
            Ok(input) => {
                let staged = Staged::new(assignment, input);
                Work::Staged(Staged { lead: Some(self.clock.now().since(closed)), ..staged })
            }
            // The worker is lost. It answers whatever it still gets.
            Err(_) => Work::Close(assignment),
        }
    }
}

/// Separates what the engine needs from what the answers need.
pub(super) fn split(assignment: Assignment) -> (Batch, Answers) {
    let mut images = Vec::new();
    let mut texts = Vec::new();
    let mut answers = Vec::with_capacity(assignment.jobs.len());
    for Payload { row, answer } in assignment.jobs {
        match row {
            Row::Image(row) => images.push(row),
            Row::Text(row) => texts.push(row),
        }
        answers.push(answer);
    }
    let batch = match assignment.modality {
        Modality::Image => Batch::Images(images),
        Modality::Text => Batch::Texts(texts),
    };
    (batch, Answers::new(answers))
}
