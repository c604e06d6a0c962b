//! The two bodies of a request, as its connection sees them.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::peer::{Open, Untaken};
use crate::clock::{Clock, Timestamp};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An answer is handed over in pieces of at most these bytes (HTTP/2's smallest largest frame): what has been handed
/// over is beyond our reach until the connection ends.
const PIECE: usize = 16 << 10;

/// How long the rest of a request is still read after its answer.
const LINGER: Duration = Duration::from_secs(1);

/// In the extensions of a response: by when all of it is taken, or dropped.
#[derive(Clone, Copy, Debug)]
pub struct TakenBy(pub Timestamp);

/// The body of a request. If it is dropped before its end, the rest is still read for a moment: HTTP/2 says with a
/// reset that nothing more is wanted, and some proxies (HAProxy 2.6) forget the answer's trailers when they see one.
pub struct Inbound(Option<Incoming>);

impl Inbound {
    pub(super) fn new(body: Incoming) -> Inbound {
        Inbound(Some(body))
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.0 = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        if let Some(mut body) = self.0.take()
            && !body.is_end_stream()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(timeout(LINGER, async move { while let Some(Ok(_)) = body.frame().await {} }));
        }
    }
}

/// The body of a response, until it is sent or its client has left it lying for too long. It is not asked for more
/// while the client takes nothing, so its clock is looked at from outside.
pub(super) struct Answer<B> {
    shared: Arc<Shared<B>>,
    _open: Open,
}

struct Shared<B> {
    /// `None`: dropped.
    sending: Mutex<Option<Sending<B>>>,
    taken_by: Option<Timestamp>,
    clock: Clock,
}

struct Sending<B> {
    body: B,
    /// Of a frame, what has not been handed over.
    rest: Bytes,
    /// Since when something is ready. `None`: the client waits for us.
    ready: Option<Timestamp>,
}

impl<B: Body<Data = Bytes> + Send + 'static> Answer<B> {
    pub(super) fn new(body: B, open: Open, taken_by: Option<TakenBy>, clock: Clock) -> Answer<B> {
        let sending = Sending { body, rest: Bytes::new(), ready: Some(clock.now()) };
        let taken_by = taken_by.map(|TakenBy(at)| at);
        let shared = Arc::new(Shared { sending: Mutex::new(Some(sending)), taken_by, clock });
        open.answered(shared.clone());
        Answer { shared, _open: open }
    }
}

impl<B> Shared<B> {
    fn lock(&self) -> MutexGuard<'_, Option<Sending<B>>> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Send> Untaken for Shared<B> {
    fn drop_if_overdue(&self, now: Timestamp, patience: Duration) -> bool {
        let mut sending = self.lock();
        let Some(Sending { ready: Some(since), .. }) = &*sending else { return false };
        let overdue = now.since(*since) > patience || self.taken_by.is_some_and(|end| now > end);
        let dropped = if overdue { sending.take() } else { None };
        // What it holds is let go when the lock is free.
        drop(sending);
        dropped.is_some()
    }
}

impl<B> Body for Answer<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut sending = self.shared.lock();
        let Some(Sending { body, rest, ready }) = sending.as_mut() else {
            return Poll::Ready(Some(Err("the answer was not taken in time".into())));
        };
        if rest.is_empty() {
            *ready = None;
            match ready!(Pin::new(body).poll_frame(context))
                .transpose()
                .map_err(Into::into)?
                .map(Frame::into_data)
            {
                Some(Ok(data)) => *rest = data,
                Some(Err(other)) => return Poll::Ready(Some(Ok(other))),
                None => return Poll::Ready(None),
            }
        }
        *ready = Some(self.shared.clock.now());
        let piece = rest.split_to(rest.len().min(PIECE));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.shared
            .lock()
            .as_ref()
            .is_some_and(|Sending { body, rest, .. }| rest.is_empty() && body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let sending = self.shared.lock();
        let Some(Sending { body, rest, .. }) = &*sending else { return SizeHint::default() };
        let (mut hint, rest) = (body.size_hint(), rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}
