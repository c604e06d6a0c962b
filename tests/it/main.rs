//! Integration tests: a real server on a free port, a real gRPC client.
//!
//! One binary, one module per subject. Where a test needs a certain state (a full queue, a running batch),
//! a gated engine holds it; nothing waits for a while and hopes.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and show what it measured")]

mod bad_requests;
#[cfg(feature = "bench")]
mod bench;
mod calibrate;
mod classifiers;
mod classify;
mod cli;
mod command_line;
mod devices;
mod embed;
#[cfg(feature = "bench")]
mod eval;
mod golden;
mod gzip;
mod health;
mod http;
mod hub;
mod keys;
mod metrics;
mod one_tower;
mod overload;
mod page;
mod preprocessing;
mod readme;
mod repositories;
mod scheduling;
mod shutdown;
mod siglip;
mod stalls;
mod streams;
mod support;
mod tidy;
mod tls;
mod tracing;
mod zero_shot;
