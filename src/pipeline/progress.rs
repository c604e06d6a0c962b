//! How far an operation has come, so that a deadline that passes is counted where it did, and a trace is told.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metrics::Counter;

use super::error::Error;
use crate::admission::Admitted;
use crate::clock::{Clock, Timestamp};
use crate::telemetry::metrics::Metrics;
use crate::trace::{Attribute, Details, Span, text};

/// Of one operation.
pub(super) struct Progress<'a> {
    call: &'a Admitted,
    clock: Clock,
    prepared: AtomicBool,
    /// Of the call, or of an input of a stream. `None`: it is not traced.
    span: Option<Span>,
    input: Option<Input>,
}

/// Tells of an input of a stream at its end, also where that is the end of the stream.
struct Input {
    span: Span,
    clock: Clock,
    answer: OnceLock<Details>,
}

impl Drop for Input {
    fn drop(&mut self) {
        let unanswered = || Details { attributes: vec![outcome("cancelled")], ..Details::default() };
        self.span.end(self.clock.now(), self.answer.take().unwrap_or_else(unanswered));
    }
}

fn outcome(outcome: &str) -> Attribute {
    text("clip.outcome", outcome)
}

impl<'a> Progress<'a> {
    pub(super) fn of_call(call: &'a Admitted, clock: Clock) -> Progress<'a> {
        Progress { call, clock, prepared: AtomicBool::new(false), span: call.span().cloned(), input: None }
    }

    /// Of an input of a stream, which has come now.
    pub(super) fn of_input(call: &'a Admitted, clock: Clock) -> Progress<'a> {
        let span = call.span().map(|span| span.child("input", clock.now()));
        let input = span.clone().map(|span| Input { span, clock, answer: OnceLock::new() });
        Progress { span, input, ..Progress::of_call(call, clock) }
    }

    pub(super) fn call(&self) -> &Admitted {
        self.call
    }

    pub(super) fn span(&self) -> Option<&Span> {
        self.span.as_ref()
    }

    /// From here on its rows are in the queue, or with the engine. Returns how long that took from `start`.
    pub(super) fn prepared(&self, start: Timestamp) -> Duration {
        self.prepared.store(true, Ordering::Relaxed);
        let now = self.clock.now();
        if let Some(span) = &self.span {
            span.stage("preprocess", start, now);
        }
        now.since(start)
    }

    /// An input of a stream has its answer.
    pub(super) fn answered(&self, word: &'static str, error: Option<&Error>) {
        if let Some(input) = &self.input {
            let error = error.filter(|error| error.code().is_fault()).map(Error::told);
            let attributes = vec![outcome(word)];
            let _ = input.answer.set(Details { attributes, error, ..Details::default() });
        }
    }
}

/// Operations whose deadline passed, by stage.
pub(super) struct Expirations {
    preprocess: Counter,
    queue: Counter,
    engine: Counter,
}

impl Expirations {
    pub(super) fn new(metrics: &Metrics) -> Expirations {
        Expirations {
            preprocess: metrics.expirations("preprocess"),
            queue: metrics.expirations("queue"),
            engine: metrics.expirations("engine"),
        }
    }

    /// The time for an answer is over.
    pub(super) fn timed_out(&self, progress: &Progress<'_>) {
        // What waited in the queue would have been dropped earlier.
        let stage = if progress.prepared.load(Ordering::Relaxed) { &self.engine } else { &self.preprocess };
        stage.increment(1);
    }

    /// A line or the queue dropped an input that would have been too late.
    pub(super) fn dropped(&self, progress: &Progress<'_>) {
        let stage = if progress.prepared.load(Ordering::Relaxed) { &self.queue } else { &self.preprocess };
        stage.increment(1);
    }
}
