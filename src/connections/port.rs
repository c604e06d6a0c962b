//! Who is let in: the connections of a port, and the place that each has until it ends.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::Counter;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

use super::Limits;
use super::peer::{Peer, Why};
use super::tls::Tls;
use crate::clock::Clock;
use crate::telemetry::metrics::Metrics;

/// Pause after a failed accept (out of file descriptors, say), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Failed accepts are logged at most once in this time.
const ACCEPT_LOG: Duration = Duration::from_secs(10);

/// How long a full port waits before it looks again for a connection that it can end.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// What the connections of a port have in common.
pub(super) struct Port {
    pub(super) limits: Limits,
    pub(super) tls: Option<Tls>,
    permits: Arc<Semaphore>,
    open: Mutex<HashMap<u64, Arc<Peer>>>,
    /// Of the next connection.
    number: AtomicU64,
    pub(super) clock: Clock,
    ended: [(Why, Counter); Why::ALL.len()],
    pub(super) untaken: Counter,
    unlogged: Mutex<Unlogged>,
}

/// Failed accepts since the log was last told.
#[derive(Default)]
struct Unlogged {
    failed: u64,
    since: Option<Instant>,
}

/// A connection's place in its port until dropped.
pub(super) struct Place {
    pub(super) port: Arc<Port>,
    number: u64,
    pub(super) peer: Arc<Peer>,
    _permit: OwnedSemaphorePermit,
}

impl Port {
    pub(super) fn new(
        name: &'static str,
        limits: Limits,
        tls: Option<Tls>,
        clock: Clock,
        metrics: &Metrics,
    ) -> Arc<Port> {
        let permits = Arc::new(Semaphore::new(limits.connections));
        let (free, all) = (permits.clone(), limits.connections);
        metrics.sample_connections(name, move || all.saturating_sub(free.available_permits()));
        let ended = Why::ALL.map(|why| {
            let counter = metrics.connections_ended(name, why.as_str());
            counter.increment(0);
            (why, counter)
        });
        let untaken = metrics.expirations("reply");
        untaken.increment(0);
        let (open, number) = (Mutex::default(), AtomicU64::new(0));
        Arc::new(Port {
            limits,
            tls,
            permits,
            open,
            number,
            clock,
            ended,
            untaken,
            unlogged: Mutex::default(),
        })
    }

    /// The next connection, and its place.
    pub(super) async fn next(self: &Arc<Self>, listener: &TcpListener) -> (TcpStream, Place) {
        let (stream, address) = self.accept(listener).await;
        let permit = self.room().await;
        let peer = Arc::new(Peer::new(address, self.clock));
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        self.open().insert(number, peer.clone());
        (stream, Place { port: self.clone(), number, peer, _permit: permit })
    }

    async fn accept(&self, listener: &TcpListener) -> (TcpStream, SocketAddr) {
        loop {
            let accepted = listener.accept().await;
            let accepted =
                accepted.and_then(|(stream, address)| stream.set_nodelay(true).map(|()| (stream, address)));
            match accepted {
                Ok(accepted) => return accepted,
                Err(error) => self.not_accepted(&error),
            }
            sleep(ACCEPT_PAUSE).await;
        }
    }

    fn not_accepted(&self, error: &std::io::Error) {
        let mut unlogged = self.unlogged.lock().unwrap_or_else(PoisonError::into_inner);
        unlogged.failed += 1;
        if unlogged.since.is_none_or(|since| since.elapsed() >= ACCEPT_LOG) {
            tracing::warn!(%error, failed = unlogged.failed, "connections are not accepted");
            *unlogged = Unlogged { failed: 0, since: Some(Instant::now()) };
        }
    }

    async fn room(&self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(permit) = self.permits.clone().try_acquire_owned() {
                return permit;
            }
            self.evict_one();
            tokio::select! {
                biased;
                permit = self.permits.clone().acquire_owned() => if let Ok(permit) = permit { return permit },
                () = sleep(FULL_PAUSE) => {}
            }
        }
    }

    /// Ends the connection that has been without a call for longest, if there is one.
    fn evict_one(&self) {
        let open = self.open();
        let idle = open.values().filter_map(|peer| Some((peer.idle()?, peer)));
        if let Some((_, peer)) = idle.min_by_key(|(since, _)| *since) {
            peer.evict();
        }
    }

    pub(super) fn count(&self, why: Why) {
        self.ended.iter().filter(|(each, _)| *each == why).for_each(|(_, counter)| counter.increment(1));
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<Peer>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.port.open().remove(&self.number);
    }
}
