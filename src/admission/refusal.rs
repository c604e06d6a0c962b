//! Work that is refused before it costs anything.

use std::time::Duration;

use crate::auth::Unknown;

/// There is no room now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", if reason.is_of_caller() { "limit of the caller" } else { "overloaded" }, reason.as_str())]
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
    /// Of the key, or of the address: calls a second, rows a second, calls and streams at a time.
    CallerRequests,
    CallerRows,
    CallerConcurrency,
    CallerStreams,
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
        Reason::CallerRequests,
        Reason::CallerRows,
        Reason::CallerConcurrency,
        Reason::CallerStreams,
    ];

    /// Whether it is the caller's own limit, and not the server's.
    pub fn is_of_caller(self) -> bool {
        matches!(
            self,
            Reason::CallerRequests | Reason::CallerRows | Reason::CallerConcurrency | Reason::CallerStreams
        )
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
            Reason::CallerRequests => "caller_requests",
            Reason::CallerRows => "caller_rows",
            Reason::CallerConcurrency => "caller_concurrency",
            Reason::CallerStreams => "caller_streams",
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
