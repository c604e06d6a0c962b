//! Requests that come compressed, with `grpc-encoding: gzip`: what goes on is as if they had not been.
//!
//! The trailer of gzip says how long the content is. So what is too long is refused before a byte of it is made, and
//! the rest counts against the limit of bytes in flight before it takes memory; content that is longer than it said is
//! an error. It is made piece by piece, as it is taken.

use std::io::Read;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use flate2::bufread::GzDecoder;
use http::Request;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower_service::Service;

use super::status;
use crate::admission::Admitted;
use crate::long_work;

/// What is made at a time.
const PIECE: usize = 512 << 10;

/// Flag and length, before each message.
const HEADER: usize = 5;

/// What services that are not counted take: requests of health and reflection are short.
const SHORT: usize = 64 << 10;

/// Takes compressed messages of up to `limit` bytes. `call` is what their bytes count for, beyond those on the wire.
pub(super) fn accept(mut request: Request<Body>, limit: usize, call: Option<Admitted>) -> Request<Body> {
    if request.headers().get("grpc-encoding").is_none_or(|encoding| encoding != "gzip") {
        return request;
    }
    request.headers_mut().remove("grpc-encoding");
    request.map(|body| {
        Body::new(Inflated { body, limit, call, wire: BytesMut::new(), state: State::Between, ended: false })
    })
}

/// A service that takes them, and is not counted.
#[derive(Clone)]
pub(super) struct Accepting<S>(pub(super) S);

impl<S: NamedService> NamedService for Accepting<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Accepting<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        self.0.call(accept(request, SHORT, None))
    }
}

struct Inflated {
    body: Body,
    limit: usize,
    call: Option<Admitted>,
    /// Not looked at yet.
    wire: BytesMut,
    state: State,
    ended: bool,
}

enum State {
    Between,
    /// In a message that is not compressed, of which so much is left.
    Plain(usize),
    /// Before a compressed one of this length.
    Compressed(usize),
    /// In what it becomes, of which so much is left.
    Inflating(GzDecoder<bytes::buf::Reader<Bytes>>, usize),
}

impl Inflated {
    /// The next piece of what goes on. `None`: more must come first.
    fn piece(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            match &mut self.state {
                State::Between => {
                    let Some(&[flag, a, b, c, d]) = self.wire.first_chunk::<HEADER>() else {
                        return Ok(None);
                    };
                    let length = u32::from_be_bytes([a, b, c, d]) as usize;
                    if flag != 1 {
                        self.state = State::Plain(length);
                        return Ok(Some(self.wire.split_to(HEADER).freeze()));
                    }
                    self.within_limit(length)?;
                    self.wire.advance(HEADER);
                    self.state = State::Compressed(length);
                }
                State::Plain(0) => self.state = State::Between,
                State::Plain(left) => {
                    let bytes = self.wire.len().min(*left);
                    *left -= bytes;
                    return Ok((bytes > 0).then(|| self.wire.split_to(bytes).freeze()));
                }
                State::Compressed(length) => {
                    let length = *length;
                    if self.wire.len() < length {
                        return Ok(None);
                    }
                    let message = self.wire.split_to(length).freeze();
                    let header = self.begin(message)?;
                    return Ok(Some(header));
                }
                State::Inflating(decoder, left) => {
                    let bytes = PIECE.min(*left);
                    *left -= bytes;
                    let last = *left == 0;
                    let piece = long_work::over(bytes, || read(decoder, bytes, last));
                    if last {
                        self.state = State::Between;
                    }
                    return piece.map(Some).map_err(|error| malformed(&error.to_string()));
                }
            }
        }
    }

    /// Counts what the message becomes, and returns the header of that.
    fn begin(&mut self, message: Bytes) -> Result<Bytes, Status> {
        let Some(&trailer) = message.last_chunk() else { return Err(malformed("it is too short")) };
        let length = u32::from_le_bytes(trailer);
        let bytes = length as usize;
        self.within_limit(bytes)?;
        if let Some(call) = &self.call {
            let beyond = bytes.saturating_sub(message.len());
            call.hold_request(beyond).map_err(|refusal| status::refused(&refusal))?;
        }
        self.state = State::Inflating(GzDecoder::new(message.reader()), bytes);
        let [a, b, c, d] = length.to_be_bytes();
        Ok(Bytes::copy_from_slice(&[0, a, b, c, d]))
    }

    /// The status is that of a message without compression.
    fn within_limit(&self, bytes: usize) -> Result<(), Status> {
        if bytes <= self.limit {
            return Ok(());
        }
        let limit = self.limit;
        Err(Status::out_of_range(format!("the message has {bytes} bytes, and the limit is {limit} bytes")))
    }
}

/// The next `bytes`; after the `last` ones nothing may come, and the checksum must be right.
fn read(decoder: &mut impl Read, bytes: usize, last: bool) -> std::io::Result<Bytes> {
    let mut piece = vec![0; bytes];
    decoder.read_exact(&mut piece)?;
    if last && decoder.read(&mut [0])? > 0 {
        return Err(std::io::Error::other("it is longer than it says"));
    }
    Ok(piece.into())
}

fn malformed(why: &str) -> Status {
    Status::invalid_argument(format!("the message is not as gzip has it: {why}"))
}

impl http_body::Body for Inflated {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if this.ended {
                return Poll::Ready(None);
            }
            match this.piece() {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Ok(None) => {}
                Err(status) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(status)));
                }
            }
            match ready!(http_body::Body::poll_frame(Pin::new(&mut this.body), context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.wire.extend_from_slice(&data),
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => {
                    this.ended = true;
                    let whole =
                        matches!(this.state, State::Between | State::Plain(_)) && this.wire.is_empty();
                    return Poll::Ready((!whole).then(|| Err(malformed("it is cut off"))));
                }
            }
        }
    }
}
