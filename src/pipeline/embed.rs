//! Embed: images and texts to vectors.

use super::error::{Error, InputError, Part, Place};
use super::images::Patience;
use super::progress::Progress;
use super::slots::Slots;
use super::{ImageSource, Pipeline, Timing, check_limit, timing, unit};
use crate::admission::{Admitted, Deadline};
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
    /// The edge could not make either of what the client sent, and says why.
    Wrong(Part, String),
}

impl Input {
    fn modality(&self) -> Option<Modality> {
        match self {
            Input::Image(_) => Some(Modality::Image),
            Input::Text(_) => Some(Modality::Text),
            Input::Wrong(..) => None,
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
    pub async fn embed(
        &self,
        request: EmbedRequest,
        deadline: Deadline,
        call: &Admitted,
    ) -> Result<EmbedResponse, Error> {
        let EmbedRequest { inputs, normalization, truncate } = request;
        self.check_inputs(inputs.len())?;
        let bytes = inputs.len() * self.embed_dim.get() * size_of::<f32>();
        check_limit(Place::Response, bytes, self.limits.response_bytes)?;
        let progress = Progress::of_call(call, self.clock);
        let operation = self.embed_inputs(inputs, normalization, truncate, deadline, &progress);
        let (results, timing) = self.until(deadline, &progress, operation).await?;
        Ok(EmbedResponse { results, timing })
    }

    /// One result per input, in order. Refuses what would be refused later.
    pub(super) async fn embed_inputs(
        &self,
        inputs: Vec<Input>,
        normalization: Normalization,
        truncate: Truncate,
        deadline: Deadline,
        progress: &Progress<'_>,
    ) -> Result<(Vec<Result<Embedding, InputError>>, Timing), Error> {
        let texts = texts(&inputs);
        if texts > 0 {
            self.preprocessor.takes_texts()?;
        }
        self.admissible(Modality::Text, texts, deadline)?;
        let start = self.clock.now();
        let terms = Terms { deadline, patience: Patience::None, truncate };
        let prepared = self.prepare(inputs, terms).await?;
        let preprocess = progress.prepared(start);

        let (slots, rows) = Slots::split(prepared, |Prepared { row, text }| (text, row));
        let embedded = self.run(rows, deadline, progress.span()).await?;
        let timing = timing(preprocess, &embedded);
        let results = slots.join(embedded, |text, Embedded { mut values, .. }| {
            if normalization == Normalization::L2 {
                unit(&mut values)?;
            }
            Ok(Embedding { values, text })
        });
        Ok((results?, timing))
    }

    /// Embeds one input of a stream: waits for room instead of being refused, and has one error.
    pub async fn embed_one(
        &self,
        input: Input,
        normalization: Normalization,
        truncate: Truncate,
        deadline: Deadline,
        call: &Admitted,
    ) -> Result<(Embedding, Timing), Error> {
        let progress = Progress::of_input(call, self.clock);
        self.until_answered(input.modality(), deadline, &progress, async {
            let start = self.clock.now();
            let terms = Terms { deadline, patience: Patience::UntilDeadline, truncate };
            let prepared = self.prepare(vec![input], terms).await?.pop();
            let Prepared { row, text } =
                prepared.unwrap_or_else(|| unreachable!("one input has one result"))?;
            let preprocess = progress.prepared(start);
            let mut row = self.run_when_there_is_room(row, deadline, progress.span()).await?;
            if normalization == Normalization::L2 {
                unit(&mut row.values)?;
            }
            let timing = timing(preprocess, std::slice::from_ref(&row));
            Ok((Embedding { values: row.values, text }, timing))
        })
        .await
    }

    pub(super) fn check_inputs(&self, count: usize) -> Result<(), Error> {
        if count == 0 {
            return Err(InputError::new(Place::Inputs, "must not be empty").into());
        }
        check_limit(Place::Inputs, count, self.limits.inputs)
    }

    /// Images and texts side by side; each result goes into the place of its input.
    async fn prepare(
        &self,
        inputs: Vec<Input>,
        terms: Terms,
    ) -> Result<Vec<Result<Prepared, InputError>>, Error> {
        let Terms { deadline, patience, truncate } = terms;
        let mut slots: Vec<Option<Result<Prepared, InputError>>> = Vec::new();
        let (mut images, mut image_slots, mut texts, mut text_slots) = (vec![], vec![], vec![], vec![]);
        for (index, input) in inputs.into_iter().enumerate() {
            slots.push(None);
            match input {
                Input::Image(source) => {
                    images.push((index, source));
                    image_slots.push(index);
                }
                Input::Text(text) => {
                    texts.push(text);
                    text_slots.push(index);
                }
                Input::Wrong(part, message) => {
                    self.metrics.input_errors(None).increment(1);
                    slots[index] = Some(Err(InputError { place: Place::Input(index, part), message }));
                }
            }
        }
        let images = self.images(images, deadline, patience)?;
        let (images, texts) = tokio::try_join!(images, self.preprocessor.texts(texts))?;
        for (index, image) in image_slots.into_iter().zip(images) {
            slots[index] = Some(image.map(|row| Prepared { row: Row::Image(row), text: None }));
        }
        for (index, tokens) in text_slots.into_iter().zip(texts) {
            let prepared = prepared_text(index, tokens, truncate);
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
    index: usize,
    tokens: Result<Tokens, TextError>,
    truncate: Truncate,
) -> Result<Prepared, InputError> {
    let place = Place::Input(index, Part::Text);
    let Tokens { row, tokens, truncated } = tokens.map_err(|error| InputError::new(place, error))?;
    if truncated && truncate == Truncate::Error {
        let message = format!("{tokens} tokens are more than the context length of {}", row.0.len());
        return Err(InputError::new(place, message));
    }
    Ok(Prepared { row: Row::Text(row), text: Some(TextUsage { tokens, truncated }) })
}
