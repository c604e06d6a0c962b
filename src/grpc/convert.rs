//! Wire types to domain types and back. No decisions beyond what the wire leaves open.

use std::num::NonZeroUsize;
use std::time::Duration;

use tonic::Code;

use super::proto;
use crate::clip::classifier::Prediction;
use crate::pipeline::classify::{ClassifyRequest, ClassifyResponse};
use crate::pipeline::embed::{EmbedRequest, EmbedResponse, Embedding, Input, Normalization, Truncate};
use crate::pipeline::error::{Error, InputError};
use crate::pipeline::{ImageSource, Timing};

pub(super) fn embed_request(request: proto::EmbedRequest) -> Result<EmbedRequest, Error> {
    let normalization = match proto::Normalization::try_from(request.normalization) {
        Ok(proto::Normalization::Unspecified | proto::Normalization::L2) => Normalization::L2,
        Ok(proto::Normalization::None) => Normalization::None,
        Err(error) => return Err(unknown("normalization", error.0)),
    };
    let truncate = match proto::Truncate::try_from(request.truncate) {
        Ok(proto::Truncate::Unspecified | proto::Truncate::End) => Truncate::End,
        Ok(proto::Truncate::Error) => Truncate::Error,
        Err(error) => return Err(unknown("truncate", error.0)),
    };
    let inputs = request.inputs.into_iter().map(input).collect();
    Ok(EmbedRequest { inputs, normalization, truncate })
}

fn unknown(field: &str, value: i32) -> Error {
    Error::Invalid(InputError::new(field, format!("unknown value {value}")))
}

fn input(input: proto::Input) -> Input {
    match input.content {
        Some(proto::input::Content::Image(image)) => Input::Image(image_source(image)),
        Some(proto::input::Content::Text(text)) => Input::Text(text),
        None => Input::Missing,
    }
}

fn image_source(image: proto::Image) -> ImageSource {
    match image.source {
        Some(proto::image::Source::Encoded(bytes)) => ImageSource::Encoded(bytes),
        Some(proto::image::Source::Rgb(proto::RgbImage { width, height, pixels })) => {
            ImageSource::Rgb { width, height, pixels }
        }
        None => ImageSource::Missing,
    }
}

pub(super) fn embed_response(response: EmbedResponse) -> proto::EmbedResponse {
    proto::EmbedResponse {
        results: response.results.into_iter().map(embed_result).collect(),
        timing: Some(timing(response.timing)),
    }
}

fn embed_result(result: Result<Embedding, InputError>) -> proto::EmbedResult {
    use proto::embed_result::Result as Wire;
    let result = match result {
        Ok(Embedding { values, text }) => Wire::Embedding(proto::Embedding {
            values,
            tokens: text.map_or(0, |text| text.tokens),
            truncated: text.is_some_and(|text| text.truncated),
        }),
        Err(error) => Wire::Error(input_error(error)),
    };
    proto::EmbedResult { result: Some(result) }
}

pub(super) fn classify_request(request: proto::ClassifyRequest) -> ClassifyRequest {
    ClassifyRequest {
        images: request.images.into_iter().map(image_source).collect(),
        labels: request.labels,
        templates: request.templates,
        top_k: NonZeroUsize::new(request.top_k as usize),
    }
}

pub(super) fn classify_response(response: ClassifyResponse) -> proto::ClassifyResponse {
    use proto::classify_result::Result as Wire;
    let result = |result: Result<Vec<Prediction>, InputError>| match result {
        Ok(predictions) => Wire::Predictions(proto::Predictions {
            predictions: predictions.iter().map(|each| prediction(each, &response.labels)).collect(),
        }),
        Err(error) => Wire::Error(input_error(error)),
    };
    proto::ClassifyResponse {
        results: response
            .results
            .into_iter()
            .map(|each| proto::ClassifyResult { result: Some(result(each)) })
            .collect(),
        timing: Some(timing(response.timing)),
    }
}

fn prediction(prediction: &Prediction, labels: &[String]) -> proto::Prediction {
    proto::Prediction {
        label: labels[prediction.index].clone(),
        index: u32::try_from(prediction.index).unwrap_or(u32::MAX),
        score: prediction.score,
        similarity: prediction.similarity,
    }
}

fn input_error(error: InputError) -> proto::Error {
    proto::Error { code: Code::InvalidArgument as i32, field: error.field, message: error.message }
}

fn timing(timing: Timing) -> proto::Timing {
    proto::Timing {
        preprocess: Some(duration(timing.preprocess)),
        queue: Some(duration(timing.queue)),
        inference: Some(duration(timing.inference)),
    }
}

/// Durations here are shorter than the 292 billion years that the wire can say.
pub(super) fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration).unwrap_or_default()
}
