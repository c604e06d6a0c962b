//! The label cache: a label set that was seen before costs no text run.
//!
//! Two levels, both bounded in bytes. Prompts (one text, one embedding) let label sets that overlap share
//! work, and keep the progress of a fill that was interrupted. Classifiers (one label set, one matrix) make
//! a repeated request cost one lookup instead of one per prompt.
//!
//! Embedding a cold label set is background work that belongs to nobody: it is done once for all requests
//! that wait for it, and goes on when they have given up. 1,000 cold labels take seconds on a CPU; tied to
//! the request that asked, they would expire with it and be repeated for ever.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use equivalent::Equivalent;
use foldhash::fast::RandomState;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use metrics::Counter;
use moka::future::Cache;
use tokio::sync::Semaphore;

use super::error::{Error, InputError, Place};
use super::label_set::{LabelSet, Listed};
use super::preprocess::Preprocessor;
use super::{Options, run};
use crate::admission::{Deadline, Reason};
use crate::batcher::{Handle, Row};
use crate::clip::classifier::{Classifier, Logits};
use crate::clock::Clock;

/// Parts of a fill that are tokenized or embedded at a time: one runs, the next is ready.
const PARTS_IN_FLIGHT: usize = 2;

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct LabelCache {
    classifiers: Cache<LabelSet, Arc<Classifier>, RandomState>,
    prompts: Cache<Arc<str>, Arc<[f32]>>,
    /// A permit for each prompt of the label sets that are being embedded; abandoned ones count.
    filling: Arc<Semaphore>,
    filler: Arc<Filler>,
}

/// What it takes to embed prompts.
struct Filler {
    preprocessor: Arc<Preprocessor>,
    batcher: Handle,
    rows: usize,
    timeout: Duration,
    embed_dim: NonZeroUsize,
    logits: Logits,
    clock: Clock,
    hits: Counter,
    misses: Counter,
}

impl LabelCache {
    pub(super) fn new(options: &Options, preprocessor: Arc<Preprocessor>, batcher: Handle) -> LabelCache {
        let half = options.label_cache_bytes / 2;
        let embed_dim = options.embed_dim.get();
        LabelCache {
            classifiers: Cache::builder()
                .max_capacity(half)
                .weigher(move |set: &LabelSet, _: &Arc<Classifier>| {
                    weight(set.bytes() + set.labels().len() * embed_dim * size_of::<f32>())
                })
                .build_with_hasher(RandomState::default()),
            prompts: Cache::builder()
                .max_capacity(half)
                .weigher(|prompt: &Arc<str>, embedding: &Arc<[f32]>| {
                    weight(prompt.len() + size_of_val::<[f32]>(embedding))
                })
                .build(),
            filling: Arc::new(Semaphore::new(options.limits.prompts)),
            filler: Arc::new(Filler {
                preprocessor,
                batcher,
                rows: options.fill_rows.get(),
                timeout: options.fill_timeout,
                embed_dim: options.embed_dim,
                logits: options.logits.clone(),
                clock: options.clock,
                hits: options.metrics.label_cache_hits(),
                misses: options.metrics.label_cache_misses(),
            }),
        }
    }

    /// The classifier of what a request lists, if it is cached.
    pub(super) async fn listed(&self, listed: &Listed<'_>) -> Option<Arc<Classifier>> {
        self.cached(listed, listed.prompts()).await
    }

    async fn cached<Q>(&self, set: &Q, prompts: usize) -> Option<Arc<Classifier>>
    where
        Q: Equivalent<LabelSet> + Hash + ?Sized,
    {
        let classifier = self.classifiers.get(set).await?;
        self.filler.hits.increment(prompts as u64);
        Some(classifier)
    }

