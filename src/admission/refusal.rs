//! Work that is refused before it costs anything.

use std::time::Duration;

use crate::auth::Unknown;

/// There is no room now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", if reason.is_of_key() { "limit of the key" } else { "overloaded" }, reason.as_str())]
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
    /// Of the key: calls a second, rows a second, calls and streams at a time.
    KeyRequests,
    KeyRows,
    KeyConcurrency,
    KeyStreams,
}

impl Reason {
    pub const ALL: [Reason; 12] = [
        Reason::ConcurrentRequests,
        Reason::Streams,
        Reason::RequestBytes,
        Reason::ResponseBytes,
        Reason::QueueFull,
        Reason::Deadline,
        Reason::LabelFills,
        Reason::StreamLabels,
        Reason::KeyRequests,
        Reason::KeyRows,
        Reason::KeyConcurrency,
        Reason::KeyStreams,
    ];

    /// Whether it is the caller's own limit, and not the server's.
    pub fn is_of_key(self) -> bool {
        matches!(self, Reason::KeyRequests | Reason::KeyRows | Reason::KeyConcurrency | Reason::KeyStreams)
    }

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
            Reason::KeyRequests => "key_requests",
            Reason::KeyRows => "key_rows",
            Reason::KeyConcurrency => "key_concurrency",
            Reason::KeyStreams => "key_streams",
        }
    }
}

/// Why a call does not come in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEntry {
    #[error(transparent)]
    Unknown(#[from] Unknown),
    #[error(transparent)]
    Refused(#[from] Refusal),
}
