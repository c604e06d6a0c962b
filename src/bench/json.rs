//! Requests of the HTTP API, made of those of gRPC.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::Error;
use crate::grpc::proto::input::Content;
use crate::grpc::proto::{ClassifyRequest, EmbedRequest, Image, Input, image::Source};

/// Ready to be sent.
#[derive(Clone)]
pub(super) struct JsonCall {
    pub(super) path: &'static str,
    pub(super) body: Bytes,
}

impl JsonCall {
    /// Embeddings come back in base64, as OpenAI's libraries ask for them.
    pub(super) fn embed(request: &EmbedRequest) -> Result<JsonCall, Error> {
        let inputs: Result<Vec<Value>, Error> = request.inputs.iter().map(input).collect();
        Ok(JsonCall::new("/v1/embeddings", &json!({"input": inputs?, "encoding_format": "base64"})))
    }

    pub(super) fn classify(request: &ClassifyRequest) -> Result<JsonCall, Error> {
        let images: Result<Vec<Value>, Error> = request.images.iter().map(image).collect();
        let labels: Vec<_> = request.labels.iter().map(|label| String::from_utf8_lossy(label)).collect();
        let body = json!({"input": images?, "labels": labels, "top_k": request.top_k});
        Ok(JsonCall::new("/v1/classify", &body))
    }

    fn new(path: &'static str, body: &Value) -> JsonCall {
        JsonCall { path, body: body.to_string().into() }
    }
}

fn input(input: &Input) -> Result<Value, Error> {
    match &input.content {
        Some(Content::Text(text)) => Ok(json!(text)),
        Some(Content::Image(picture)) => image(picture),
        None => Err(Error::Other("a request without an input".to_owned())),
    }
}

fn image(image: &Image) -> Result<Value, Error> {
    match &image.source {
        Some(Source::Encoded(file)) => Ok(json!({"image": STANDARD.encode(file)})),
        _ => Err(Error::Other("--edge http: raw RGB has no form in JSON".to_owned())),
    }
}
