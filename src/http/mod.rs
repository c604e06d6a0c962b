//! The only place that knows axum.

pub mod metrics;
