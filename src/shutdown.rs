//! Signals, and the phases in which a server ends.
//!
//! It says when; `app` does what each phase asks for.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Only ever advances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Serving,
    /// Not ready any more, still answering: load balancers are to look elsewhere.
    Leaving,
    /// No new connections or calls; calls in flight are answered.
    Stopping,
}

/// Returns once `phase` has been reached, or the sender is gone.
pub async fn reached(mut phases: watch::Receiver<Phase>, phase: Phase) {
    // An error means that the sender is gone: whoever waits should end too.
    let _ = phases.wait_for(|now| *now >= phase).await;
}

/// Waits for SIGTERM or SIGINT; returns its name.
pub async fn signalled() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}
