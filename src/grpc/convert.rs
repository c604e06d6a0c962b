//! Wire types to domain types and back. No decisions beyond what the wire leaves open.

use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use half::f16;
use tonic::Code;
use tonic::metadata::MetadataMap;

use super::CLASS;
use super::place::Rpc;
use super::proto;
use super::status;
use crate::class::Class;
use crate::clip::classifier::Prediction;
use crate::clip::spec::Scores;
use crate::pipeline::classifiers::Labels;
use crate::pipeline::classify::{ClassifyRequest, ClassifyResponse};
use crate::pipeline::embed::{EmbedRequest, EmbedResponse, Embedding, Input, Normalization, Truncate};
use crate::pipeline::error::{Error, InputError, Part, Place};
use crate::pipeline::rank::{Item, RankRequest, RankResponse, Ranked};
use crate::pipeline::{ImageSource, Timing};
use crate::scheduler::cost::CostModel;

/// What a stream of images asks for.
pub(super) struct ClassifyOptions {
    pub(super) labels: Labels,
    /// `None`: all labels, or as the named classifier has it.
    pub(super) top_k: Option<NonZeroUsize>,
}

/// How the numbers of an embedding go over the wire.
#[derive(Clone, Copy)]
pub(super) enum EmbeddingFormat {
    Float32,
    Float32Bytes,
    Float16Bytes,
}

/// What one input of a stream asks for.
pub(super) struct StreamInput {
    pub(super) input: Input,
    pub(super) normalization: Normalization,
    pub(super) truncate: Truncate,
    pub(super) format: EmbeddingFormat,
}

pub(super) fn embed_request(request: proto::EmbedRequest) -> Result<EmbedRequest, Error> {
    let inputs = request.inputs.into_iter().map(input).collect();
    let (normalization, truncate) = (normalization(request.normalization)?, truncate(request.truncate)?);
    Ok(EmbedRequest { inputs, normalization, truncate })
}

fn normalization(value: i32) -> Result<Normalization, Error> {
    match proto::Normalization::try_from(value) {
        Ok(proto::Normalization::Unspecified | proto::Normalization::L2) => Ok(Normalization::L2),
        Ok(proto::Normalization::None) => Ok(Normalization::None),
        Err(error) => Err(unknown("normalization", error.0)),
    }
}

/// The class that a request's field or else the call's metadata asks for.
pub(super) fn class(field: i32, metadata: &MetadataMap) -> Result<Class, Error> {
    match proto::Class::try_from(field) {
        Ok(proto::Class::Interactive) => return Ok(Class::Interactive),
        Ok(proto::Class::Bulk) => return Ok(Class::Bulk),
        Ok(proto::Class::Unspecified) => {}
        Err(error) => return Err(unknown("class", error.0)),
    }
    match metadata.get(CLASS).map(|value| value.as_bytes()) {
        None => Ok(Class::default()),
        Some(b"interactive") => Ok(Class::Interactive),
        Some(b"bulk") => Ok(Class::Bulk),
        Some(_) => {
            Err(InputError::new(Place::Field("metadata clip-class"), "must be interactive or bulk").into())
        }
    }
}

pub(super) fn batch_costs((device, cost): &(String, CostModel)) -> impl Iterator<Item = proto::BatchCost> {
    cost.points().map(|batch| proto::BatchCost {
        device: device.clone(),
        modality: batch.modality.as_str().to_owned(),
        rows: u32::try_from(batch.rows).unwrap_or(u32::MAX),
        tokens: batch.tokens,
        duration: Some(duration(batch.elapsed)),
    })
}

pub(super) fn score_function(scores: Scores) -> proto::ScoreFunction {
    match scores {
        Scores::Softmax => proto::ScoreFunction::Softmax,
        Scores::Sigmoid => proto::ScoreFunction::Sigmoid,
    }
}

fn truncate(value: i32) -> Result<Truncate, Error> {
    match proto::Truncate::try_from(value) {
        Ok(proto::Truncate::Unspecified | proto::Truncate::End) => Ok(Truncate::End),
        Ok(proto::Truncate::Error) => Ok(Truncate::Error),
        Err(error) => Err(unknown("truncate", error.0)),
    }
}

pub(super) fn embedding_format(value: i32) -> Result<EmbeddingFormat, Error> {
    use proto::EmbeddingFormat as Wire;
    match Wire::try_from(value) {
        Ok(Wire::Unspecified | Wire::Float32) => Ok(EmbeddingFormat::Float32),
        Ok(Wire::Float32Bytes) => Ok(EmbeddingFormat::Float32Bytes),
        Ok(Wire::Float16Bytes) => Ok(EmbeddingFormat::Float16Bytes),
        Err(error) => Err(unknown("embedding_format", error.0)),
    }
}

fn unknown(field: &'static str, value: i32) -> Error {
    InputError::new(Place::Field(field), format!("unknown value {value}")).into()
}

