//! The pipeline's errors in gRPC's words.

use std::time::Duration;

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::pipeline::error::Error;

/// gRPC's retry hint (proposal A6): milliseconds to wait before the next try.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

pub(super) fn from_error(error: Error) -> Status {
    match error {
        Error::Invalid(input) => Status::invalid_argument(input.to_string()),
        Error::NotFound { .. } => Status::not_found(error.to_string()),
        Error::Refused { retry_after, .. } => overloaded(&error.to_string(), retry_after),
        Error::Unavailable(_) => Status::unavailable(error.to_string()),
        Error::DeadlineExceeded => Status::deadline_exceeded(error.to_string()),
        Error::Internal(cause) => {
            tracing::error!(cause, "internal error");
            Status::internal("internal error; the server's log has the cause")
        }
    }
}

/// RESOURCE_EXHAUSTED with a retry hint.
pub(super) fn overloaded(message: &str, retry_after: Duration) -> Status {
    let mut metadata = MetadataMap::new();
    let millis = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
    metadata.insert(PUSHBACK, MetadataValue::from(millis));
    Status::with_metadata(Code::ResourceExhausted, message, metadata)
}

/// The name of a code as the specification spells it; a metric label.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