    /// The classifier of a label set, made if it is not cached. Dropping the future does not stop the making.
    pub(super) async fn classifier(&self, set: LabelSet) -> Result<Arc<Classifier>, Error> {
        if let Some(classifier) = self.cached(&set, set.prompts()).await {
            return Ok(classifier);
        }
        let permits = u32::try_from(set.prompts()).unwrap_or(u32::MAX);
        let this = self.clone();
        let fill = tokio::spawn(async move {
            // Inside, so that it is asked for once and not by each who waits for this fill.
            let make = async {
                let _permit = this
                    .filling
                    .clone()
                    .try_acquire_many_owned(permits)
                    .map_err(|_| Error::refused(Reason::LabelFills, Duration::from_secs(1)))?;
                this.filler.fill(&this.prompts, set.clone()).await
            };
            this.classifiers.try_get_with(set.clone(), make).await
        });
        match fill.await {
            Ok(result) => result.map_err(|error| (*error).clone()),
            Err(error) => Err(Error::Internal(format!("embedding labels: {error}"))),
        }
    }
}

impl Filler {
    /// Prompts are made when they are needed and not kept: together they may be far larger than the labels.
    async fn fill(
        &self,
        cache: &Cache<Arc<str>, Arc<[f32]>>,
        set: LabelSet,
    ) -> Result<Arc<Classifier>, Error> {
        let mut embeddings: Vec<Option<Arc<[f32]>>> = Vec::with_capacity(set.prompts());
        for number in 0..set.prompts() {
            embeddings.push(cache.get(&set.prompt(number)).await);
            // A cache answers at once; other tasks of this thread want their turn.
            tokio::task::coop::consume_budget().await;
        }
        let missing: Vec<usize> =
            (0..embeddings.len()).filter(|number| embeddings[*number].is_none()).collect();
        self.hits.increment((embeddings.len() - missing.len()) as u64);
        self.misses.increment(missing.len() as u64);

        let parts: Vec<Vec<usize>> = missing.chunks(self.rows).map(<[_]>::to_vec).collect();
        let mut embedded = stream::iter(parts)
            .map(|part| async { self.embed(&set, &part).await.map(|rows| (part, rows)) })
            .buffered(PARTS_IN_FLIGHT);
        while let Some((part, rows)) = embedded.try_next().await? {
            for (number, row) in part.into_iter().zip(rows) {
                cache.insert(set.prompt(number), row.clone()).await;
                embeddings[number] = Some(row);
            }
        }
        drop(embedded);
        let (embed_dim, logits) = (self.embed_dim, self.logits.clone());
        self.preprocessor
            .blocking(move || {
                let embeddings: Vec<f32> =
                    embeddings.iter().flatten().flat_map(|row| row.iter().copied()).collect();
                let templates = NonZeroUsize::new(set.templates()).unwrap_or(NonZeroUsize::MIN);
                Classifier::from_prompts(set.labels().clone(), templates, embed_dim, &embeddings, logits)
            })
            .await?
            .map(Arc::new)
            .map_err(|error| Error::Internal(format!("making a classifier: {error}")))
    }

    /// Embeds some prompts as bulk work.
    async fn embed(&self, set: &LabelSet, part: &[usize]) -> Result<Vec<Arc<[f32]>>, Error> {
        let texts = part.iter().map(|number| set.prompt(*number).to_string()).collect();
        let tokens = self.preprocessor.texts(texts).await?;
        let rows = tokens
            .into_iter()
            .zip(part)
            .map(|(tokens, number)| {
                let place = Place::Label(set.label(*number));
                let tokens = tokens.map_err(|error| InputError::new(place, error))?;
                Ok(Row::Text(tokens.row))
            })
            .collect::<Result<Vec<Row>, Error>>()?;
        let deadline = Deadline::of_own_work(self.clock.now(), self.timeout);
        let embedded = run(&self.batcher, rows, deadline, None).await?;
        Ok(embedded.into_iter().map(|row| Arc::from(row.values)).collect())
    }
}

/// A cache weighs entries in 32 bits; an entry of 4 GiB would exceed any sensible capacity anyway.
fn weight(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
