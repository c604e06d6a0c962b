//! `GET /openapi.json`, made of the types that are read and written.

use std::sync::LazyLock;

use axum::Json;
use utoipa::OpenApi;
use utoipa::openapi::{ArrayBuilder, ObjectBuilder, OneOfBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::problem::ErrorBody;
use super::wire::{Item, Items};
use super::{classify, cohere, embeddings, models, rerank, weaviate};

#[derive(OpenApi)]
#[openapi(
    info(title = "clipd", description = "CLIP over HTTP: embeddings, zero-shot classification and ranking."),
    paths(embed, rank, classify_images, zero_shot, list_models, one_model, embed_as_cohere, vectorize)
)]
struct Api;

static DOCUMENT: LazyLock<utoipa::openapi::OpenApi> = LazyLock::new(Api::openapi);

pub(super) async fn document() -> Json<&'static utoipa::openapi::OpenApi> {
    Json(&DOCUMENT)
}

macro_rules! operation {
    ($name:ident, $path:literal, $request:ty, $response:ty, $text:literal) => {
        #[utoipa::path(
            post,
            path = $path,
            description = $text,
            request_body = $request,
            responses(
                (status = 200, body = $response),
                (status = 400, description = "The request is wrong; `param` names the part.", body = ErrorBody),
                (status = 404, description = "There is no model or classifier of that name.", body = ErrorBody),
                (status = 413, description = "The body is too large.", body = ErrorBody),
                (status = 415, description = "The body is not JSON, or it is compressed.", body = ErrorBody),
                (status = 429, description = "Overloaded: `retry-after` says when to try again.", body = ErrorBody),
                (status = 500, description = "A fault of the server.", body = ErrorBody),
                (status = 503, description = "The server starts or stops; another may serve.", body = ErrorBody),
                (status = 504, description = "The deadline passed.", body = ErrorBody),
            )
        )]
        #[expect(dead_code, reason = "stands for a path in the document")]
        fn $name() {}
    };
}

operation!(
    embed,
    "/v1/embeddings",
    embeddings::Request<'_>,
    embeddings::Response,
    "Embeds texts and pictures. OpenAI's; pictures as Jina, infinity and vLLM send them."
);
operation!(
    rank,
    "/v1/rerank",
    rerank::Request<'_>,
    rerank::Response<'_>,
    "Orders documents by their similarity to a query. Cohere's and Jina's."
);
operation!(
    classify_images,
    "/v1/classify",
    classify::Request<'_>,
    classify::Response<'_>,
    "Scores pictures against labels. Jina's."
);
operation!(
    zero_shot,
    "/zero-shot-image-classification",
    classify::ZeroShot<'_>,
    Vec<classify::Prediction<'_>>,
    "Scores one picture against labels. Hugging Face's."
);
operation!(
    embed_as_cohere,
    "/v2/embed",
    cohere::Request<'_>,
    cohere::Response,
    "Embeds texts or pictures. Cohere's."
);
operation!(
    vectorize,
    "/vectorize",
    weaviate::Request<'_>,
    weaviate::Response,
    "Embeds texts and pictures. Weaviate's."
);

#[utoipa::path(get, path = "/v1/models", responses((status = 200, body = models::Models)))]
#[expect(dead_code, reason = "stands for a path in the document")]
fn list_models() {}

#[utoipa::path(
    get,
    path = "/v1/models/{id}",
    params(("id" = String, Path)),
    responses(
        (status = 200, body = models::Model),
        (status = 404, description = "There is no model of that name.", body = ErrorBody),
    )
)]
#[expect(dead_code, reason = "stands for a path in the document")]
fn one_model() {}

impl PartialSchema for Item<'_> {
    fn schema() -> RefOr<Schema> {
        let string = || ObjectBuilder::new().schema_type(Type::String);
        let object = |field: &str, schema: RefOr<Schema>| {
            ObjectBuilder::new().schema_type(Type::Object).property(field, schema).required(field)
        };
        let image = string().description(Some("Base64, alone or in a data URI."));
        OneOfBuilder::new()
            .item(string().description(Some("A text.")))
            .item(object("text", string().into()))
            .item(object("image", image.into()))
            .into()
    }
}

impl ToSchema for Item<'_> {}

impl PartialSchema for Items<'_> {
    fn schema() -> RefOr<Schema> {
        OneOfBuilder::new().item(Item::schema()).item(ArrayBuilder::new().items(Item::schema())).into()
    }
}

impl ToSchema for Items<'_> {}
