//! `clip.v1.ClipService`.

use std::sync::Arc;

use prost::Message;
use tokio::sync::watch;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Request, Response, Status, Streaming};

use super::convert::{self, StreamInput};
use super::place::Rpc;
use super::proto;
use super::proto::clip_service_server::ClipService;
use super::status;
use super::streams::{self, Responses, Terms};
use crate::admission::{Admitted, Deadline};
use crate::batcher::Workers;
use crate::class::Class;
use crate::connections::jittered;
use crate::pipeline::Pipeline;
use crate::pipeline::error::Error;

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
    /// Of streams without a deadline of their own.
    pub(super) terms: Terms,
}

#[tonic::async_trait]
impl ClipService for Clip {
    async fn embed(
        &self,
        request: Request<proto::EmbedRequest>,
    ) -> Result<Response<proto::EmbedResponse>, Status> {
        let (admitted, deadline) = deadline(&request, request.get_ref().class, Rpc::Embed)?;
        let answer = async {
            let request = request.into_inner();
            let format = convert::embedding_format(request.embedding_format)?;
            admitted.take_rows(request.inputs.len())?;
            let response = self.pipeline.embed(convert::embed_request(request)?, deadline, &admitted).await?;
            let response = convert::embed_response(response, format);
            admitted.hold_answer(response.encoded_len()).await?;
            Ok(response)
        };
        answer
            .await
            .map(|answer| self.computed(answer))
            .map_err(|error| status::from_error(&error, Rpc::Embed))
    }

    async fn classify(
        &self,
        request: Request<proto::ClassifyRequest>,
    ) -> Result<Response<proto::ClassifyResponse>, Status> {
        let (admitted, deadline) = deadline(&request, request.get_ref().class, Rpc::Classify)?;
        let answer = async {
            let request = convert::classify_request(request.into_inner())?;
            admitted.take_rows(request.images.len())?;
            let response = self.pipeline.classify(request, deadline, &admitted).await?;
            // Before the labels are written out.
            admitted.hold_answer(response.bytes()).await?;
            Ok(convert::classify_response(response))
        };
        answer
            .await
            .map(|answer| self.computed(answer))
            .map_err(|error| status::from_error(&error, Rpc::Classify))
    }

    async fn rank(
        &self,
        request: Request<proto::RankRequest>,
    ) -> Result<Response<proto::RankResponse>, Status> {
        let (admitted, deadline) = deadline(&request, request.get_ref().class, Rpc::Rank)?;
        let answer = async {
            let request = convert::rank_request(request.into_inner())?;
            admitted.take_rows(1 + request.documents.len())?;
            let response = self.pipeline.rank(request, deadline, &admitted).await?;
            Ok(convert::rank_response(response))
        };
        answer
            .await
            .map(|answer| self.computed(answer))
            .map_err(|error| status::from_error(&error, Rpc::Rank))
    }

    type StreamEmbedStream = Responses<proto::StreamEmbedResponse>;

    async fn stream_embed(
        &self,
        request: Request<Streaming<proto::StreamEmbedRequest>>,
    ) -> Result<Response<Self::StreamEmbedStream>, Status> {
        let (admitted, class) = stream(&request, Rpc::StreamEmbed)?;
        let (terms, pipeline) = (self.terms(&admitted), self.pipeline.clone());
        let embed = move |message: proto::StreamEmbedRequest| {
            let tag = message.tag;
            let deadline = admitted.input_deadline(convert::timeout(message.timeout), class);
            let (pipeline, admitted) = (pipeline.clone(), admitted.clone());
            Ok(async move {
                admitted.take_row_in_turn().await;
                let result = async {
                    let StreamInput { input, normalization, truncate, format } =
                        convert::stream_input(message)?;
                    let (embedding, timing) =
                        pipeline.embed_one(input, normalization, truncate, deadline, &admitted).await?;
                    Ok((embedding, format, timing))
                };
                convert::stream_embed_response(tag, result.await)
            })
        };
        Ok(self.computed(streams::respond(request.into_inner(), terms, embed)))
    }

