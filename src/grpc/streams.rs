//! The flow of a bidirectional stream: inputs in, results out as they are ready.
//!
//! It does not know what an input is; `service` gives it the function that answers one.
//!
//! A stream has a window of inputs without an answer. When it is full, or when the server holds as many bytes
//! of requests as it may, the next message stays unread, HTTP/2's window fills, and the client's writes wait.
//! An answer that the client does not read keeps its place in the window, so a slow reader slows its own
//! sender and nothing else. Every input runs in a task of its own: were it polled by the response, an unread
//! response would hold a preprocessing thread. Dropping the stream drops the tasks, which cancels their jobs.
//!
//! The terms of a stream hold from its beginning, so also while its first message has not come.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::stream::{self, Stream};
use prost::Message;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, watch};
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
    pub(super) request_bytes: Arc<Semaphore>,
    /// The same for answers.
    pub(super) response_bytes: Arc<Semaphore>,
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

    /// Waits for room for the bytes of a request.
    fn hold_request(&self, message: &impl Message) -> Acquiring {
        Box::pin(self.request_bytes.clone().acquire_many_owned(permits(message.encoded_len())))
    }
}

type Stop = Pin<Box<dyn Future<Output = Status> + Send>>;

/// One that is dropped loses its place in line, so it is kept until it is done.
type Acquiring = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Answers every message of `inbound` with `process`, until the client half-closes or the terms say stop;
/// what was read is answered before the stream ends. An error of `process` ends the stream.
pub(super) fn respond<M, R, P, F>(inbound: Streaming<M>, terms: Terms, process: P) -> Responses<R>
where
    M: Message + Default + 'static,
    R: Message + 'static,
    P: Fn(M) -> Result<F, Status> + Send + 'static,
    F: Future<Output = R> + Send + 'static,
{
    let stop = Box::pin(terms.clone().stop());
    flow(inbound, terms, stop, process)
}

/// As `respond`, where the first message says how the others are answered.
pub(super) fn respond_opened<M, R, O, P, F>(
    mut inbound: Streaming<M>,
    terms: Terms,
    open: impl FnOnce(M) -> O + Send + 'static,
) -> Responses<R>
where
    M: Message + Default + 'static,
    R: Message + 'static,
    O: Future<Output = Result<P, Status>> + Send,
    P: Fn(M) -> Result<F, Status> + Send + 'static,
    F: Future<Output = R> + Send + 'static,
{
    let opened = async move {
        let mut stop: Stop = Box::pin(terms.clone().stop());
        let opening = async {
            let Some(first) = inbound.message().await? else { return Ok(None) };
            // Given back when it is opened: what the stream keeps of it is counted on its own.
            let _permit = terms.hold_request(&first).await;
            open(first).await.map(Some)
        };
        let process = tokio::select! {
            status = &mut stop => Err(status),
            process = opening => process,
        };
        Ok::<Responses<R>, Status>(match process? {
            Some(process) => flow(inbound, terms, stop, process),
            None => Box::pin(stream::empty()),
        })
    };
    Box::pin(stream::once(opened).try_flatten())
}

fn flow<M, R, P, F>(inbound: Streaming<M>, terms: Terms, stop: Stop, process: P) -> Responses<R>
where
    M: Message + Default + 'static,
    R: Message + 'static,
    P: Fn(M) -> Result<F, Status> + Send + 'static,
    F: Future<Output = R> + Send + 'static,
{
    let flow = Flow {
        stop,
        inbound,
        terms,
        process,
        running: JoinSet::new(),
        next: None,
        end: End::Reading,
        _handed_over: None,
    };
    Box::pin(stream::unfold(flow, |mut flow| async move { Some((flow.next().await?, flow)) }))
}

struct Flow<M, R, P> {
    inbound: Streaming<M>,
    terms: Terms,
    process: P,
    stop: Stop,
    /// Running, or ready and not yet taken by the client; then with the permit for its bytes.
    running: JoinSet<(R, Option<OwnedSemaphorePermit>)>,
    /// Read, and waiting for permits for its bytes.
    next: Option<(M, Acquiring)>,
    end: End,
    /// For the bytes of the answer before: it has been sent when the next one is asked for.
    _handed_over: Option<OwnedSemaphorePermit>,
}

enum End {
    Reading,
    /// Nothing more comes.
    HalfClosed,
    /// Nothing more is read.
    Stopped(Status),
    Told,
}

impl<M, R, P, F> Flow<M, R, P>
where
    M: Message + Default + 'static,
    R: Message + 'static,
    P: Fn(M) -> Result<F, Status>,
    F: Future<Output = R> + Send + 'static,
{
    async fn next(&mut self) -> Option<Result<R, Status>> {
        self._handed_over = None;
        loop {
            let open = matches!(self.end, End::Reading);
            let reading = open && self.next.is_none() && self.running.len() < self.terms.window;
            let waiting = self.next.is_some();
            let room = async {
                match &mut self.next {
                    Some((_, room)) => room.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(done) = self.running.join_next() => match done {
                    Ok((result, permit)) => {
                        self._handed_over = permit;
                        return Some(Ok(result));
                    }
                    Err(error) => {
                        tracing::error!(%error, "an input of a stream panicked");
                        self.stop(Status::internal("internal error; the server's log has the cause"));
                    }
                },
                permit = room, if waiting => {
                    if let (Some((message, _)), Ok(permit)) = (self.next.take(), permit) {
                        self.start(message, permit);
                    }
                }
                message = self.inbound.message(), if reading => match message {
                    Ok(Some(message)) => {
                        let room = self.terms.hold_request(&message);
                        self.next = Some((message, room));
                    }
                    Ok(None) => self.end = End::HalfClosed,
                    Err(status) => self.stop(status),
                },
                status = &mut self.stop, if open => self.stop(status),
                // Nothing runs and nothing more is read.
                else => return match std::mem::replace(&mut self.end, End::Told) {
                    End::Stopped(status) => Some(Err(status)),
                    End::Reading | End::HalfClosed | End::Told => None,
                },
            }
        }
    }

    fn stop(&mut self, status: Status) {
        self.end = End::Stopped(status);
    }

    /// The permit goes back when the input is answered; then the answer needs one, and waits for it here.
    fn start(&mut self, message: M, permit: OwnedSemaphorePermit) {
        match (self.process)(message) {
            Ok(answer) => {
                let response_bytes = self.terms.response_bytes.clone();
                self.running.spawn(async move {
                    let answer = answer.await;
                    drop(permit);
                    let room = response_bytes.acquire_many_owned(permits(answer.encoded_len())).await;
                    (answer, room.ok())
                });
            }
            Err(status) => self.stop(status),
        }
    }
}
