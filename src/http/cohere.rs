//! `POST /v2/embed`, as Cohere has it: one of `texts`, `images` and `inputs`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Edge;
use super::entrance::{Answering, Asked, Reply};
use super::problem::{Place, Problem};
use super::wire::{EncodingFormat, Item, Items, List, Numbers, Text, check_inputs, read};
use crate::pipeline::embed::{EmbedRequest, Input, Normalization, Truncate};

#[derive(Deserialize, ToSchema)]
#[schema(as = CohereRequest)]
pub(super) struct Request<'a> {
    #[serde(borrow)]
    model: Option<Text<'a>>,
    #[serde(borrow)]
    texts: Option<List<Text<'a>>>,
    #[serde(borrow)]
    images: Option<List<Text<'a>>>,
    #[serde(borrow)]
    inputs: Option<List<Content<'a>>>,
    embedding_types: Option<List<EncodingFormat>>,
    output_dimension: Option<usize>,
    #[serde(borrow)]
    truncate: Option<Text<'a>>,
}

#[derive(Deserialize, ToSchema)]
struct Content<'a> {
    #[serde(borrow)]
    content: Items<'a>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = CohereResponse)]
pub(super) struct Response {
    embeddings: Embeddings,
    texts: Vec<String>,
    meta: Meta,
}

#[derive(Serialize, ToSchema)]
struct Embeddings {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    float: Vec<Numbers>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    base64: Vec<Numbers>,
}

#[derive(Serialize, ToSchema)]
struct Meta {
    api_version: Version,
    billed_units: Billed,
}

#[derive(Serialize, ToSchema)]
struct Version {
    version: &'static str,
}

#[derive(Serialize, ToSchema)]
struct Billed {
    input_tokens: u32,
    images: usize,
}

pub(super) fn answer(edge: Arc<Edge>, asked: Asked) -> Answering {
    Box::pin(async move {
        let request: Request<'_> = read(&asked.body)?;
        edge.model(request.model.as_ref())?;
        edge.check_dimensions(request.output_dimension)?;
        let truncate = match request.truncate.as_ref().map(|Text(text)| &**text) {
            None | Some("END") => Truncate::End,
            Some("NONE") => Truncate::Error,
            Some(_) => return Err(Problem::invalid(Place::Named("truncate"), "must be END or NONE")),
        };
        let formats =
            request.embedding_types.map_or_else(|| vec![EncodingFormat::Float], |List(types)| types);
        let texts = request.texts.iter().flat_map(|List(texts)| texts).map(|Text(text)| text.to_string());
        let texts: Vec<String> = texts.collect();
        let (name, items) = items(request.texts, request.images, request.inputs)?;
        let inputs = edge.inputs(items, &asked).await?;
        check_inputs(inputs.iter().enumerate(), name)?;
        let images = inputs.iter().filter(|input| matches!(input, Input::Image(_))).count();
        let request = EmbedRequest { inputs, normalization: Normalization::L2, truncate };
        let response = edge.pipeline.embed(request, asked.deadline, &asked.admitted).await;
        let response = response.map_err(|error| Problem::of(&error, name))?;

        let mut embeddings = Embeddings { float: Vec::new(), base64: Vec::new() };
        let (mut tokens, mut bytes) = (0, 0);
        for result in response.results {
            let embedding = result.map_err(|error| Problem::of(&error.into(), name))?;
            tokens += embedding.text.map_or(0, |text| text.tokens);
            for (format, list) in [
                (EncodingFormat::Float, &mut embeddings.float),
                (EncodingFormat::Base64, &mut embeddings.base64),
            ] {
                if formats.contains(&format) {
                    let numbers = Numbers::new(embedding.values.clone(), format);
                    bytes += numbers.bytes();
                    list.push(numbers);
                }
            }
        }
        let meta = Meta {
            api_version: Version { version: "2" },
            billed_units: Billed { input_tokens: tokens, images },
        };
        Reply::new(&Response { embeddings, texts, meta }, bytes, response.timing)
    })
}

fn items<'a>(
    texts: Option<List<Text<'a>>>,
    images: Option<List<Text<'a>>>,
    inputs: Option<List<Content<'a>>>,
) -> Result<(&'static str, Vec<Item<'a>>), Problem> {
    match (texts, images, inputs) {
        (Some(List(texts)), None, None) => {
            Ok(("texts", texts.into_iter().map(|Text(text)| Item::Text(text)).collect()))
        }
        (None, Some(List(images)), None) => {
            Ok(("images", images.into_iter().map(|Text(image)| Item::Image(image)).collect()))
        }
        (None, None, Some(List(inputs))) => {
            let mut all = Vec::with_capacity(inputs.len());
            for (index, Content { content }) in inputs.into_iter().enumerate() {
                let mut parts = content.0.into_iter();
                let (Some(part), None) = (parts.next(), parts.next()) else {
                    let place = format!("inputs[{index}].content");
                    let message = "must have one part: a text and a picture together have no vector";
                    return Err(Problem::invalid(Place::Named(&place), message));
                };
                all.push(part);
            }
            Ok(("inputs", all))
        }
        _ => Err(Problem::invalid(Place::None, "exactly one of texts, images and inputs must be set")),
    }
}
