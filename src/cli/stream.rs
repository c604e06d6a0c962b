//! Embeds any number of inputs through StreamEmbed, and hands the results on in input order.
//!
//! It does not know where results go. A stream that ends before its time is opened again, and what has no
//! answer is sent again: the server ends streams that are too old, and when it shuts down.

use std::sync::Arc;

use tokio::sync::mpsc::{self, Sender};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};

use super::Error;
use super::client::{Backoff, Server};
use super::inputs::Input;
use super::ledger::{Answer, Ledger};
use crate::grpc::CLASS;
use crate::grpc::proto::input::Content;
use crate::grpc::proto::stream_embed_response::Result as Wire;
use crate::grpc::proto::{self, Class};

/// What takes the results, in input order.
pub(crate) trait Sink {
    fn take(&mut self, input: usize, answer: Answer) -> Result<(), Error>;
}

/// Windows are never larger, whatever the server allows: answers wait here for earlier ones.
const MAX_WINDOW: usize = 1024;

/// Of class bulk, they give way to what others ask.
pub(crate) async fn embed(
    server: &mut Server,
    inputs: Arc<[Input]>,
    class: Class,
    sink: &mut impl Sink,
) -> Result<(), Error> {
    // As many again as the server works on, so that it never waits for the wire.
    let window = (2 * server.limits.stream_inputs as usize).clamp(2, MAX_WINDOW);
    let ledger = Ledger::new(inputs.len(), window);
    let max_bytes = server.max_content_bytes();
    let mut run = Run { inputs, class, max_bytes, ledger, reads: JoinSet::new() };
    let mut backoff = Backoff::default();
    loop {
        let before = run.ledger.progress();
        let end = run.one_stream(server, sink).await?;
        if run.ledger.is_complete() {
            return Ok(());
        }
        let end = if run.ledger.progress() > before {
            backoff = Backoff::default();
            // Proxies have words of their own for a stream that the server has ended, so any will do.
            Status::unavailable(end.message())
        } else {
            end
        };
        backoff.wait(end).await.map_err(|status| server.failed(status))?;
    }
}

struct Run {
    inputs: Arc<[Input]>,
    class: Class,
    max_bytes: u64,
    ledger: Ledger,
    reads: JoinSet<(usize, Result<Content, String>)>,
}

impl Run {
    /// Until the stream ends; returns why.
    async fn one_stream(&mut self, server: &mut Server, sink: &mut impl Sink) -> Result<Status, Error> {
        let (sender, receiver) = mpsc::channel(1);
        let mut request = Request::new(ReceiverStream::new(receiver));
        if self.class == Class::Bulk {
            request.metadata_mut().insert(CLASS, MetadataValue::from_static("bulk"));
        }
        let mut responses = match server.client.stream_embed(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Ok(status),
        };
        // Dropped to half-close.
        let mut sender = Some(sender);
        self.ledger.reopen();
        loop {
            self.start_reads();
            while let Some((input, answer)) = self.ledger.hand_on() {
                sink.take(input, answer)?;
            }
            // Results that were handed on have made room.
            self.start_reads();
            if self.ledger.may_half_close() {
                sender = None;
            }
            let may_send = sender.is_some() && self.ledger.has_to_send();
            tokio::select! {
                Some(read) = self.reads.join_next() => {
                    let (input, content) = read.map_err(|error| Error::Other(error.to_string()))?;
                    self.ledger.loaded(input, content);
                }
                sent = send(sender.as_ref(), &mut self.ledger), if may_send => {
                    if sent.is_err() {
                        // The server reads no more; its status comes with the responses.
                        sender = None;
                    }
                }
                response = responses.message() => match response {
                    Ok(Some(response)) => self.answer(response),
                    Ok(None) => return Ok(Status::unavailable("the stream ended before its last answer")),
                    Err(status) => return Ok(status),
                },
            }
        }
    }

    fn start_reads(&mut self) {
        while let Some(input) = self.ledger.begin() {
            let (inputs, max_bytes) = (self.inputs.clone(), self.max_bytes);
            self.reads.spawn_blocking(move || (input, inputs[input].load(max_bytes)));
        }
    }

    fn answer(&mut self, response: proto::StreamEmbedResponse) {
        let Ok(input) = usize::try_from(response.tag) else { return };
        match response.result {
            Some(Wire::Embedding(embedding)) => self.ledger.answer(input, Ok(embedding)),
            Some(Wire::Error(error)) => {
                let again = [Code::Unavailable, Code::DeadlineExceeded].contains(&Code::from_i32(error.code));
                let reason = error.message;
                if again {
                    self.ledger.put_off(input, reason);
                } else {
                    self.ledger.answer(input, Err(reason));
                }
            }
            None => {
                self.ledger.answer(input, Err("the server gave neither a result nor a reason".to_owned()))
            }
        }
    }
}

/// Sends the next input once there is room. Cancelled before that, it has taken nothing.
async fn send(
    sender: Option<&Sender<proto::StreamEmbedRequest>>,
    ledger: &mut Ledger,
) -> Result<(), mpsc::error::SendError<()>> {
    let Some(sender) = sender else { return Ok(()) };
    let permit = sender.reserve().await?;
    if let Some((input, content)) = ledger.send() {
        permit.send(proto::StreamEmbedRequest {
            tag: input as u64,
            input: Some(proto::Input { content: Some(content) }),
            ..proto::StreamEmbedRequest::default()
        });
    }
    Ok(())
}
