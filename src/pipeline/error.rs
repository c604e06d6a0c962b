//! Why an operation, or one of its inputs, has no answer.

use std::time::Duration;

use crate::batcher::JobError;
use crate::scheduler::Rejection;

/// What is wrong with one part of a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct InputError {
    /// Path in the request, such as `inputs[3].image.encoded`.
    pub field: String,
    /// For a person.
    pub message: String,
}

impl InputError {
    pub fn new(field: impl Into<String>, message: impl ToString) -> InputError {
        InputError { field: field.into(), message: message.to_string() }
    }
}

/// Why a whole operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request is wrong; repeating it gives the same answer.
    #[error("{0}")]
    Invalid(InputError),
    #[error("classifier: the server has none named {classifier:?}")]
    NotFound { classifier: String },
    /// There is no room now.
    #[error("overloaded: {}", reason.as_str())]
    Refused {
        reason: RefusalReason,
        /// When there may be room again.
        retry_after: Duration,
    },
    /// This server cannot serve now, another one may.
    #[error("unavailable: {0}")]
    Unavailable(&'static str),
    #[error("the deadline passed")]
    DeadlineExceeded,
    /// A fault of ours; the cause is for the log, not for the client.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Which limit refused the work; a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// `max_queue_size`.
    QueueFull,
    /// It is predicted not to be done by its deadline.
    Deadline,
    /// Too many label sets are being embedded.
    LabelFills,
}

impl RefusalReason {
    pub const ALL: [RefusalReason; 3] =
        [RefusalReason::QueueFull, RefusalReason::Deadline, RefusalReason::LabelFills];

    pub fn as_str(self) -> &'static str {
        match self {
            RefusalReason::QueueFull => "queue_full",
            RefusalReason::Deadline => "deadline",
            RefusalReason::LabelFills => "label_fills",
        }
    }
}

impl Error {
    /// A metric label.
    pub fn outcome(&self) -> &'static str {
        match self {
            Error::Invalid(_) => "invalid",
            Error::NotFound { .. } => "not_found",
            Error::Refused { .. } => "refused",
            Error::Unavailable(_) => "unavailable",
            Error::DeadlineExceeded => "expired",
            Error::Internal(_) => "failed",
        }
    }
}

/// Shortest retry hint: less would only repeat the overload.
const MIN_RETRY: Duration = Duration::from_millis(50);

impl Error {
    pub fn refused(reason: RefusalReason, retry_after: Duration) -> Error {
        Error::Refused { reason, retry_after: retry_after.max(MIN_RETRY) }
    }
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Error {
        match rejection {
            Rejection::QueueFull { retry_after } => Error::refused(RefusalReason::QueueFull, retry_after),
            Rejection::TooLate { retry_after } => Error::refused(RefusalReason::Deadline, retry_after),
            Rejection::Starting => Error::Unavailable("the server is starting"),
            Rejection::Draining => Error::Unavailable("the server is shutting down"),
            Rejection::NoWorker => Error::Unavailable("every worker is lost"),
        }
    }
}

impl From<JobError> for Error {
    fn from(error: JobError) -> Error {
        match error {
            JobError::Rejected(rejection) => rejection.into(),
            JobError::Expired => Error::DeadlineExceeded,
            JobError::WorkerLost => Error::Unavailable("the worker was lost"),
            JobError::Failed(cause) => Error::Internal(cause),
        }
    }
}
