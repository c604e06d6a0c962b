//! Sends the requests of one load: in a closed loop, or at planned times whatever the server does.
//!
//! It knows nothing of what a request asks for. What is in flight is bounded: an open loop does not wait for
//! answers, and what would be too many is counted as not sent. A load ends when its last request has an outcome,
//! which the deadline of every request sees to.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::{Code, Request, Status};

use super::Error;
use super::edge::Sender;
use super::progress::Progress;
use super::tally::{Counts, Outcome, Tally};
use super::workload::Call;
use crate::cli::client::Client;
use crate::clock::{Clock, Timestamp};
use crate::code::Code as Ending;
use crate::grpc::proto::{self, classify_result, embed_result};

/// Requests in flight on one connection of an open loop. clipd takes 256 by default (`--max-concurrent-streams`),
/// and what is more would wait in the client. The default connections can so ask for more than a server serves
/// at a time, which shows how it refuses.
const IN_FLIGHT_PER_CONNECTION: usize = 250;

/// A client of a closed loop that is turned away comes back after this time, not at once.
const PAUSE: Duration = Duration::from_millis(10);

/// Where requests go, and what they have in common. Clones are cheap and the same generator.
#[derive(Clone)]
pub(super) struct Generator {
    pub(super) clients: Arc<[Sender]>,
    pub(super) timeout: Duration,
    pub(super) slo: Duration,
    pub(super) clock: Clock,
}

/// When a closed loop stops sending.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) duration: Duration,
    pub(super) requests: usize,
}

/// What became of a load.
pub(super) struct Measured {
    pub(super) counts: Counts,
    /// From the beginning to the last outcome, or to the end of the plan if that is later.
    pub(super) elapsed: Duration,
}

/// One load while it runs.
struct Load {
    generator: Generator,
    calls: Arc<[Call]>,
    tally: Mutex<Tally>,
    progress: Progress,
}

