//! The flow of a bidirectional stream: inputs in, results out as they are ready.
//!
//! It does not know what an input is; `service` gives it the function that answers one.
//!
//! A stream has a window of inputs without an answer. When it is full, or when the server holds as many bytes
//! of requests as it may, the next message stays unread, HTTP/2's window fills, and the client's writes wait.
//! An answer that the client does not read keeps its place in the window, so a slow reader slows its own
//! sender and nothing else. Every input runs in a task of its own: were it polled by the response, an unread
//! response would hold a preprocessing thread. Dropping the stream drops the tasks, which cancels their jobs.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tonic::{Status, Streaming};

use crate::clock::{Clock, Timestamp};
use crate::shutdown::{self, Phase};

/// Results as they are ready, then the status, if it is not OK.
pub(super) type Responses<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

/// What bounds a stream.
#[derive(Clone)]
pub(super) struct Terms {
    /// Inputs that may be without an answer.
    pub(super) window: usize,
    /// The server's store of permits for bytes of requests.
    pub(super) bytes: Arc<Semaphore>,
    /// The client's deadline for the whole stream.
    pub(super) ends_by: Option<Timestamp>,
    pub(super) max_age: Option<Duration>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) clock: Clock,
}

impl Terms {
    /// Waits until the stream must stop reading; returns the status that it ends with.
    async fn stop(self) -> Status {
        let again = "send the inputs without an answer again";
        let until = |at: Option<Timestamp>| async move {
            match at.and_then(|at| self.clock.instant(at)) {
                Some(instant) => tokio::time::sleep_until(instant.into()).await,
                None => std::future::pending().await,
            }
        };
        let old = self.max_age.map(|age| self.clock.now().saturating_add(age));
        tokio::select! {
            () = shutdown::reached(self.phase, Phase::Stopping) => {
                Status::unavailable(format!("the server is shutting down; {again}"))
            }
            () = until(old) => Status::unavailable(format!("the stream has reached its age limit; {again}")),
            () = until(self.ends_by) => Status::deadline_exceeded("the stream's deadline passed"),
        }
    }
}

/// Answers every message of `inbound` with `process`, until the client half-closes or the terms say stop;
/// what was read is answered before the stream ends.
pub(super) fn respond<M, R, P>(inbound: Streaming<M>, terms: Terms, process: P) -> Responses<R>
where
    M: Message + Default + 'static,
    R: Send + 'static,
    P: AsyncProcess<M, R>,
{
    let flow = Flow {
        stop: Box::pin(terms.clone().stop()),
        inbound,
        terms,
        process,
        running: JoinSet::new(),
        next: None,
        end: None,
    };
    Box::pin(stream::unfold(flow, |mut flow| async move { Some((flow.next().await?, flow)) }))
}

/// A function that answers one message with one result.
pub(super) trait AsyncProcess<M, R>: Send + 'static {
    fn start(&self, message: M) -> Result<impl Future<Output = R> + Send + 'static, Status>;
}

struct Flow<M, R, P> {
    inbound: Streaming<M>,
    terms: Terms,
    process: P,
    stop: Pin<Box<dyn Future<Output = Status> + Send>>,
    /// Running, or ready and not yet taken by the client.
    running: JoinSet<R>,
    /// Read, and waiting for permits for its bytes.
    next: Option<M>,
    /// Set once nothing more is read: how the stream ends, `Ok` for half-closed.
    end: Option<Result<(), Status>>,
}

impl<M, R, P> Flow<M, R, P>
where
    M: Message + Default + 'static,
    R: Send + 'static,
    P: AsyncProcess<M, R>,
{
    async fn next(&mut self) -> Option<Result<R, Status>> {
        loop {
            let room = self.running.len() < self.terms.window;
            let reading = self.end.is_none() && self.next.is_none() && room;
            let bytes = self.next.as_ref().map_or(0, Message::encoded_len);
            let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
            tokio::select! {
                Some(done) = self.running.join_next() => match done {
                    Ok(result) => return Some(Ok(result)),
                    Err(error) => {
                        tracing::error!(%error, "an input of a stream panicked");
                        self.end = Some(Err(Status::internal("internal error; the server's log has the cause")));
                    }
                },
                permit = self.terms.bytes.clone().acquire_many_owned(permits), if self.next.is_some() => {
                    if let (Some(message), Ok(permit)) = (self.next.take(), permit) {
                        self.start(message, permit);
                    }
                }
                message = self.inbound.message(), if reading => match message {
                    Ok(Some(message)) => self.next = Some(message),
                    Ok(None) => self.end = Some(Ok(())),
                    Err(status) => self.end = Some(Err(status)),
                },
                status = &mut self.stop, if self.end.is_none() => self.end = Some(Err(status)),
                // Nothing runs and nothing more is read.
                else => return self.end.replace(Ok(()))?.err().map(Err),
            }
        }
    }

    /// The permit goes back when the input is answered.
    fn start(&mut self, message: M, permit: OwnedSemaphorePermit) {
        match self.process.start(message) {
            Ok(answer) => {
                self.running.spawn(async move {
                    let _permit = permit;
                    answer.await
                });
            }
            Err(status) => self.end = Some(Err(status)),
        }
    }
}
