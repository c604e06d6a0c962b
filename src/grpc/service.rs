//! `clip.v1.ClipService`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Request, Response, Status, Streaming};

use super::admission::StreamEnd;
use super::convert::{self, StreamInput};
use super::proto;
use super::proto::clip_service_server::ClipService;
use super::status;
use super::streams::{self, AsyncProcess, Responses, Terms};
use crate::batcher::Workers;
use crate::class::Class;
use crate::clock::{Clock, Timestamp};
use crate::pipeline::classify::StreamClassifier;
use crate::pipeline::error::Error;
use crate::pipeline::{Deadline, Pipeline};

/// What `GetModel` says of the model and of the limits that are not the pipeline's.
#[derive(Clone, Debug)]
pub struct ModelCard {
    pub name: String,
    pub fingerprint: String,
    pub spec: crate::clip::spec::ClipSpec,
    pub limits: proto::Limits,
}

/// Response metadata of every call that answers with what the model computed.
const FINGERPRINT: &str = "clip-fingerprint";

pub(super) struct Clip {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) model: ModelCard,
    /// The model's, as it goes over the wire.
    pub(super) fingerprint: AsciiMetadataValue,
    pub(super) workers: watch::Receiver<Workers>,
    /// Longest time for one input of a stream.
    pub(super) timeout: Duration,
    /// Of streams without a deadline of their own.
    pub(super) terms: Terms,
}

#[tonic::async_trait]
impl ClipService for Clip {
    async fn embed(
        &self,
        request: Request<proto::EmbedRequest>,
    ) -> Result<Response<proto::EmbedResponse>, Status> {
        let deadline = deadline(&request, request.get_ref().class)?;
        let request = request.into_inner();
        let format = convert::embedding_format(request.embedding_format).map_err(status::from_error)?;
        let request = convert::embed_request(request).map_err(status::from_error)?;
        let response = self.pipeline.embed(request, deadline).await.map_err(status::from_error)?;
        Ok(self.computed(convert::embed_response(response, format)))
    }

    async fn classify(
        &self,
        request: Request<proto::ClassifyRequest>,
    ) -> Result<Response<proto::ClassifyResponse>, Status> {
        let deadline = deadline(&request, request.get_ref().class)?;
        let request = convert::classify_request(request.into_inner()).map_err(status::from_error)?;
        let response = self.pipeline.classify(request, deadline).await.map_err(status::from_error)?;
        Ok(self.computed(convert::classify_response(response)))
    }

    type StreamEmbedStream = Responses<proto::StreamEmbedResponse>;

    async fn stream_embed(
        &self,
        request: Request<Streaming<proto::StreamEmbedRequest>>,
    ) -> Result<Response<Self::StreamEmbedStream>, Status> {
        let terms = self.terms(&request)?;
        let embed = EmbedInputs { pipeline: self.pipeline.clone(), clock: self.clock(&request)? };
        Ok(self.computed(streams::respond(request.into_inner(), terms, embed)))
    }

    type StreamClassifyStream = Responses<proto::StreamClassifyResponse>;

    async fn stream_classify(
        &self,
        request: Request<Streaming<proto::StreamClassifyRequest>>,
    ) -> Result<Response<Self::StreamClassifyStream>, Status> {
        let terms = self.terms(&request)?;
        let clock = self.clock(&request)?;
        let mut inbound = request.into_inner();
        let Some(first) = inbound.message().await? else {
            return Ok(Response::new(Box::pin(futures_util::stream::empty())));
        };
        let options = convert::classify_options(first).map_err(status::from_error)?;
        let classifier = self
            .pipeline
            .stream_classifier(options.labels, options.top_k)
            .await
            .map_err(status::from_error)?;
        let classify = ClassifyImages { pipeline: self.pipeline.clone(), classifier, clock };
        Ok(self.computed(streams::respond(inbound, terms, classify)))
    }