impl Generator {
    /// `concurrency` clients; each sends its next request when it has the answer to the last.
    pub(super) async fn closed(
        &self,
        calls: &Arc<[Call]>,
        concurrency: u32,
        bounds: Bounds,
        progress: &Progress,
    ) -> Result<Measured, Error> {
        let load = self.load(calls, progress);
        let clock = self.clock;
        let start = clock.now();
        let end = start.saturating_add(bounds.duration);
        let next = Arc::new(AtomicUsize::new(0));
        let mut clients = JoinSet::new();
        for _ in 0..concurrency {
            let (load, next) = (load.clone(), next.clone());
            clients.spawn(async move {
                while clock.now() < end {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= bounds.requests {
                        break;
                    }
                    let sent = clock.now();
                    if load.run(index, sent).await == Outcome::Shed {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            });
        }
        while let Some(ended) = clients.join_next().await {
            ended.map_err(|error| Error::Other(error.to_string()))?;
        }
        Ok(Measured { counts: load.tally().counts(), elapsed: clock.now().since(start) })
    }

    /// A request at each time of `plan`.
    pub(super) async fn open(
        &self,
        calls: &Arc<[Call]>,
        plan: Vec<Duration>,
        progress: &Progress,
    ) -> Result<Measured, Error> {
        let load = self.load(calls, progress);
        let most = IN_FLIGHT_PER_CONNECTION * self.clients.len();
        let places = Arc::new(Semaphore::new(most));
        let (start, runtime) = (self.clock.now(), tokio::runtime::Handle::current());
        let send = {
            let (load, places) = (load.clone(), places.clone());
            move |index: usize, intended: Timestamp| {
                let Ok(place) = places.clone().try_acquire_owned() else {
                    load.tally().unsent();
                    return;
                };
                load.tally().late(load.generator.clock.now().since(intended));
                let load = load.clone();
                runtime.spawn(async move {
                    load.run(index, intended).await;
                    drop(place);
                });
            }
        };
        // Dropped with this future, which ends the pacing thread.
        let (_stop, stopped) = mpsc::sync_channel(0);
        let clock = self.clock;
        tokio::task::spawn_blocking(move || pace(&plan, start, clock, &stopped, send))
            .await
            .map_err(|error| Error::Other(error.to_string()))?;
        // Every place is free again once the last request has its outcome.
        let all = u32::try_from(most).unwrap_or(u32::MAX);
        let _all = places.acquire_many(all).await.map_err(|error| Error::Other(error.to_string()))?;
        Ok(Measured { counts: load.tally().counts(), elapsed: clock.now().since(start) })
    }

    fn load(&self, calls: &Arc<[Call]>, progress: &Progress) -> Arc<Load> {
        Arc::new(Load {
            generator: self.clone(),
            calls: calls.clone(),
            tally: Mutex::new(Tally::new(self.slo)),
            progress: progress.clone(),
        })
    }
}

/// Calls `send` at each time of `plan`, or soon after. Blocks its thread: timers of the async runtime are late
/// by up to a millisecond, which is as long as some answers take.
fn pace(
    plan: &[Duration],
    start: Timestamp,
    clock: Clock,
    stopped: &Receiver<Infallible>,
    mut send: impl FnMut(usize, Timestamp),
) {
    for (index, offset) in plan.iter().enumerate() {
        let intended = start.saturating_add(*offset);
        loop {
            let wait = intended.since(clock.now());
            if wait.is_zero() {
                break;
            }
            if stopped.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
        send(index, intended);
    }
}

impl Load {
    /// Sends one request; its time counts from `since`.
    async fn run(&self, index: usize, since: Timestamp) -> Outcome {
        let generator = &self.generator;
        let client = generator.clients[index % generator.clients.len()].clone();
        let call = self.calls[index % self.calls.len()].clone();
        let outcome = match (client, call) {
            (Sender::Http(client), Call::Json(call)) => client.send(call, generator.timeout).await,
            (Sender::Grpc(client), call) => send(client, call, generator.timeout).await,
            (Sender::Http(_), _) => unreachable!("calls are made for the edge that they go over"),
        };
        self.tally().record(outcome, generator.clock.now().since(since));
        self.progress.advance();
        outcome
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn send(mut client: Client, call: Call, timeout: Duration) -> Outcome {
    let answer = match call {
        Call::Json(_) => unreachable!("calls are made for the edge that they go over"),
        Call::Embed(message) => client.embed(within(timeout, message)).await.map(|answer| {
            let results = answer.into_inner().results;
            input_error(results.into_iter().map(|result| match result.result {
                Some(embed_result::Result::Embedding(_)) => Ok(()),
                Some(embed_result::Result::Error(error)) => Err(Some(error)),
                None => Err(None),
            }))
        }),
        Call::Classify(message) => client.classify(within(timeout, message)).await.map(|answer| {
            let results = answer.into_inner().results;
            input_error(results.into_iter().map(|result| match result.result {
                Some(classify_result::Result::Predictions(_)) => Ok(()),
                Some(classify_result::Result::Error(error)) => Err(Some(error)),
                None => Err(None),
            }))
        }),
    };
    match answer {
        Ok(None) => Outcome::Answered,
        Ok(Some(code)) => Outcome::Failed(Ending::from_number(code as i32).as_str()),
        Err(status) => of_status(&status),
    }
}

fn within<T>(timeout: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// The code of the first input without a result. A call of one input has one result.
fn input_error(results: impl Iterator<Item = Result<(), Option<proto::Error>>>) -> Option<Code> {
    let mut results = results.peekable();
    if results.peek().is_none() {
        return Some(Code::Unknown);
    }
    let error = results.find_map(Result::err)?;
    Some(error.map_or(Code::Unknown, |error| Code::from_i32(error.code)))
}

fn of_status(status: &Status) -> Outcome {
    match status.code() {
        Code::ResourceExhausted => Outcome::Shed,
        // Nobody cancels a call here but the client's own timer.
        Code::DeadlineExceeded | Code::Cancelled => Outcome::Expired,
        code => Outcome::Failed(Ending::from_number(code as i32).as_str()),
    }
}