fn input(input: proto::Input) -> Input {
    match input.content {
        Some(proto::input::Content::Image(image)) => Input::Image(image_source(image)),
        Some(proto::input::Content::Text(text)) => Input::Text(text),
        None => missing(),
    }
}

fn missing() -> Input {
    Input::Wrong(Part::Whole, "one of image and text must be set".to_owned())
}

fn image_source(image: proto::Image) -> ImageSource {
    match image.source {
        Some(proto::image::Source::Encoded(bytes)) => ImageSource::Encoded(bytes),
        Some(proto::image::Source::Rgb(proto::RgbImage { width, height, pixels })) => {
            ImageSource::Rgb { width, height, pixels }
        }
        None => no_image(),
    }
}

fn no_image() -> ImageSource {
    ImageSource::Wrong(Part::Image, "one of encoded and rgb must be set".to_owned())
}

pub(super) fn embed_response(response: EmbedResponse, format: EmbeddingFormat) -> proto::EmbedResponse {
    proto::EmbedResponse {
        results: response.results.into_iter().map(|result| embed_result(result, format)).collect(),
        timing: Some(wire_timing(response.timing)),
    }
}

fn embed_result(result: Result<Embedding, InputError>, format: EmbeddingFormat) -> proto::EmbedResult {
    use proto::embed_result::Result as Wire;
    let result = match result {
        Ok(embedding) => Wire::Embedding(wire_embedding(embedding, format)),
        Err(error) => Wire::Error(input_error(error, Rpc::Embed)),
    };
    proto::EmbedResult { result: Some(result) }
}

fn wire_embedding(Embedding { values, text }: Embedding, format: EmbeddingFormat) -> proto::Embedding {
    let (values, packed) = match format {
        EmbeddingFormat::Float32 => (values, Bytes::new()),
        EmbeddingFormat::Float32Bytes => (Vec::new(), values.iter().flat_map(|x| x.to_le_bytes()).collect()),
        EmbeddingFormat::Float16Bytes => {
            (Vec::new(), values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect())
        }
    };
    proto::Embedding {
        values,
        packed,
        tokens: text.map_or(0, |text| text.tokens),
        truncated: text.is_some_and(|text| text.truncated),
    }
}

pub(super) fn classify_request(request: proto::ClassifyRequest) -> Result<ClassifyRequest, Error> {
    Ok(ClassifyRequest {
        images: request.images.into_iter().map(image_source).collect(),
        labels: labels(request.classifier, request.labels, request.templates)?,
        top_k: NonZeroUsize::new(request.top_k as usize),
    })
}

fn labels(classifier: String, labels: Vec<Bytes>, templates: Vec<String>) -> Result<Labels, Error> {
    if classifier.is_empty() {
        return Ok(Labels::Listed { labels, templates });
    }
    if labels.is_empty() && templates.is_empty() {
        return Ok(Labels::Named(classifier));
    }
    Err(InputError::new(Place::Field("classifier"), "excludes labels and templates").into())
}

pub(super) fn classify_response(response: ClassifyResponse) -> proto::ClassifyResponse {
    use proto::classify_result::Result as Wire;
    let result = |result: Result<Vec<Prediction>, InputError>| match result {
        Ok(predictions) => Wire::Predictions(wire_predictions(&predictions, &response.labels)),
        Err(error) => Wire::Error(input_error(error, Rpc::Classify)),
    };
    proto::ClassifyResponse {
        results: response
            .results
            .into_iter()
            .map(|each| proto::ClassifyResult { result: Some(result(each)) })
            .collect(),
        timing: Some(wire_timing(response.timing)),
    }
}

fn wire_predictions(predictions: &[Prediction], labels: &[String]) -> proto::Predictions {
    proto::Predictions { predictions: predictions.iter().map(|each| prediction(each, labels)).collect() }
}

fn prediction(prediction: &Prediction, labels: &[String]) -> proto::Prediction {
    proto::Prediction {
        label: labels[prediction.index].clone(),
        index: u32::try_from(prediction.index).unwrap_or(u32::MAX),
        score: prediction.score,
        similarity: prediction.similarity,
    }
}

pub(super) fn rank_request(request: proto::RankRequest) -> Result<RankRequest, Error> {
    Ok(RankRequest {
        query: request.query.map_or_else(|| Item::Input(missing()), item),
        documents: request.documents.into_iter().map(item).collect(),
        top_k: NonZeroUsize::new(request.top_k as usize),
        truncate: truncate(request.truncate)?,
    })
}

fn item(item: proto::RankItem) -> Item {
    use proto::rank_item::Content;
    match item.content {
        Some(Content::Image(image)) => Item::Input(Input::Image(image_source(image))),
        Some(Content::Text(text)) => Item::Input(Input::Text(text)),
        Some(Content::Embedding(vector)) => Item::Embedding(vector.values),
        None => Item::Input(missing()),
    }
}

