//! `GET /v1/models`: the one model, under each of its names. And what balancers ask.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::Edge;
use super::problem::Problem;
use crate::clip::spec::Scores;

#[derive(Serialize, ToSchema)]
pub(super) struct Models {
    object: &'static str,
    data: Vec<Model>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Model {
    id: String,
    object: &'static str,
    /// When it was loaded, in seconds since 1970.
    created: u64,
    owned_by: &'static str,
    /// Of all that an embedding depends on: vectors of different fingerprints do not mix.
    fingerprint: String,
    /// Numbers of an embedding.
    embedding_size: usize,
    /// Tokens of a text, start and end included; longer ones are cut. 0 if the model has no text encoder.
    context_length: usize,
    /// Pixels: what pictures are resized to.
    image_width: u32,
    /// Pixels.
    image_height: u32,
    /// What the model embeds: `image`, and `text` if it has a text encoder.
    modalities: &'static [&'static str],
    /// How logits become scores: `softmax` over all labels, or `sigmoid` of each.
    score_function: &'static str,
    /// Factor from similarity to logit.
    logit_scale: f32,
    /// Added to every logit.
    logit_bias: f32,
    /// Names for `classifier_id`.
    classifiers: Vec<String>,
    /// Such as `cpu`; absent until a worker has opened the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    precision: Option<String>,
    /// Library and version that runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<String>,
    limits: Limits,
}

/// What a request may have at most. Each is a flag of the server.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Limits {
    /// Of one request to embed; pictures of one to classify.
    pub inputs: usize,
    pub labels: usize,
    pub templates: usize,
    /// Labels x templates.
    pub prompts: usize,
    /// Pictures x predictions.
    pub predictions: usize,
    /// Of one text or label.
    pub text_bytes: usize,
    /// Of one picture's file.
    pub image_bytes: usize,
    /// Width x height.
    pub image_pixels: u64,
    /// Of a request.
    pub message_bytes: usize,
    /// Of an answer, as far as they are known before.
    pub response_bytes: usize,
    /// Rows that wait, of pictures and of texts.
    pub queue_rows: usize,
    /// Calls at a time, of all clients.
    pub concurrent_requests: usize,
    /// Longest time of a call.
    pub timeout_seconds: f64,
}

impl Edge {
    fn described(&self, name: &str) -> Model {
        let description = self.workers.borrow().description.clone();
        Model {
            id: name.to_owned(),
            object: "model",
            created: self.created,
            owned_by: "clipd",
            fingerprint: self.fingerprint.to_str().unwrap_or_default().to_owned(),
            embedding_size: self.spec.embed_dim,
            context_length: self.spec.text.as_ref().map_or(0, |text| text.context_length),
            image_width: self.spec.image.width,
            image_height: self.spec.image.height,
            modalities: self.spec.modalities(),
            score_function: match self.spec.scores {
                Scores::Softmax => "softmax",
                Scores::Sigmoid => "sigmoid",
            },
            logit_scale: self.spec.logit_scale,
            logit_bias: self.spec.logit_bias,
            classifiers: self.pipeline.classifier_names().map(str::to_owned).collect(),
            device: description.as_ref().map(|of| of.device.clone()),
            precision: description.as_ref().map(|of| of.precision.clone()),
            engine: description.map(|of| of.engine),
            limits: self.limits.clone(),
        }
    }
}

pub(super) async fn list(State(edge): State<Arc<Edge>>) -> Json<Models> {
    Json(Models { object: "list", data: edge.names.iter().map(|name| edge.described(name)).collect() })
}

pub(super) async fn one(State(edge): State<Arc<Edge>>, Path(name): Path<String>) -> Response {
    match edge.names.contains(&name) {
        true => Json(edge.described(&name)).into_response(),
        false => Problem::no_such_model(&name, &edge.names[0]).into_response(),
    }
}

/// As on the metrics port.
pub(super) async fn livez(State(edge): State<Arc<Edge>>) -> (StatusCode, &'static str) {
    let state = edge.readiness.now();
    if state.is_alive() {
        (StatusCode::OK, "alive")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, state.as_str())
    }
}

/// As on the metrics port.
pub(super) async fn readyz(State(edge): State<Arc<Edge>>) -> (StatusCode, &'static str) {
    let state = edge.readiness.now();
    let code = if state.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, state.as_str())
}
