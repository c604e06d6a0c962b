//! One connection as its port and its calls see it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use http::{HeaderValue, Version};
use tokio::sync::Notify;

use super::Clocks;
use crate::clock::{Clock, Timestamp};

/// Whom a request comes from: in its extensions as `Arc<Peer>`.
pub struct Peer {
    pub address: SocketAddr,
    /// Those of its certificate.
    names: OnceLock<Vec<String>>,
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
    /// Whether requests come one after the other, over HTTP/1.
    one_by_one: bool,
    /// Whether the next answer is to be the last, where requests come one by one.
    asked_to_go: bool,
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
            one_by_one: false,
            asked_to_go: false,
            quiet_since: accepted,
        };
        Peer {
            address,
            names: OnceLock::new(),
            clock,
            accepted,
            evict: Notify::new(),
            state: Mutex::new(state),
        }
    }

    /// Of a host or a URI, as its certificate has them; none where there is none.
    pub fn names(&self) -> &[String] {
        self.names.get().map_or(&[], Vec::as_slice)
    }

    pub(super) fn is_called(&self, names: Vec<String>) {
        // Only its own handshake says so.
        let _ = self.names.set(names);
    }

    /// Counts a call of that method as in flight until dropped: a shutdown waits for it.
    pub fn call(self: &Arc<Self>, method: &'static str, request_id: HeaderValue) -> Call {
        let mut state = self.state();
        let number = state.number();
        state.calls.insert(number, (method, request_id));
        Call { peer: self.clone(), number }
    }

    /// For how long there has been no call; zero while there is one.
    pub(super) fn quiet(&self, now: Timestamp) -> Duration {
        let state = self.state();
        if state.calls.is_empty() { now.since(state.quiet_since) } else { Duration::ZERO }
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

    /// Whether requests come one after the other, over HTTP/1. Ending such a connection loses what its client is just
    /// sending; HTTP/2 says which requests were not seen.
    pub(super) fn is_one_by_one(&self) -> bool {
        self.state().one_by_one
    }

    /// From now on an answer says that it is the last, where requests come one by one.
    pub(super) fn ask_to_go(&self) {
        self.state().asked_to_go = true;
    }

    /// Whether an answer that begins now is to say so.
    pub(super) fn is_last(&self) -> bool {
        let state = self.state();
        state.one_by_one && state.asked_to_go
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
        if !state.asked_to_go && clocks.max_age.is_some_and(|age| now.since(self.accepted) > age) {
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
    /// Of a request of this version.
    pub(super) fn new(peer: Arc<Peer>, version: Version) -> Open {
        let mut state = peer.state();
        state.one_by_one = version < Version::HTTP_2;
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
