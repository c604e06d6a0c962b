//! One connection as its port and its calls see it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::Notify;

use super::Clocks;
use crate::clock::{Clock, Timestamp};

/// Whom a request comes from: in its extensions as `Arc<Peer>`.
pub struct Peer {
    pub address: SocketAddr,
    clock: Clock,
    accepted: Timestamp,
    evict: Notify,
    state: Mutex<State>,
}

struct State {
    next: u64,
    /// Requests without their whole answer, and of those that have one, the answer.
    open: BTreeMap<u64, Option<Arc<dyn Untaken>>>,
    /// Calls in flight: the method and the id of the request.
    calls: BTreeMap<u64, (&'static str, HeaderValue)>,
    /// Whether there was a request.
    used: bool,
    /// When the last request or call ended.
    quiet_since: Timestamp,
}

/// An answer that waits for its client.
pub(super) trait Untaken: Send + Sync {
    /// Drops it, if it has waited for longer than `patience`; whether it did.
    fn drop_if_overdue(&self, now: Timestamp, patience: Duration) -> bool;
}

/// Why a connection is ended; a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Handshake,
    FirstRequest,
    Idle,
    Age,
    Answer,
    Full,
    Shutdown,
}

impl Why {
    pub(super) const ALL: [Why; 7] =
        [Why::Handshake, Why::FirstRequest, Why::Idle, Why::Age, Why::Answer, Why::Full, Why::Shutdown];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Why::Handshake => "handshake",
            Why::FirstRequest => "first_request",
            Why::Idle => "idle",
            Why::Age => "age",
            Why::Answer => "answer",
            Why::Full => "full",
            Why::Shutdown => "shutdown",
        }
    }
}

impl Peer {
    pub(super) fn new(address: SocketAddr, clock: Clock) -> Peer {
        let accepted = clock.now();
        let state = State {
            next: 0,
            open: BTreeMap::new(),
            calls: BTreeMap::new(),
            used: false,
            quiet_since: accepted,
        };
        Peer { address, clock, accepted, evict: Notify::new(), state: Mutex::new(state) }
    }

    /// Counts a call of that method as in flight until dropped: a shutdown waits for it.
    pub fn call(self: &Arc<Self>, method: &'static str, request_id: HeaderValue) -> Call {
        let mut state = self.state();
        let number = state.number();
        state.calls.insert(number, (method, request_id));
        Call { peer: self.clone(), number }
    }

    pub(super) fn calls(&self) -> usize {
        self.state().calls.len()
    }

    /// Names the calls in flight in the log, and counts them.
    pub(super) fn cut(&self) -> usize {
        let state = self.state();
        for (method, request_id) in state.calls.values() {
            let request_id = request_id.to_str().unwrap_or_default();
            let peer = self.address;
            tracing::warn!(method, request_id, %peer, "a call is cut off: the grace period is over");
        }
        state.calls.len()
    }

    /// Since when there has been no call; those with a request, such as a watch, come last. `None`: there is a call.
    pub(super) fn idle(&self) -> Option<(bool, Timestamp)> {
        let state = self.state();
        state.calls.is_empty().then(|| (!state.open.is_empty(), state.quiet_since))
    }

    /// Asks the connection to end at once.
    pub(super) fn evict(&self) {
        self.evict.notify_one();
    }

    pub(super) async fn evicted(self: Arc<Self>) {
        self.evict.notified().await;
    }

    /// Drops the answers that have waited for too long, and says how many.
    pub(super) fn drop_untaken(&self, now: Timestamp, patience: Duration) -> usize {
        let answers: Vec<_> = self.state().open.values().flatten().cloned().collect();
        answers.iter().filter(|answer| answer.drop_if_overdue(now, patience)).count()
    }

    /// Which clock has run out.
    pub(super) fn overdue(&self, now: Timestamp, clocks: &Clocks) -> Option<Why> {
        let state = self.state();
        let quiet = state.open.is_empty();
        let late = |limit: Duration| now.since(state.quiet_since) > limit;
        if clocks.max_age.is_some_and(|age| now.since(self.accepted) > age) {
            return Some(Why::Age);
        }
        match state.used {
            false => late(clocks.first_request).then_some(Why::FirstRequest),
            true => (quiet && late(clocks.idle)).then_some(Why::Idle),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// A call in flight until dropped.
pub struct Call {
    peer: Arc<Peer>,
    number: u64,
}

impl Drop for Call {
    fn drop(&mut self) {
        let now = self.peer.clock.now();
        let mut state = self.peer.state();
        state.calls.remove(&self.number);
        state.quiet_since = now;
    }
}

/// A request without its whole answer, until dropped.
pub(super) struct Open {
    peer: Arc<Peer>,
    number: u64,
}

impl Open {
    pub(super) fn new(peer: Arc<Peer>) -> Open {
        let mut state = peer.state();
        let number = state.number();
        state.open.insert(number, None);
        state.used = true;
        drop(state);
        Open { peer, number }
    }

    pub(super) fn answered(&self, answer: Arc<dyn Untaken>) {
        self.peer.state().open.insert(self.number, Some(answer));
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let now = self.peer.clock.now();
        let mut state = self.peer.state();
        // Dropped after the lock is free: what an answer holds may lock it too.
        let answer = state.open.remove(&self.number);
        state.quiet_since = now;
        drop(state);
        drop(answer);
    }
}
