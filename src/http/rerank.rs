//! `POST /v1/rerank`, as Cohere and Jina have it: documents in the order of their similarity to a query. Query and
//! documents are texts, pictures, or embeddings that the client has. Relevance is a cosine.

use std::num::NonZeroUsize;
use std::sync::Arc;

use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Edge;
use super::entrance::{Answering, Asked, Reply};
use super::problem::{ErrorObject, Place, Problem};
use super::wire::{Item, List, Text, Usage, check_inputs, read};
use crate::pipeline::embed::Truncate;
use crate::pipeline::rank::{self, RankRequest};

#[derive(Deserialize, ToSchema)]
#[schema(as = RerankRequest)]
pub(super) struct Request<'a> {
    #[serde(borrow)]
    model: Option<Text<'a>>,
    #[serde(borrow)]
    query: Item<'a>,
    /// As they came, so that they can be returned so.
    #[serde(borrow)]
    #[schema(value_type = Vec<Item<'a>>)]
    documents: List<&'a RawValue>,
    #[serde(alias = "top_k")]
    top_n: Option<usize>,
    return_documents: Option<bool>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = RerankResponse)]
pub(super) struct Response<'a> {
    /// As the request named it.
    model: String,
    /// Best first.
    results: Vec<Ranked<'a>>,
    /// Documents that have no place; only where `clip-partial: true` asks for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Unranked>,
    usage: Usage,
}

#[derive(Serialize, ToSchema)]
struct Ranked<'a> {
    /// Position in the request, from 0.
    index: usize,
    /// Cosine of the angle between the embeddings of query and document, -1 to 1.
    relevance_score: f32,
    /// Probability that the two belong together, from models whose score function is the sigmoid.
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
    /// Only if the request asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    document: Option<Returned<'a>>,
}

/// A text is returned as an object, like any other document.
#[derive(Serialize)]
#[serde(untagged)]
enum Returned<'a> {
    Text { text: &'a RawValue },
    Object(&'a RawValue),
}

#[derive(Serialize, ToSchema)]
struct Unranked {
    index: usize,
    error: ErrorObject,
}

pub(super) fn answer(edge: Arc<Edge>, asked: Asked) -> Answering {
    Box::pin(async move {
        let request: Request<'_> = read(&asked.body)?;
        let model = edge.model(request.model.as_ref())?;
        let List(documents) = request.documents;
        let mut items = Vec::with_capacity(documents.len());
        for (index, document) in documents.iter().enumerate() {
            let item: Item<'_> = serde_json::from_str(document.get())
                .map_err(|error| Problem::invalid(Place::Named(&format!("documents[{index}]")), error))?;
            items.push(item);
        }
        // The query goes first.
        let rows = asked.admitted.take_rows(1 + items.len());
        rows.map_err(|refusal| Problem::refused(&refusal))?;
        let items = std::iter::once(request.query).chain(items);
        let mut items = try_join_all(items.map(|item| rank_item(&edge, item, &asked))).await?.into_iter();
        let query = items.next().unwrap_or_else(|| unreachable!("the query is there"));
        let items: Vec<rank::Item> = items.collect();
        if !asked.partial {
            let inputs = items.iter().enumerate().filter_map(|(index, item)| match item {
                rank::Item::Input(input) => Some((index, input)),
                rank::Item::Embedding(_) => None,
            });
            check_inputs(inputs, "documents")?;
        }
        if request.top_n == Some(0) {
            return Err(Problem::invalid(Place::Named("top_n"), "must be at least 1"));
        }
        let ranked = RankRequest {
            query,
            documents: items,
            top_k: request.top_n.and_then(NonZeroUsize::new),
            truncate: Truncate::End,
        };
        let ranked = edge.pipeline.rank(ranked, asked.deadline, &asked.admitted).await;
        let ranked = ranked.map_err(|error| Problem::of(&error, "documents"))?;
        if let (false, Some((_, error))) = (asked.partial, ranked.errors.first()) {
            return Err(Problem::of(&error.clone().into(), "documents"));
        }

        let wanted = request.return_documents == Some(true);
        let results = ranked.results.iter().map(|each| Ranked {
            index: each.index,
            relevance_score: each.similarity,
            score: each.score,
            document: wanted.then(|| returned(documents[each.index])),
        });
        let errors = ranked.errors.iter();
        let errors = errors
            .map(|(index, error)| Unranked { index: *index, error: ErrorObject::of(error, "documents") });
        let answer = Response {
            model,
            results: results.collect(),
            errors: errors.collect(),
            usage: Usage::new(ranked.tokens),
        };
        let bytes = if wanted { asked.body.len() } else { 0 };
        Reply::new(&answer, bytes, ranked.timing)
    })
}

async fn rank_item(edge: &Edge, item: Item<'_>, asked: &Asked) -> Result<rank::Item, Problem> {
    match item {
        Item::Embedding(embedding) => Ok(rank::Item::Embedding(embedding)),
        item => edge.input(item, asked).await.map(rank::Item::Input),
    }
}

fn returned(document: &RawValue) -> Returned<'_> {
    if document.get().starts_with('"') {
        Returned::Text { text: document }
    } else {
        Returned::Object(document)
    }
}
