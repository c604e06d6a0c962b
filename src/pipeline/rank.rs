//! Rank: documents by how near they are to a query, each an image, a text or a vector that the client has already.

use std::num::NonZeroUsize;

use super::embed::{Embedding, Input, Normalization, TextUsage, Truncate};
use super::error::{Error, InputError, Part, Place};
use super::progress::Progress;
use super::{Pipeline, Timing};
use crate::admission::{Admitted, Deadline};
use crate::clip::embedding::{dot, normalize};

#[derive(Clone, Debug)]
pub struct RankRequest {
    pub query: Item,
    pub documents: Vec<Item>,
    /// `None`: all documents.
    pub top_k: Option<NonZeroUsize>,
    pub truncate: Truncate,
}

#[derive(Clone, Debug)]
pub enum Item {
    Input(Input),
    /// Of this model and of any length but zero.
    Embedding(Vec<f32>),
}

#[derive(Debug)]
pub struct RankResponse {
    /// Best first; documents of the same similarity in the order of the request.
    pub results: Vec<Ranked>,
    /// Documents that have no place, by their index.
    pub errors: Vec<(usize, InputError)>,
    /// Tokens of all texts, before truncation.
    pub tokens: u32,
    pub timing: Timing,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranked {
    /// Position in the request.
    pub index: usize,
    /// Cosine to the query, -1 to 1.
    pub similarity: f32,
    /// Probability that it belongs to the query, from models that were trained to tell.
    pub score: Option<f32>,
}

impl Pipeline {
    pub async fn rank(
        &self,
        request: RankRequest,
        deadline: Deadline,
        call: &Admitted,
    ) -> Result<RankResponse, Error> {
        let RankRequest { query, documents, top_k, truncate } = request;
        self.check_inputs(documents.len())?;
        let progress = Progress::of_call(call, self.clock);
        self.until(deadline, &progress, async {
            // The query goes first, so that an input's number is one more than its document's.
            let items: Vec<Item> = std::iter::once(query).chain(documents).collect();
            let (vectors, inputs) = self.given(items);
            let l2 = Normalization::L2;
            let (embedded, timing) = self.embed_inputs(inputs, l2, truncate, deadline, &progress).await?;
            let mut tokens = 0;
            let mut embedded = embedded.into_iter().map(|result| {
                result.map(|Embedding { values, text }| {
                    tokens += text.map_or(0, |TextUsage { tokens, .. }| tokens);
                    values
                })
            });
            // Errors of inputs that ran are numbered among those; here they are of the place they stand in.
            let at = |index: usize, part: Part| match index {
                0 => Place::Query(part),
                document => Place::Input(document - 1, part),
            };
            let mut vectors = vectors.into_iter().enumerate().map(|(index, vector)| {
                let vector = match vector {
                    Given::Vector(vector) => Ok(vector),
                    Given::Wrong(message) => Err((Part::Embedding, message)),
                    Given::Input => match embedded.next() {
                        Some(result) => result.map_err(|error| (error.place.part(), error.message)),
                        None => unreachable!("every input has a result"),
                    },
                };
                vector.map_err(|(part, message)| InputError { place: at(index, part), message })
            });
            let query = vectors.next().unwrap_or_else(|| unreachable!("the query is there"))?;
            let (mut results, mut errors) = (Vec::new(), Vec::new());
            for (index, document) in vectors.enumerate() {
                match document {
                    Ok(document) => {
                        let similarity = dot(&query, &document);
                        results.push(Ranked { index, similarity, score: self.logits.pair(similarity) });
                    }
                    Err(error) => errors.push((index, error)),
                }
            }
            results.sort_by(|a, b| b.similarity.total_cmp(&a.similarity));
            results.truncate(top_k.map_or(usize::MAX, NonZeroUsize::get));
            Ok(RankResponse { results, errors, tokens, timing })
        })
        .await
    }

    /// Vectors that the client has, of length 1, and the inputs that have to be embedded.
    fn given(&self, items: Vec<Item>) -> (Vec<Given>, Vec<Input>) {
        let mut inputs = Vec::with_capacity(items.len());
        let given = items.into_iter().map(|item| match item {
            Item::Input(input) => {
                inputs.push(input);
                Given::Input
            }
            Item::Embedding(mut vector) => {
                let (expected, actual) = (self.embed_dim.get(), vector.len());
                if actual != expected {
                    return Given::Wrong(format!("{actual} numbers, where the model has {expected}"));
                }
                match normalize(&mut vector) {
                    Ok(()) => Given::Vector(vector),
                    Err(error) => Given::Wrong(error.to_string()),
                }
            }
        });
        (given.collect(), inputs)
    }
}

/// Where the vector of an item comes from.
enum Given {
    Vector(Vec<f32>),
    Wrong(String),
    Input,
}
