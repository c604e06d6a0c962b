//! A span: a name, a beginning and an end, and whose child it is.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::{Link as WireLink, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span as WireSpan, Status};

use super::export::Outbox;
use super::identifier;
use super::parent::Parent;
use crate::clock::Timestamp;

/// One that has begun. Cheap to clone: whoever works for it holds one, to give it children.
#[derive(Clone)]
pub struct Span(Arc<Begun>);

struct Begun {
    /// What is known of it.
    span: WireSpan,
    /// From 1970 to the beginning of the server's clock, read once for a trace: its spans agree with each other.
    epoch: Duration,
    outbox: Outbox,
}

/// A fact about a span.
pub type Attribute = KeyValue;

/// Another span that has to do with one.
pub type Link = WireLink;

/// What is known of a span at its end.
#[derive(Debug, Default)]
pub struct Details {
    pub attributes: Vec<Attribute>,
    pub links: Vec<Link>,
    /// What went wrong.
    pub error: Option<String>,
}

/// Traced, and as its caller said or drew.
const SAMPLED: u32 = 1;

impl Span {
    pub(super) fn of_call(
        outbox: &Outbox,
        name: &'static str,
        parent: Parent,
        start: Timestamp,
        epoch: Duration,
    ) -> Span {
        let span = WireSpan {
            trace_id: parent.trace.to_vec(),
            parent_span_id: parent.span.map_or_else(Vec::new, |span| span.to_vec()),
            trace_state: parent.state,
            kind: SpanKind::Server.into(),
            ..begun(name, start, epoch)
        };
        Span(Arc::new(Begun { span, epoch, outbox: outbox.clone() }))
    }

    /// A part of it.
    pub fn child(&self, name: &'static str, start: Timestamp) -> Span {
        let Begun { span, epoch, outbox } = &*self.0;
        let span = WireSpan {
            trace_id: span.trace_id.clone(),
            parent_span_id: span.span_id.clone(),
            trace_state: span.trace_state.clone(),
            ..begun(name, start, *epoch)
        };
        Span(Arc::new(Begun { span, epoch: *epoch, outbox: outbox.clone() }))
    }

    /// The beginning of a trace of its own, for what belongs to several calls.
    pub fn apart(&self, name: &'static str, start: Timestamp) -> Span {
        let Begun { epoch, outbox, .. } = &*self.0;
        let trace_id = [identifier(), identifier()].concat();
        let span = WireSpan { trace_id, ..begun(name, start, *epoch) };
        Span(Arc::new(Begun { span, epoch: *epoch, outbox: outbox.clone() }))
    }

    /// A part of it that has ended.
    pub fn stage(&self, name: &'static str, start: Timestamp, end: Timestamp) {
        self.child(name, start).end(end, Details::default());
    }

    /// To be called once.
    pub fn end(&self, end: Timestamp, details: Details) {
        let Begun { span, epoch, outbox } = &*self.0;
        let Details { attributes, links, error } = details;
        let status = error.map(|message| Status { message, code: StatusCode::Error.into() });
        let end_time_unix_nano = unix_nanos(end, *epoch);
        outbox.put(WireSpan { end_time_unix_nano, attributes, links, status, ..span.clone() });
    }

    /// The identifier of its trace, in hexadecimal.
    pub fn trace(&self) -> String {
        self.0.span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub fn link(&self) -> Link {
        let WireSpan { trace_id, span_id, trace_state, .. } = &self.0.span;
        Link {
            trace_id: trace_id.clone(),
            span_id: span_id.clone(),
            trace_state: trace_state.clone(),
            flags: SAMPLED,
            ..Link::default()
        }
    }

    /// Whether both are one.
    pub fn is(&self, other: &Span) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

fn begun(name: &str, start: Timestamp, epoch: Duration) -> WireSpan {
    WireSpan {
        span_id: identifier().to_vec(),
        name: name.to_owned(),
        kind: SpanKind::Internal.into(),
        flags: SAMPLED,
        start_time_unix_nano: unix_nanos(start, epoch),
        ..WireSpan::default()
    }
}

fn unix_nanos(at: Timestamp, epoch: Duration) -> u64 {
    u64::try_from((epoch + at.since(Timestamp::default())).as_nanos()).unwrap_or(u64::MAX)
}

pub fn text(key: &str, value: impl Into<String>) -> Attribute {
    attribute(key, Value::StringValue(value.into()))
}

pub fn number(key: &str, value: usize) -> Attribute {
    attribute(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

fn attribute(key: &str, value: Value) -> Attribute {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