    type StreamClassifyStream = Responses<proto::StreamClassifyResponse>;

    async fn stream_classify(
        &self,
        request: Request<Streaming<proto::StreamClassifyRequest>>,
    ) -> Result<Response<Self::StreamClassifyStream>, Status> {
        let (admitted, class) = stream(&request, Rpc::StreamClassify)?;
        let (terms, pipeline) = (self.terms(&admitted), self.pipeline.clone());
        let said = |error: Error| status::from_error(&error, Rpc::StreamClassify);
        let open = async move |first: proto::StreamClassifyRequest| {
            let options = convert::classify_options(first).map_err(said)?;
            let classifier = pipeline.stream_classifier(options.labels, options.top_k, &admitted).await;
            let classifier = classifier.map_err(said)?;
            let classify = move |message: proto::StreamClassifyRequest| {
                let (tag, image, timeout) = convert::tagged_image(message).map_err(said)?;
                let deadline = admitted.input_deadline(timeout, class);
                let (pipeline, classifier) = (pipeline.clone(), classifier.clone());
                let admitted = admitted.clone();
                Ok(async move {
                    admitted.take_row_in_turn().await;
                    let result = pipeline.classify_one(classifier.clone(), image, deadline, &admitted).await;
                    convert::stream_classify_response(tag, result, classifier.labels())
                })
            };
            Ok(classify)
        };
        Ok(self.computed(streams::respond_opened(request.into_inner(), terms, open)))
    }

    async fn get_model(
        &self,
        _request: Request<proto::GetModelRequest>,
    ) -> Result<Response<proto::GetModelResponse>, Status> {
        let description = self.workers.borrow().description.clone();
        // What runs the model is known once a worker has opened it.
        let description = description
            .ok_or_else(|| Status::unavailable(Error::Unavailable("the server is starting").told()))?;
        let ModelCard { name, fingerprint, spec, limits } = self.model.clone();
        Ok(Response::new(proto::GetModelResponse {
            name,
            fingerprint,
            embedding_size: wire(spec.embed_dim),
            image_height: spec.image.height,
            image_width: spec.image.width,
            context_length: spec.text.as_ref().map_or(0, |text| wire(text.context_length)),
            logit_scale: spec.logit_scale,
            logit_bias: spec.logit_bias,
            score_function: convert::score_function(spec.scores).into(),
            modalities: spec.modalities().iter().map(|name| (*name).to_owned()).collect(),
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

    fn terms(&self, admitted: &Admitted) -> Terms {
        let mut terms = self.terms.clone();
        terms.ends_by = admitted.stream_end();
        terms.max_age = terms.max_age.map(jittered);
        terms
    }
}

/// Sizes and limits are far below 2^32.
fn wire(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// What the entrance attached to the call.
fn admitted<T>(request: &Request<T>) -> Result<Admitted, Status> {
    let admitted = request.extensions().get::<Admitted>().cloned();
    let missing = || Error::Internal("a call passed without admission".into());
    admitted.ok_or_else(|| status::from_error(&missing(), Rpc::Embed))
}

/// What bounds a stream, and the class of its inputs.
fn stream<T>(request: &Request<T>, rpc: Rpc) -> Result<(Admitted, Class), Status> {
    let unspecified = proto::Class::Unspecified.into();
    let class = convert::class(unspecified, request.metadata());
    let admitted = admitted(request)?;
    admitted.begin();
    Ok((admitted, class.map_err(|error| status::from_error(&error, rpc))?))
}

/// With the class that the request asks for.
fn deadline<T>(request: &Request<T>, class: i32, rpc: Rpc) -> Result<(Admitted, Deadline), Status> {
    let class = convert::class(class, request.metadata());
    let class = class.map_err(|error| status::from_error(&error, rpc))?;
    let admitted = admitted(request)?;
    admitted.begin();
    let deadline = admitted.call_deadline(class);
    Ok((admitted, deadline))
}
