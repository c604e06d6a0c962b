//! The callers who wait for the rows of a batch, in the order of the rows. Each gets one answer, and is counted.

use std::time::Duration;

use ndarray::Array2;
use tokio::sync::oneshot;

use super::outcome::Outcomes;
use super::traced::Traced;
use super::{Embedded, JobError};
use crate::clock::Timestamp;
use crate::trace::Span;

/// One caller.
pub(super) struct Answer {
    pub(super) arrival: Timestamp,
    pub(super) deadline: Timestamp,
    /// Of its call. `None`: that is not traced.
    pub(super) span: Option<Span>,
    pub(super) reply: oneshot::Sender<Result<Embedded, JobError>>,
}

/// `None` where a row was answered before its batch ran.
pub(super) struct Answers(Vec<Option<Answer>>);

impl Answers {
    pub(super) fn new(answers: Vec<Answer>) -> Answers {
        Answers(answers.into_iter().map(Some).collect())
    }

    /// Answers those whose deadline passed while their batch waited for its turn.
    pub(super) fn expire(&mut self, now: Timestamp, outcomes: &Outcomes) {
        for place in &mut self.0 {
            if let Some(expired) = place.take_if(|answer| answer.deadline <= now) {
                outcomes.expired.increment(1);
                // A client that has gone needs no answer; so everywhere below.
                let _ = expired.reply.send(Err(JobError::Expired));
            }
        }
    }

    pub(super) fn arrivals(&self) -> impl Iterator<Item = Timestamp> {
        self.0.iter().flatten().map(|answer| answer.arrival)
    }

    /// The calls behind them that are traced.
    pub(super) fn traced(&self) -> Traced {
        let answers = self.0.iter().flatten();
        Traced::of(answers.filter_map(|answer| Some((answer.span.as_ref()?, answer.arrival))))
    }

    pub(super) fn complete(
        self,
        embeddings: &Array2<f32>,
        start: Timestamp,
        inference: Duration,
        outcomes: &Outcomes,
    ) {
        let rows = embeddings.outer_iter().zip(self.0);
        for (values, answer) in rows.filter_map(|(values, answer)| Some((values, answer?))) {
            outcomes.completed.increment(1);
            let queue = start.since(answer.arrival);
            let _ = answer.reply.send(Ok(Embedded { values: values.to_vec(), queue, inference }));
        }
    }

    pub(super) fn fail(self, error: &JobError, outcomes: &Outcomes) {
        for answer in self.0.into_iter().flatten() {
            outcomes.failed.increment(1);
            let _ = answer.reply.send(Err(error.clone()));
        }
    }
}
