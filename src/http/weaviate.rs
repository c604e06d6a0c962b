//! What Weaviate's module `multi2vec-clip` asks of its inference container.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Edge;
use super::entrance::{Answering, Asked, Reply};
use super::problem::Problem;
use super::wire::{Item, List, Text, check_inputs, read};
use crate::pipeline::embed::{EmbedRequest, Normalization, Truncate};

#[derive(Deserialize, ToSchema)]
#[schema(as = VectorizeRequest)]
pub(super) struct Request<'a> {
    #[serde(borrow)]
    texts: Option<List<Text<'a>>>,
    #[serde(borrow)]
    images: Option<List<Text<'a>>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = VectorizeResponse)]
#[serde(rename_all = "camelCase")]
pub(super) struct Response {
    text_vectors: Vec<Vec<f32>>,
    image_vectors: Vec<Vec<f32>>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct ModelMeta {
    model: String,
    fingerprint: String,
    embedding_size: usize,
}

pub(super) fn vectorize(edge: Arc<Edge>, asked: Asked) -> Answering {
    Box::pin(async move {
        let request: Request<'_> = read(&asked.body)?;
        let texts = request.texts.map_or_else(Vec::new, |List(texts)| texts);
        let images = request.images.map_or_else(Vec::new, |List(images)| images);
        let count = texts.len();
        let texts = texts.into_iter().map(|Text(text)| Item::Text(text));
        let images = images.into_iter().map(|Text(image)| Item::Image(image));
        let inputs = edge.inputs(texts.chain(images), &asked).await?;
        // Texts first, then images.
        let name = "texts and images";
        check_inputs(inputs.iter().enumerate(), name)?;
        let request = EmbedRequest { inputs, normalization: Normalization::L2, truncate: Truncate::End };
        let response = edge.pipeline.embed(request, asked.deadline, &asked.admitted).await;
        let response = response.map_err(|error| Problem::of(&error, name))?;
        let mut vectors = Vec::with_capacity(response.results.len());
        for result in response.results {
            vectors.push(result.map_err(|error| Problem::of(&error.into(), name))?.values);
        }
        let bytes = vectors.len() * edge.spec.embed_dim * size_of::<f32>();
        let image_vectors = vectors.split_off(count);
        Reply::new(&Response { text_vectors: vectors, image_vectors }, bytes, response.timing)
    })
}

pub(super) async fn meta(State(edge): State<Arc<Edge>>) -> Json<ModelMeta> {
    Json(ModelMeta {
        model: edge.names[0].clone(),
        fingerprint: edge.fingerprint.to_str().unwrap_or_default().to_owned(),
        embedding_size: edge.spec.embed_dim,
    })
}

pub(super) async fn live(State(edge): State<Arc<Edge>>) -> StatusCode {
    status(edge.readiness.now().is_alive())
}

pub(super) async fn ready(State(edge): State<Arc<Edge>>) -> StatusCode {
    status(edge.readiness.now().is_ready())
}

fn status(fine: bool) -> StatusCode {
    if fine { StatusCode::NO_CONTENT } else { StatusCode::SERVICE_UNAVAILABLE }
}
