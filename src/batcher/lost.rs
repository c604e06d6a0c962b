//! Why a worker ends: its engine broke.

use std::panic::AssertUnwindSafe;

use crate::engine::EngineError;

/// The engine broke; the worker ends.
pub(super) struct Lost(pub(super) String);

/// A panic inside an engine costs its worker, not the process.
pub(super) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, Lost> {
    // The engine is not used again after a panic, so broken invariants inside it cannot be seen.
    std::panic::catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let message = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned());
        Lost(format!("the engine panicked: {message}"))
    })
}

impl From<EngineError> for Lost {
    fn from(error: EngineError) -> Lost {
        Lost(error.to_string())
    }
}
