//! `clip.v1.ClipService`.

use std::sync::Arc;

use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::convert;
use super::proto;
use super::proto::clip_service_server::ClipService;
use super::status;
use crate::batcher::Workers;
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

pub(super) struct Clip {
    pipeline: Arc<Pipeline>,
    model: ModelCard,
    workers: watch::Receiver<Workers>,
}

impl Clip {
    pub(super) fn new(pipeline: Arc<Pipeline>, model: ModelCard, workers: watch::Receiver<Workers>) -> Clip {
        Clip { pipeline, model, workers }
    }
}

#[tonic::async_trait]
impl ClipService for Clip {
    async fn embed(
        &self,
        request: Request<proto::EmbedRequest>,
    ) -> Result<Response<proto::EmbedResponse>, Status> {
        let deadline = deadline(&request)?;
        let request = convert::embed_request(request.into_inner()).map_err(status::from_error)?;
        let response = self.pipeline.embed(request, deadline).await.map_err(status::from_error)?;
        Ok(Response::new(convert::embed_response(response)))
    }

    async fn classify(
        &self,
        request: Request<proto::ClassifyRequest>,
    ) -> Result<Response<proto::ClassifyResponse>, Status> {
        let deadline = deadline(&request)?;
        let request = convert::classify_request(request.into_inner());
        let response = self.pipeline.classify(request, deadline).await.map_err(status::from_error)?;
        Ok(Response::new(convert::classify_response(response)))
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
        }))
    }
}

/// Sizes and limits are far below 2^32.
fn wire(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn deadline<T>(request: &Request<T>) -> Result<Deadline, Status> {
    request
        .extensions()
        .get::<Deadline>()
        .copied()
        .ok_or_else(|| status::from_error(Error::Internal("a call passed without admission".into())))
}
