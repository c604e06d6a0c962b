//! How a worker gets its engine.

use crate::engine::{Engine, EngineError};

/// The engine of one worker, opened on that worker's thread.
pub struct OpenEngine {
    /// What it runs on, in the words of [`Description::device`](crate::engine::Description::device). Workers of one
    /// device learn together what a batch takes there.
    pub device: String,
    open: Box<dyn FnOnce() -> Result<Box<dyn Engine>, EngineError> + Send>,
}

impl OpenEngine {
    pub fn new<E: Engine + 'static>(
        device: impl Into<String>,
        open: impl FnOnce() -> Result<E, EngineError> + Send + 'static,
    ) -> OpenEngine {
        OpenEngine::boxed(device, || open().map(|engine| Box::new(engine) as Box<dyn Engine>))
    }

    pub fn boxed(
        device: impl Into<String>,
        open: impl FnOnce() -> Result<Box<dyn Engine>, EngineError> + Send + 'static,
    ) -> OpenEngine {
        OpenEngine { device: device.into(), open: Box::new(open) }
    }

    /// Called on the thread that runs the engine.
    pub fn open(self) -> Result<Box<dyn Engine>, EngineError> {
        (self.open)()
    }
}
