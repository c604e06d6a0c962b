//! What the traces of calls are told of a batch.
//!
//! A batch belongs to all calls that have rows in it, so it is a trace of its own. Each of those calls has a span for
//! the time in the queue, and one for the run, which is linked with that of the batch, both ways.

use crate::clock::Timestamp;
use crate::modality::Modality;
use crate::scheduler::CloseReason;
use crate::scheduler::workers::WorkerId;
use crate::trace::{Attribute, Details, Span, number, text};

/// The calls of a batch that are traced: mostly none, which takes no memory.
pub(super) struct Traced(Vec<Call>);

struct Call {
    span: Span,
    /// When its first row came.
    since: Timestamp,
    rows: usize,
}

/// A batch that ran.
pub(super) struct Ran<'a> {
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
    pub(super) modality: Modality,
    pub(super) rows: usize,
    pub(super) close_reason: CloseReason,
    pub(super) worker: WorkerId,
    pub(super) device: &'a str,
    pub(super) error: Option<&'a str>,
}

impl Traced {
    /// Of rows with the span of their call and their arrival.
    pub(super) fn of<'a>(rows: impl Iterator<Item = (&'a Span, Timestamp)>) -> Traced {
        let mut calls: Vec<Call> = Vec::new();
        for (span, arrival) in rows {
            match calls.iter_mut().find(|call| call.span.is(span)) {
                Some(call) => {
                    call.rows += 1;
                    call.since = call.since.min(arrival);
                }
                None => calls.push(Call { span: span.clone(), since: arrival, rows: 1 }),
            }
        }
        Traced(calls)
    }

    pub(super) fn tell(self, ran: &Ran<'_>) {
        let Some(first) = self.0.first() else { return };
        let batch = first.span.apart("batch", ran.start);
        let mut links = Vec::with_capacity(self.0.len());
        for Call { span, since, rows } in self.0 {
            span.stage("queue", since, ran.start);
            let inference = span.child("inference", ran.start);
            links.push(inference.link());
            let mut details = ran.details();
            details.attributes.push(number("clip.rows", rows));
            details.links.push(batch.link());
            inference.end(ran.end, details);
        }
        batch.end(ran.end, Details { links, ..ran.details() });
    }
}

impl Ran<'_> {
    fn details(&self) -> Details {
        let error = self.error.map(str::to_owned);
        Details { attributes: self.attributes(), error, ..Details::default() }
    }

    fn attributes(&self) -> Vec<Attribute> {
        vec![
            text("clip.modality", self.modality.as_str()),
            number("clip.batch.rows", self.rows),
            text("clip.batch.close_reason", self.close_reason.as_str()),
            number("clip.worker", self.worker.0),
            text("clip.device", self.device),
        ]
    }
}