    async fn get_model(
        &self,
        _request: Request<proto::GetModelRequest>,
    ) -> Result<Response<proto::GetModelResponse>, Status> {
        let description = self.workers.borrow().description.clone();
        // What runs the model is known once a worker has opened it.
        let description =
            description.ok_or_else(|| status::from_error(Error::Unavailable("the server is starting")))?;
        let ModelCard { name, fingerprint, spec, limits } = self.model.clone();
        Ok(Response::new(proto::GetModelResponse {
            name,
            fingerprint,
            embedding_size: wire(spec.embed_dim),
            image_height: spec.image.height,
            image_width: spec.image.width,
            context_length: wire(spec.text.context_length),
            logit_scale: spec.logit_scale,
            device: description.device,
            engine: description.engine,
            precision: description.precision,
            limits: Some(limits),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            batch_costs: self.pipeline.costs().iter().flat_map(convert::batch_costs).collect(),
            classifiers: self.pipeline.classifier_names().map(str::to_owned).collect(),
        }))
    }
}

impl Clip {
    fn computed<T>(&self, message: T) -> Response<T> {
        let mut response = Response::new(message);
        response.metadata_mut().insert(FINGERPRINT, self.fingerprint.clone());
        response
    }

    fn terms<T>(&self, request: &Request<T>) -> Result<Terms, Status> {
        let StreamEnd(ends_by) = extension(request)?;
        Ok(Terms { ends_by, ..self.terms.clone() })
    }

    fn clock<T>(&self, request: &Request<T>) -> Result<InputClock, Status> {
        let StreamEnd(ends_by) = extension(request)?;
        let unspecified = proto::Class::Unspecified.into();
        let class = convert::class(unspecified, request.metadata()).map_err(status::from_error)?;
        Ok(InputClock { clock: self.terms.clock, timeout: self.timeout, ends_by, class })
    }
}

/// Gives each input of a stream its deadline and class.
#[derive(Clone, Copy)]
struct InputClock {
    clock: Clock,
    timeout: Duration,
    ends_by: Option<Timestamp>,
    class: Class,
}

impl InputClock {
    fn deadline(&self, asked: Option<Duration>) -> Deadline {
        let now = self.clock.now();
        let left = self.ends_by.map_or(self.timeout, |end| end.since(now).min(self.timeout));
        Deadline { class: self.class, ..Deadline::new(now, asked.map_or(left, |asked| asked.min(left))) }
    }
}

struct EmbedInputs {
    pipeline: Arc<Pipeline>,
    clock: InputClock,
}

impl AsyncProcess<proto::StreamEmbedRequest, proto::StreamEmbedResponse> for EmbedInputs {
    fn start(
        &self,
        message: proto::StreamEmbedRequest,
    ) -> Result<impl Future<Output = proto::StreamEmbedResponse> + Send + 'static, Status> {
        let tag = message.tag;
        let deadline = self.clock.deadline(convert::timeout(message.timeout));
        let pipeline = self.pipeline.clone();
        Ok(async move {
            let result = async {
                let StreamInput { input, normalization, truncate, format } = convert::stream_input(message)?;
                let (embedding, timing) =
                    pipeline.embed_one(input, normalization, truncate, deadline).await?;
                Ok((embedding, format, timing))
            };
            convert::stream_embed_response(tag, result.await)
        })
    }
}

struct ClassifyImages {
    pipeline: Arc<Pipeline>,
    classifier: StreamClassifier,
    clock: InputClock,
}

impl AsyncProcess<proto::StreamClassifyRequest, proto::StreamClassifyResponse> for ClassifyImages {
    fn start(
        &self,
        message: proto::StreamClassifyRequest,
    ) -> Result<impl Future<Output = proto::StreamClassifyResponse> + Send + 'static, Status> {
        let (tag, image, timeout) = convert::tagged_image(message).map_err(status::from_error)?;
        let deadline = self.clock.deadline(timeout);
        let (pipeline, classifier) = (self.pipeline.clone(), self.classifier.clone());
        Ok(async move {
            let result = pipeline.classify_one(classifier.clone(), image, deadline).await;
            convert::stream_classify_response(tag, result, classifier.labels())
        })
    }
}

/// The deadline that admission attached, with the class that the request asks for.
fn deadline<T>(request: &Request<T>, class: i32) -> Result<Deadline, Status> {
    let class = convert::class(class, request.metadata()).map_err(status::from_error)?;
    Ok(Deadline { class, ..extension(request)? })
}

/// Sizes and limits are far below 2^32.
fn wire(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// What admission attached to the call.
fn extension<T, E: Copy + Send + Sync + 'static>(request: &Request<T>) -> Result<E, Status> {
    request
        .extensions()
        .get::<E>()
        .copied()
        .ok_or_else(|| status::from_error(Error::Internal("a call passed without admission".into())))
}
