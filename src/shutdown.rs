//! Signals, and the phases in which a server lives and ends.
//!
//! It says when; `app` does what each phase asks for.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Only ever advances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The model is loaded and the workers warm up: a connection to the gRPC port is refused.
    Starting,
    Serving,
    /// Not ready any more, still answering: load balancers are to look elsewhere.
    Leaving,
    /// No new connections or calls; calls in flight are answered.
    Stopping,
    /// The grace period is over: calls in flight are cut off.
    Over,
}

/// Goes on to `phase`, unless the server is further already.
pub fn advance(phases: &watch::Sender<Phase>, phase: Phase) {
    phases.send_if_modified(|now| {
        let behind = *now < phase;
        if behind {
            *now = phase;
        }
        behind
    });
}

/// Returns once `phase` has been reached, or the sender is gone.
pub async fn reached(mut phases: watch::Receiver<Phase>, phase: Phase) {
    // An error means that the sender is gone: whoever waits should end too.
    let _ = phases.wait_for(|now| *now >= phase).await;
}

/// SIGTERM and SIGINT, which ask for the end, and SIGHUP. From its making on they no longer end the process by
/// themselves, and none is missed.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Must be called inside a tokio runtime.
    pub fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The name of the next signal that asks for the end.
    pub async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => tracing::debug!("SIGHUP: the keys are read again, if there are any"),
            }
        }
    }
}
