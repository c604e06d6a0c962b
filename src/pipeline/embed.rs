//! Embed: images and texts to vectors.

use super::error::{Error, InputError};
use super::images::Patience;
use super::progress::Progress;
use super::{Deadline, ImageSource, Pipeline, Timing, timing, unit};
use crate::batcher::{Embedded, Row};
use crate::clip::text::{TextError, Tokens};
use crate::modality::Modality;

#[derive(Clone, Debug)]
pub struct EmbedRequest {
    pub inputs: Vec<Input>,
    pub normalization: Normalization,
    pub truncate: Truncate,
}

#[derive(Clone, Debug)]
pub enum Input {
    Image(ImageSource),
    Text(String),
    /// The client set neither.
    Missing,
}

impl Input {
    fn modality(&self) -> Option<Modality> {
        match self {
            Input::Image(_) => Some(Modality::Image),
            Input::Text(_) => Some(Modality::Text),
            Input::Missing => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalization {
    /// Unit length.
    L2,
    /// As the model's projection gives it.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncate {
    /// Keep what fits, and say so.
    End,
    /// A text that does not fit is that input's error.
    Error,
}

#[derive(Debug)]
pub struct EmbedResponse {
    /// One per input, in order.
    pub results: Vec<Result<Embedding, InputError>>,
    pub timing: Timing,
}

#[derive(Debug)]
pub struct Embedding {
    pub values: Vec<f32>,
    /// `None` for an image.
    pub text: Option<TextUsage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextUsage {
    /// Start and end tokens included, before truncation.
    pub tokens: u32,
    pub truncated: bool,
}

/// How inputs are prepared.
#[derive(Clone, Copy)]
struct Terms {
    deadline: Deadline,
    patience: Patience,
    truncate: Truncate,
}

/// An input that is ready to run.
struct Prepared {
    row: Row,
    text: Option<TextUsage>,
}

impl Pipeline {
    pub async fn embed(&self, request: EmbedRequest, deadline: Deadline) -> Result<EmbedResponse, Error> {
        self.check_inputs("inputs", request.inputs.len())?;
        let progress = Progress::default();
        self.until(deadline, &progress, async {
            self.admissible(Modality::Text, texts(&request.inputs), deadline)?;
            let start = self.clock.now();
            let path = |index| format!("inputs[{index}]");
            let terms = Terms { deadline, patience: Patience::None, truncate: request.truncate };
            let prepared = self.prepare(request.inputs, path, terms).await?;
            progress.prepared();
            let preprocess = self.clock.now().since(start);

            let mut rows = Vec::with_capacity(prepared.len());
            let slots: Vec<Result<Option<TextUsage>, InputError>> = prepared
                .into_iter()
                .map(|input| {
                    input.map(|Prepared { row, text }| {
                        rows.push(row);
                        text
                    })
                })
                .collect();
            let embedded = self.run(rows, deadline).await?;
            let timing = timing(preprocess, &embedded);
            Ok(EmbedResponse { results: place(slots, embedded, request.normalization)?, timing })
        })
        .await
    }

    /// Embeds one input of a stream: waits for room instead of being refused, and has one error.
    pub async fn embed_one(
        &self,
        input: Input,
        normalization: Normalization,
        truncate: Truncate,
        deadline: Deadline,
    ) -> Result<(Embedding, Timing), Error> {
        let progress = Progress::default();
        self.until_answered(input.modality(), deadline, &progress, async {
            let start = self.clock.now();
            let path = |_| "input".to_owned();
            let terms = Terms { deadline, patience: Patience::UntilDeadline, truncate };
            let prepared = self.prepare(vec![input], path, terms).await?.pop();
            let Prepared { row, text } = prepared
                .unwrap_or_else(|| unreachable!("one input has one result"))
                .map_err(Error::Invalid)?;
            progress.prepared();
            let preprocess = self.clock.now().since(start);
            let mut row = self.run_when_there_is_room(row, deadline).await?;
            if normalization == Normalization::L2 {
                unit(&mut row.values)?;
            }
            let timing = timing(preprocess, std::slice::from_ref(&row));
            Ok((Embedding { values: row.values, text }, timing))
        })
        .await
    }

    pub(super) fn check_inputs(&self, field: &str, count: usize) -> Result<(), Error> {
        let limit = self.limits.inputs;
        match count {
            0 => Err(Error::Invalid(InputError::new(field, "must not be empty"))),
            _ if count > limit => {
                let message = format!("{count} are more than the limit of {limit}");
                Err(Error::Invalid(InputError::new(field, message)))
            }
            _ => Ok(()),
        }
    }

    /// Images and texts side by side; each result goes into the place of its input. `path` names an input by
    /// its index.
    async fn prepare(
        &self,
        inputs: Vec<Input>,
        path: impl Fn(usize) -> String,
        terms: Terms,
    ) -> Result<Vec<Result<Prepared, InputError>>, Error> {
        let Terms { deadline, patience, truncate } = terms;
        let mut slots: Vec<Option<Result<Prepared, InputError>>> = Vec::new();
        let (mut images, mut image_slots, mut texts, mut text_slots) = (vec![], vec![], vec![], vec![]);
        for (index, input) in inputs.into_iter().enumerate() {
            slots.push(None);
            match input {
                Input::Image(source) => {
                    images.push(source);
                    image_slots.push(index);
                }
                Input::Text(text) => {
                    texts.push(text);
                    text_slots.push(index);
                }
                Input::Missing => {
                    self.metrics.input_errors(None).increment(1);
                    let error = InputError::new(path(index), "one of image and text must be set");
                    slots[index] = Some(Err(error));
                }
            }
        }
        let image_path = |image: usize| format!("{}.image", path(image_slots[image]));
        let images = self.images(images, image_path, deadline, patience)?;
        let (images, texts) = tokio::try_join!(images, self.preprocessor.texts(texts))?;
        for (index, image) in image_slots.into_iter().zip(images) {
            slots[index] = Some(image.map(|row| Prepared { row: Row::Image(row), text: None }));
        }
        for (index, tokens) in text_slots.into_iter().zip(texts) {
            let prepared = prepared_text(&path(index), tokens, truncate);
            if prepared.is_err() {
                self.metrics.input_errors(Some(Modality::Text)).increment(1);
            }
            slots[index] = Some(prepared);
        }
        Ok(slots.into_iter().flatten().collect())
    }
}

fn texts(inputs: &[Input]) -> usize {
    inputs.iter().filter(|input| input.modality() == Some(Modality::Text)).count()
}

fn prepared_text(
    path: &str,
    tokens: Result<Tokens, TextError>,
    truncate: Truncate,
) -> Result<Prepared, InputError> {
    let field = || format!("{path}.text");
    let Tokens { row, tokens, truncated } = tokens.map_err(|error| InputError::new(field(), error))?;
    if truncated && truncate == Truncate::Error {
        let message = format!("{tokens} tokens are more than the context length of {}", row.0.len());
        return Err(InputError::new(field(), message));
    }
    Ok(Prepared { row: Row::Text(row), text: Some(TextUsage { tokens, truncated }) })
}

/// Puts the results into the places of the inputs that ran.
fn place(
    slots: Vec<Result<Option<TextUsage>, InputError>>,
    embedded: Vec<Embedded>,
    normalization: Normalization,
) -> Result<Vec<Result<Embedding, InputError>>, Error> {
    let mut embedded = embedded.into_iter();
    slots
        .into_iter()
        .map(|slot| {
            let text = match slot {
                Ok(text) => text,
                Err(error) => return Ok(Err(error)),
            };
            let Some(Embedded { mut values, .. }) = embedded.next() else {
                unreachable!("every prepared input was submitted, and every ticket gave a row");
            };
            if normalization == Normalization::L2 {
                unit(&mut values)?;
            }
            Ok(Ok(Embedding { values, text }))
        })
        .collect()
}
