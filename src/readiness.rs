//! What the state of the server means to those who send it calls: one answer for gRPC's health service, `/livez`,
//! `/readyz` and the metrics.

use tokio::sync::watch;

use crate::batcher::Workers;
use crate::shutdown::Phase;

/// Says at any time in which state the server is. Cheap to clone.
#[derive(Clone)]
pub struct Readiness {
    phase: watch::Receiver<Phase>,
    workers: watch::Receiver<Workers>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Some worker is not warm yet, or there is no model yet.
    Starting,
    Ready,
    /// Calls are still answered; load balancers are to look elsewhere.
    Draining,
    /// Every worker is lost: the server will end by itself.
    Lost,
}

impl State {
    pub fn is_ready(self) -> bool {
        self == State::Ready
    }

    /// Not so that a server that warms up or drains is killed.
    pub fn is_alive(self) -> bool {
        self != State::Lost
    }

    /// For a person.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Ready => "ready",
            State::Draining => "draining",
            State::Lost => "every worker is lost",
        }
    }
}

impl Readiness {
    pub fn new(phase: watch::Receiver<Phase>, workers: watch::Receiver<Workers>) -> Readiness {
        Readiness { phase, workers }
    }

    pub fn now(&self) -> State {
        if self.workers.borrow().all_lost() {
            return State::Lost;
        }
        match *self.phase.borrow() {
            Phase::Starting => State::Starting,
            Phase::Serving => State::Ready,
            Phase::Leaving | Phase::Stopping | Phase::Over => State::Draining,
        }
    }

    /// Waits until the state is another than `last`. `None`: the server stops.
    pub async fn after(&mut self, last: State) -> Option<State> {
        loop {
            if *self.phase.borrow_and_update() >= Phase::Stopping {
                return None;
            }
            self.workers.mark_unchanged();
            let now = self.now();
            if now != last {
                return Some(now);
            }
            // The senders live as long as the server; should one be gone, the server is stopping.
            tokio::select! {
                changed = self.workers.changed() => changed.ok()?,
                changed = self.phase.changed() => changed.ok()?,
            }
        }
    }
}