pub(super) fn rank_response(response: RankResponse) -> proto::RankResponse {
    let wire = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
    let ranked = response.results.into_iter();
    let errors = response.errors.into_iter();
    proto::RankResponse {
        results: ranked
            .map(|Ranked { index, similarity, score }| proto::RankedDocument {
                index: wire(index),
                similarity,
                score,
            })
            .collect(),
        errors: errors
            .map(|(index, error)| proto::DocumentError {
                index: wire(index),
                error: Some(input_error(error, Rpc::Rank)),
            })
            .collect(),
        timing: Some(wire_timing(response.timing)),
    }
}

pub(super) fn stream_input(message: proto::StreamEmbedRequest) -> Result<StreamInput, Error> {
    Ok(StreamInput {
        input: message.input.map_or_else(missing, input),
        normalization: normalization(message.normalization)?,
        truncate: truncate(message.truncate)?,
        format: embedding_format(message.embedding_format)?,
    })
}

pub(super) fn stream_embed_response(
    tag: u64,
    result: Result<(Embedding, EmbeddingFormat, Timing), Error>,
) -> proto::StreamEmbedResponse {
    use proto::stream_embed_response::Result as Wire;
    let (result, timing) = match result {
        Ok((embedding, format, timing)) => {
            (Wire::Embedding(wire_embedding(embedding, format)), Some(wire_timing(timing)))
        }
        Err(error) => (Wire::Error(stream_error(error, Rpc::StreamEmbed)), None),
    };
    proto::StreamEmbedResponse { tag, result: Some(result), timing }
}

/// The first message of a stream.
pub(super) fn classify_options(message: proto::StreamClassifyRequest) -> Result<ClassifyOptions, Error> {
    let Some(proto::stream_classify_request::Request::Options(options)) = message.request else {
        return Err(InputError::new(Place::Field("options"), "must be set in the first message").into());
    };
    let proto::ClassifyOptions { labels: listed, templates, top_k, classifier } = options;
    let labels = labels(classifier, listed, templates)?;
    Ok(ClassifyOptions { labels, top_k: NonZeroUsize::new(top_k as usize) })
}

/// Any message but the first: tag, image, timeout.
pub(super) fn tagged_image(
    message: proto::StreamClassifyRequest,
) -> Result<(u64, ImageSource, Option<Duration>), Error> {
    let Some(proto::stream_classify_request::Request::Image(image)) = message.request else {
        return Err(
            InputError::new(Place::Field("image"), "must be set in every message but the first").into()
        );
    };
    let proto::TaggedImage { tag, image, timeout: wire } = image;
    Ok((tag, image.map_or_else(no_image, image_source), timeout(wire)))
}

pub(super) fn stream_classify_response(
    tag: u64,
    result: Result<(Vec<Prediction>, Timing), Error>,
    labels: &[String],
) -> proto::StreamClassifyResponse {
    use proto::stream_classify_response::Result as Wire;
    let (result, timing) = match result {
        Ok((predictions, timing)) => {
            (Wire::Predictions(wire_predictions(&predictions, labels)), Some(wire_timing(timing)))
        }
        Err(error) => (Wire::Error(stream_error(error, Rpc::StreamClassify)), None),
    };
    proto::StreamClassifyResponse { tag, result: Some(result), timing }
}

/// Nonsense, such as a negative duration, is no timeout.
pub(super) fn timeout(wire: Option<prost_types::Duration>) -> Option<Duration> {
    Duration::try_from(wire?).ok()
}

/// In a stream, what would be the status of a call is the error of one input.
fn stream_error(error: Error, rpc: Rpc) -> proto::Error {
    if let Error::Invalid(input) = error {
        return input_error(input, rpc);
    }
    let status = status::from_error(&error, rpc);
    proto::Error { code: status.code() as i32, field: String::new(), message: status.message().to_owned() }
}

fn input_error(error: InputError, rpc: Rpc) -> proto::Error {
    let InputError { place, message } = error;
    proto::Error { code: Code::InvalidArgument as i32, field: rpc.field(place), message }
}

fn wire_timing(timing: Timing) -> proto::Timing {
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

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// The buffer of a message is one piece, and its parts are what the decoders get.
    #[test]
    fn contents_are_slices_of_the_message() {
        let encoded = proto::Image { source: Some(proto::image::Source::Encoded(vec![7; 1000].into())) };
        let request = proto::ClassifyRequest {
            images: vec![encoded],
            labels: vec![Bytes::from_static(b"a label")],
            ..proto::ClassifyRequest::default()
        };
        let message = Bytes::from(request.encode_to_vec());
        let within = |part: &Bytes| message.as_ptr_range().contains(&part.as_ptr());
        let request = classify_request(proto::ClassifyRequest::decode(message.clone()).unwrap()).unwrap();
        let [ImageSource::Encoded(image)] = &request.images[..] else { panic!("{request:?}") };
        let Labels::Listed { labels, .. } = &request.labels else { panic!("{request:?}") };
        assert!(within(image) && within(&labels[0]));
    }
}
