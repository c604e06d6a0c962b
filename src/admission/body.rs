//! The bodies of a call: the request's is metered, and the answer's keeps the call alive until it is sent.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{sleep, sleep_until};

use super::admitted::Admitted;
use super::pass::Pass;
use super::refusal::Refusal;
use crate::class::Class;
use crate::code::Code;
use crate::shutdown::{self, Phase};

/// How long a request that is on its way is still waited for once the server stops.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// Why a request did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum Fault<E> {
    #[error(transparent)]
    Refused(Refusal),
    #[error("the request did not arrive before the deadline")]
    TooLate,
    #[error("the server is shutting down, and the request had not arrived")]
    Stopping,
    #[error(transparent)]
    Broken(E),
}

/// A request body that takes permits for the bytes it delivers, and fails when there are none, or when it has not
/// arrived by the deadline: a client that stalls must not keep its place for ever.
pub struct Metered<B> {
    body: B,
    admitted: Admitted,
    /// Made when the body makes us wait.
    overdue: Option<Pin<Box<dyn Future<Output = Overdue> + Send>>>,
}

enum Overdue {
    TooLate,
    Stopping,
}

impl<B> Metered<B> {
    pub fn new(body: B, admitted: Admitted) -> Metered<B> {
        Metered { body, admitted, overdue: None }
    }
}

impl Admitted {
    /// Waits for as long as a request is waited for.
    fn overdue(&self) -> impl Future<Output = Overdue> + Send + 'static {
        let (clock, phase) = (self.store.clock, self.store.phase.clone());
        let end = self.call_deadline(Class::default()).reply_by;
        async move {
            let late = async {
                match clock.instant(end) {
                    Some(instant) => sleep_until(instant.into()).await,
                    // Beyond what the platform's clock can say.
                    None => std::future::pending().await,
                }
            };
            let stopping = async {
                shutdown::reached(phase, Phase::Stopping).await;
                sleep(LAST_BYTES).await;
            };
            tokio::select! {
                () = late => Overdue::TooLate,
                () = stopping => Overdue::Stopping,
            }
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Metered<B> {
    type Data = Bytes;
    type Error = Fault<B::Error>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault<B::Error>>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
            let overdue = this.overdue.get_or_insert_with(|| Box::pin(this.admitted.overdue()));
            return match ready!(overdue.as_mut().poll(context)) {
                Overdue::TooLate => {
                    this.admitted.store.expired.increment(1);
                    Poll::Ready(Some(Err(Fault::TooLate)))
                }
                Overdue::Stopping => Poll::Ready(Some(Err(Fault::Stopping))),
            };
        };
        if let Some(Ok(frame)) = &frame
            && let Some(bytes) = frame.data_ref()
        {
            this.admitted.hold_request(bytes.len()).map_err(Fault::Refused)?;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Fault::Broken)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How an answer's body says how the call ended.
#[derive(Clone, Copy)]
pub enum Status {
    /// It is known, and true once all is sent.
    Known(Code),
    /// The trailers tell.
    InTrailers(fn(&HeaderMap) -> Option<Code>),
}

/// A response body that keeps its call alive, and sees how it ends.
pub struct Counted<B> {
    body: B,
    pass: Pass,
    status: Status,
}

impl<B> Counted<B> {
    pub fn new(body: B, mut pass: Pass, status: Status) -> Counted<B> {
        pass.answer();
        Counted { body, pass, status }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Counted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let code = match (self.status, &frame) {
            (Status::Known(code), None) => Some(code),
            (Status::Known(code), Some(Ok(_))) => self.body.is_end_stream().then_some(code),
            (Status::InTrailers(code), Some(Ok(frame))) => frame.trailers_ref().and_then(code),
            _ => None,
        };
        if let Some(code) = code {
            self.pass.finish(code);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
