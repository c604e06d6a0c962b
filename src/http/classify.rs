//! `POST /v1/classify` as Jina has it, with a named classifier or labels, and Hugging Face's zero-shot image
//! classification.

use std::borrow::Cow;
use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Edge;
use super::entrance::{Answering, Asked, Reply};
use super::problem::{ErrorObject, Place, Problem};
use super::wire::{Item, Items, List, Text, Usage, check_inputs, read};
use crate::pipeline::ImageSource;
use crate::pipeline::classifiers::Labels;
use crate::pipeline::classify::{ClassifyRequest, ClassifyResponse};
use crate::pipeline::embed::Input;
use crate::pipeline::error::Part;

#[derive(Deserialize, ToSchema)]
#[schema(as = ClassifyRequest)]
pub(super) struct Request<'a> {
    #[serde(borrow)]
    model: Option<Text<'a>>,
    #[serde(borrow)]
    input: Items<'a>,
    #[serde(borrow)]
    labels: Option<List<Text<'a>>>,
    /// A classifier of the server.
    #[serde(alias = "classifier")]
    classifier_id: Option<String>,
    templates: Option<List<String>>,
    top_k: Option<usize>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ClassifyResponse)]
pub(super) struct Response<'a> {
    /// In the order of the request.
    data: Vec<Datum<'a>>,
    usage: Usage,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Classification)]
struct Datum<'a> {
    object: &'static str,
    index: usize,
    /// The best label.
    #[serde(skip_serializing_if = "Option::is_none")]
    prediction: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
    /// Best first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    predictions: Vec<Prediction<'a>>,
    /// Only where `clip-partial: true` asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorObject>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Prediction<'a> {
    label: &'a str,
    /// Probability among all labels.
    score: f32,
    /// Cosine of image and label, -1 to 1.
    similarity: f32,
}

pub(super) fn answer(edge: Arc<Edge>, asked: Asked) -> Answering {
    Box::pin(async move {
        let request: Request<'_> = read(&asked.body)?;
        edge.model(request.model.as_ref())?;
        let inputs = pictures(&edge, request.input.0, &asked).await?;
        if !asked.partial {
            check_inputs(inputs.iter().enumerate(), "input")?;
        }
        let templates = request.templates.map_or_else(Vec::new, |List(templates)| templates);
        let labels = match (request.classifier_id, request.labels) {
            (Some(name), None) if templates.is_empty() => Labels::Named(name),
            (Some(_), _) => {
                return Err(Problem::invalid(Place::Named("classifier_id"), "excludes labels and templates"));
            }
            (None, Some(List(labels))) => {
                Labels::Listed { labels: labels.into_iter().map(label).collect(), templates }
            }
            (None, None) => {
                return Err(Problem::invalid(Place::Named("labels"), "labels or classifier_id must be set"));
            }
        };
        let response = classify(&edge, &asked, inputs, labels, request.top_k, "input").await?;

        let mut data = Vec::with_capacity(response.results.len());
        for (index, result) in response.results.iter().enumerate() {
            let (predictions, error) = match result {
                Ok(predictions) => (written(predictions, &response.labels), None),
                Err(error) if asked.partial => (Vec::new(), Some(ErrorObject::of(error, "input"))),
                Err(error) => return Err(Problem::of(&error.clone().into(), "input")),
            };
            let best = predictions.first();
            data.push(Datum {
                object: "classification",
                index,
                prediction: best.map(|best| best.label),
                score: best.map(|best| best.score),
                predictions,
                error,
            });
        }
        let bytes = response.bytes();
        Reply::new(&Response { data, usage: Usage::new(0) }, bytes, response.timing)
    })
}

#[derive(Deserialize, ToSchema)]
pub(super) struct ZeroShot<'a> {
    #[serde(borrow)]
    inputs: ZeroShotInputs<'a>,
    /// In older requests the labels stand beside the image.
    #[serde(borrow)]
    parameters: Option<Parameters<'a>>,
}

#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
enum ZeroShotInputs<'a> {
    Image(#[serde(borrow)] Text<'a>),
    Object {
        #[serde(borrow)]
        image: Text<'a>,
    },
}

#[derive(Deserialize, ToSchema)]
struct Parameters<'a> {
    #[serde(borrow, alias = "candidateLabels")]
    candidate_labels: List<Text<'a>>,
    #[serde(alias = "hypothesisTemplate")]
    hypothesis_template: Option<String>,
}

pub(super) fn zero_shot(edge: Arc<Edge>, asked: Asked) -> Answering {
    Box::pin(async move {
        let ZeroShot { inputs, parameters } = read(&asked.body)?;
        let (ZeroShotInputs::Image(Text(image)) | ZeroShotInputs::Object { image: Text(image) }) = inputs;
        let inputs = pictures(&edge, vec![Item::Image(image)], &asked).await?;
        check_inputs(inputs.iter().enumerate(), "inputs")?;
        let Some(Parameters { candidate_labels: List(labels), hypothesis_template }) = parameters else {
            return Err(Problem::invalid(Place::Named("parameters.candidate_labels"), "must be set"));
        };
        // What the library that this shape comes from takes.
        let template = hypothesis_template.unwrap_or_else(|| "This is a photo of {}.".to_owned());
        let labels =
            Labels::Listed { labels: labels.into_iter().map(label).collect(), templates: vec![template] };
        let response = classify(&edge, &asked, inputs, labels, None, "inputs").await?;
        let predictions = match response.results.first() {
            Some(Ok(predictions)) => written(predictions, &response.labels),
            Some(Err(error)) => return Err(Problem::of(&error.clone().into(), "inputs")),
            None => Vec::new(),
        };
        Reply::new(&predictions, response.bytes(), response.timing)
    })
}

/// `inputs` are pictures or what is wrong with them.
async fn classify(
    edge: &Edge,
    asked: &Asked,
    inputs: Vec<Input>,
    labels: Labels,
    top_k: Option<usize>,
    name: &str,
) -> Result<ClassifyResponse, Problem> {
    if top_k == Some(0) {
        return Err(Problem::invalid(Place::Named("top_k"), "must be at least 1"));
    }
    let images = inputs.into_iter().map(|input| match input {
        Input::Image(source) => source,
        Input::Wrong(part, message) => ImageSource::Wrong(part, message),
        Input::Text(_) => unreachable!("texts were made wrong inputs"),
    });
    let request =
        ClassifyRequest { images: images.collect(), labels, top_k: top_k.and_then(NonZeroUsize::new) };
    let response = edge.pipeline.classify(request, asked.deadline, &asked.admitted).await;
    response.map_err(|error| Problem::of(&error, name))
}

/// Only pictures are classified.
async fn pictures(edge: &Edge, items: Vec<Item<'_>>, asked: &Asked) -> Result<Vec<Input>, Problem> {
    let inputs = edge.inputs(items, asked).await?.into_iter().map(|input| match input {
        Input::Text(_) => Input::Wrong(Part::Whole, "is a text: send {\"image\": \"<base64>\"}".to_owned()),
        input => input,
    });
    Ok(inputs.collect())
}

fn label(Text(label): Text<'_>) -> Bytes {
    match label {
        Cow::Borrowed(label) => Bytes::copy_from_slice(label.as_bytes()),
        Cow::Owned(label) => label.into(),
    }
}

fn written<'a>(
    predictions: &[crate::clip::classifier::Prediction],
    labels: &'a [String],
) -> Vec<Prediction<'a>> {
    let written = predictions.iter().map(|each| Prediction {
        label: &labels[each.index],
        score: each.score,
        similarity: each.similarity,
    });
    written.collect()
}
