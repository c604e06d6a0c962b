//! Traces: where the time of a call went, told to a collector over OTLP.
//!
//! A [`Tracer`] decides whether a call is traced: as its caller says in W3C's `traceparent`, otherwise by ratio. A call
//! that is carries a [`Span`], whose children are its stages. Everybody has the times of a stage anyway; they become a
//! span when the stage has ended. A call that is not traced carries nothing, and costs nothing.
//!
//! Ended spans go into a bounded queue, and from there to the collector by a task of their own ([`export`]). Where the
//! queue is full they are dropped and counted: no call waits for it.

pub mod export;
mod parent;
mod span;

use http::HeaderMap;

use crate::clock::{Clock, Timestamp};
use crate::random::random;
use export::Outbox;
use parent::Parent;
pub use span::{Attribute, Details, Link, Span, number, text};

#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Of the collector, such as `http://127.0.0.1:4317`.
    pub endpoint: http::Uri,
    /// Share of the calls without a `traceparent` that are traced, from 0 to 1.
    pub sample: f64,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Tracer {
    sample: f64,
    clock: Clock,
    outbox: Outbox,
}

impl Tracer {
    /// The span of a call that arrives, if it is to be traced.
    pub fn call(&self, name: &'static str, headers: &HeaderMap, arrival: Timestamp) -> Option<Span> {
        let parent = match Parent::of(headers) {
            Some(parent) => parent.sampled.then_some(parent)?,
            None => Parent::none(self.sample)?,
        };
        Some(Span::of_call(&self.outbox, name, parent, arrival, self.clock.epoch()))
    }
}

/// Identifiers are not all zeros.
fn identifier() -> [u8; 8] {
    random().max(1).to_be_bytes()
}
