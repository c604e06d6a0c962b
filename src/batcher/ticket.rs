//! What a caller holds of a job: a future of its outcome, which cancels the job when it is dropped.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crossbeam_channel::Sender;
use tokio::sync::oneshot;

use super::{Command, Embedded, JobError};
use crate::scheduler::JobId;

/// Resolves to the one outcome of a job. Dropping it cancels the job.
#[derive(Debug)]
pub struct Ticket {
    pub(super) id: JobId,
    pub(super) reply: oneshot::Receiver<Result<Embedded, JobError>>,
    /// Taken once the job has its outcome.
    pub(super) cancel: Option<Sender<Command>>,
}

impl Ticket {
    /// Drops it without a word to the scheduler, which never heard of the job.
    pub(super) fn forget(mut self) {
        self.cancel = None;
    }
}

impl Future for Ticket {
    type Output = Result<Embedded, JobError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = std::task::ready!(Pin::new(&mut self.reply).poll(context));
        self.cancel = None;
        // A reply channel closes unanswered only when the thread that held it is gone.
        Poll::Ready(outcome.unwrap_or(Err(JobError::WorkerLost)))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(commands) = self.cancel.take() {
            // Best effort: if the channel is full, the job is found to be abandoned when its batch forms.
            let _ = commands.try_send(Command::Cancel(self.id));
        }
    }
}
