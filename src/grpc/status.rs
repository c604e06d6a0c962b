//! Errors in gRPC's words.

use std::time::Duration;

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use super::place::Rpc;
use crate::admission::{Fault, NoEntry, Refusal};
use crate::pipeline::error::Error;

/// gRPC's retry hint (proposal A6): milliseconds to wait before the next try.
pub(crate) const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// `rpc` says how its request names what the error is about.
pub(super) fn from_error(error: &Error, rpc: Rpc) -> Status {
    match error {
        Error::Invalid(input) => {
            Status::invalid_argument(format!("{}: {}", rpc.field(input.place), input.message))
        }
        Error::Refused(refusal) => refused(refusal),
        _ => Status::new(Code::from_i32(error.code() as i32), error.told()),
    }
}

pub(super) fn from_fault(fault: Fault<Status>) -> Status {
    match fault {
        Fault::Refused(refusal) => refused(&refusal),
        Fault::TooLate => Status::deadline_exceeded(fault.to_string()),
        Fault::Stopping => Status::unavailable(fault.to_string()),
        Fault::Broken(status) => status,
    }
}

pub(super) fn no_entry(no: &NoEntry) -> Status {
    match no {
        NoEntry::Unknown(unknown) => Status::unauthenticated(unknown.to_string()),
        NoEntry::Refused(refusal) => refused(refusal),
    }
}

/// RESOURCE_EXHAUSTED with a retry hint.
pub(super) fn refused(refusal: &Refusal) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert(PUSHBACK, MetadataValue::from(millis(refusal.retry_after)));
    Status::with_metadata(Code::ResourceExhausted, refusal.to_string(), metadata)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
