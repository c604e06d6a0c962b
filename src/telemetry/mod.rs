//! What the process says about itself: metrics and logs.

pub mod figures;
pub mod logging;
pub mod metrics;
pub(crate) mod names;
