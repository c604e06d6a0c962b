//! Work that is refused before it costs anything.

use std::time::Duration;

/// There is no room now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("overloaded: {}", reason.as_str())]
pub struct Refusal {
    pub reason: Reason,
    /// When there may be room again.
    pub retry_after: Duration,
}

/// Which limit refused the work; a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// `--max-concurrent-requests`.
    ConcurrentRequests,
    /// `--max-streams`.
    Streams,
    /// `--max-request-bytes-in-flight`.
    RequestBytes,
    /// `--max-response-bytes-in-flight`.
    ResponseBytes,
    /// `--max-queue-size`.
    QueueFull,
    /// It is predicted not to be done by its deadline.
    Deadline,
    /// Too many label sets are being embedded.
    LabelFills,
    /// Streams keep too many labels.
    StreamLabels,
}

impl Reason {
    pub const ALL: [Reason; 8] = [
        Reason::ConcurrentRequests,
        Reason::Streams,
        Reason::RequestBytes,
        Reason::ResponseBytes,
        Reason::QueueFull,
        Reason::Deadline,
        Reason::LabelFills,
        Reason::StreamLabels,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Reason::ConcurrentRequests => "concurrent_requests",
            Reason::Streams => "streams",
            Reason::RequestBytes => "bytes_in_flight",
            Reason::ResponseBytes => "response_bytes_in_flight",
            Reason::QueueFull => "queue_full",
            Reason::Deadline => "deadline",
            Reason::LabelFills => "label_fills",
            Reason::StreamLabels => "stream_labels",
        }
    }
}
