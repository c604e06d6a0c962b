//! `POST /v1/embeddings`: OpenAI's, and the ways in which others put pictures on the same path: Jina's items that are
//! objects, infinity's `modality`, and vLLM's `messages`.
//!
//! A bare string is a text, whatever it looks like, unless `modality` says otherwise.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Edge;
use super::entrance::{Answering, Asked, Reply};
use super::problem::{ErrorObject, Place, Problem};
use super::wire::{EncodingFormat, Item, Items, List, Numbers, Text, Usage, check_inputs, read};
use crate::pipeline::embed::{EmbedRequest, Embedding, Normalization, Truncate};
use crate::pipeline::error;

#[derive(Deserialize, ToSchema)]
#[schema(as = EmbeddingsRequest)]
pub(super) struct Request<'a> {
    #[serde(borrow)]
    model: Option<Text<'a>>,
    #[serde(borrow)]
    input: Option<Items<'a>>,
    #[serde(borrow)]
    messages: Option<List<Message<'a>>>,
    modality: Option<Modality>,
    #[serde(alias = "embedding_type", alias = "encoding_type")]
    encoding_format: Option<EncodingFormat>,
    #[serde(alias = "output_dimension")]
    dimensions: Option<usize>,
    normalized: Option<bool>,
    truncate: Option<bool>,
}

/// What strings are.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Modality {
    Text,
    Image,
}

#[derive(Deserialize, ToSchema)]
struct Message<'a> {
    #[serde(borrow)]
    content: Items<'a>,
}

/// A list of embeddings, in the order of the request.
#[derive(Serialize, ToSchema)]
#[schema(as = EmbeddingsResponse)]
pub(super) struct Response {
    object: &'static str,
    data: Vec<Datum>,
    /// As the request named it.
    model: String,
    usage: Usage,
}

#[derive(Serialize, ToSchema)]
#[schema(as = EmbeddingDatum)]
struct Datum {
    object: &'static str,
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<Numbers>,
    /// Only where `clip-partial: true` asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorObject>,
}

pub(super) fn answer(edge: Arc<Edge>, asked: Asked) -> Answering {
    Box::pin(async move {
        let request: Request<'_> = read(&asked.body)?;
        let model = edge.model(request.model.as_ref())?;
        edge.check_dimensions(request.dimensions)?;
        let (name, items) = items(request.input, request.messages, request.modality)?;
        let inputs = edge.inputs(items, &asked).await?;
        if !asked.partial {
            check_inputs(inputs.iter().enumerate(), name)?;
        }
        let format = request.encoding_format.unwrap_or_default();
        let request = EmbedRequest {
            inputs,
            normalization: if request.normalized == Some(false) {
                Normalization::None
            } else {
                Normalization::L2
            },
            truncate: if request.truncate == Some(false) { Truncate::Error } else { Truncate::End },
        };
        let response = edge.pipeline.embed(request, asked.deadline, &asked.admitted).await;
        let response = response.map_err(|error| Problem::of(&error, name))?;

        let (mut tokens, mut bytes) = (0, 0);
        let mut data = Vec::with_capacity(response.results.len());
        for (index, result) in response.results.into_iter().enumerate() {
            let (embedding, error) = match result {
                Ok(Embedding { values, text }) => {
                    tokens += text.map_or(0, |text| text.tokens);
                    let numbers = Numbers::new(values, format);
                    bytes += numbers.bytes();
                    (Some(numbers), None)
                }
                Err(error) if asked.partial => (None, Some(ErrorObject::of(&error, name))),
                Err(error) => return Err(Problem::of(&error.into(), name)),
            };
            data.push(Datum { object: "embedding", index, embedding, error });
        }
        let answer = Response { object: "list", data, model, usage: Usage::new(tokens) };
        Reply::new(&answer, bytes, response.timing)
    })
}

/// What to embed, and what the request calls it.
fn items<'a>(
    input: Option<Items<'a>>,
    messages: Option<List<Message<'a>>>,
    modality: Option<Modality>,
) -> Result<(&'static str, Vec<Item<'a>>), Problem> {
    let items = match (input, messages) {
        (Some(_), Some(_)) => {
            return Err(Problem::invalid(Place::Named("messages"), "excludes input"));
        }
        (None, None) => return Err(Problem::invalid(Place::Named("input"), "must be set")),
        (Some(Items(items)), None) => items,
        (None, Some(List(messages))) => {
            let parts: Vec<Item<'_>> = messages.into_iter().flat_map(|message| message.content.0).collect();
            // One conversation is one vector, and this model makes one of a text or a picture alone.
            if parts.len() != 1 {
                let message = format!("must have one text or one picture in all, and have {}", parts.len());
                return Err(Problem::invalid(Place::Named("messages"), message));
            }
            return Ok(("messages", parts));
        }
    };
    let item = |item| match (item, modality) {
        (Item::Text(text), Some(Modality::Image)) => Item::Image(text),
        (item, _) => item,
    };
    Ok(("input", items.into_iter().map(item).collect()))
}

impl Edge {
    /// The model's name as the request has it, if it is served here; its own if the request has none.
    pub(super) fn model(&self, asked: Option<&Text<'_>>) -> Result<String, Problem> {
        match asked {
            None => Ok(self.names[0].clone()),
            Some(Text(name)) if self.names.iter().any(|each| *each == **name) => Ok(name.to_string()),
            Some(Text(name)) => Err(Problem::no_such_model(name, &self.names[0])),
        }
    }

    /// A part of a vector of this model is no vector of anything.
    pub(super) fn check_dimensions(&self, asked: Option<usize>) -> Result<(), Problem> {
        let native = self.spec.embed_dim;
        match asked {
            Some(asked) if asked != native => {
                let message = format!("this model has {native}, and {asked} of them would mean nothing");
                Err(Problem::invalid(Place::Of(error::Place::Field("dimensions"), ""), message))
            }
            _ => Ok(()),
        }
    }
}
