//! The label cache: a label set that was seen before costs no text run.
//!
//! Two levels, both bounded in bytes. Prompts (one text, one embedding) let label sets that overlap share
//! work, and keep the progress of a fill that was interrupted. Classifiers (one label set, one matrix) make
//! a repeated request cost one lookup instead of one per prompt.
//!
//! Embedding a cold label set is background work that belongs to nobody: it is done once for all requests
//! that wait for it, and goes on when they have given up. 1,000 cold labels take seconds on a CPU; tied to
//! the request that asked, they would expire with it and be repeated for ever.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use metrics::Counter;
use moka::future::Cache;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::error::{Error, InputError, RefusalReason};
use super::preprocess::Preprocessor;
use super::{Options, run};
use crate::batcher::{Handle, Row};
use crate::clip::classifier::{Classifier, Logits};
use crate::clip::prompt::PromptTemplate;
use crate::clock::Clock;
use crate::scheduler::Class;

/// Parts of a fill that are tokenized or embedded at a time: one runs, the next is ready.
const PARTS_IN_FLIGHT: usize = 2;

/// SHA-256 over templates and labels.
type ClassifierKey = [u8; 32];

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct LabelCache {
    classifiers: Cache<ClassifierKey, Arc<Classifier>>,
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
        LabelCache {
            classifiers: Cache::builder()
                .max_capacity(half)
                .weigher(|_, classifier: &Arc<Classifier>| weight(classifier.matrix_bytes()))
                .build(),
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

    /// The classifier of a label set, made if it is not cached. Dropping the future does not stop the making.
    pub(super) async fn classifier(
        &self,
        labels: Arc<[String]>,
        templates: Vec<PromptTemplate>,
    ) -> Result<Arc<Classifier>, Error> {
        let key = classifier_key(&labels, &templates);
        if let Some(classifier) = self.classifiers.get(&key).await {
            self.filler.hits.increment((labels.len() * templates.len()) as u64);
            return Ok(classifier);
        }
        let prompts = u32::try_from(labels.len() * templates.len()).unwrap_or(u32::MAX);
        let permit = self
            .filling
            .clone()
            .try_acquire_many_owned(prompts)
            .map_err(|_| Error::refused(RefusalReason::LabelFills, Duration::from_secs(1)))?;
        let this = self.clone();
        let fill = tokio::spawn(async move {
            let _permit = permit;
            let fill = this.filler.fill(&this.prompts, labels, templates);
            this.classifiers.try_get_with(key, fill).await
        });
        match fill.await {
            Ok(result) => result.map_err(|error| (*error).clone()),
            Err(error) => Err(Error::Internal(format!("embedding labels: {error}"))),
        }
    }
}

impl Filler {
    async fn fill(
        &self,
        cache: &Cache<Arc<str>, Arc<[f32]>>,
        labels: Arc<[String]>,
        templates: Vec<PromptTemplate>,
    ) -> Result<Arc<Classifier>, Error> {
        // Prompts of one label lie together: [labels, templates].
        let prompts: Vec<Arc<str>> = labels
            .iter()
            .flat_map(|label| templates.iter().map(move |template| Arc::from(template.render(label))))
            .collect();
        let mut known: HashMap<Arc<str>, Arc<[f32]>> = HashMap::with_capacity(prompts.len());
        let mut missing = Vec::new();
        for (position, prompt) in prompts.iter().enumerate() {
            match cache.get(prompt).await {
                Some(embedding) => {
                    known.insert(prompt.clone(), embedding);
                }
                None => missing.push((position / templates.len(), prompt.clone())),
            }
        }
        self.hits.increment((prompts.len() - missing.len()) as u64);
        self.misses.increment(missing.len() as u64);

        let parts: Vec<Vec<_>> = missing.chunks(self.rows).map(<[_]>::to_vec).collect();
        let mut embedded = stream::iter(parts).map(|part| self.embed(part)).buffered(PARTS_IN_FLIGHT);
        while let Some(part) = embedded.try_next().await? {
            for (prompt, embedding) in part {
                cache.insert(prompt.clone(), embedding.clone()).await;
                known.insert(prompt, embedding);
            }
        }
        let (embed_dim, logits) = (self.embed_dim, self.logits.clone());
        self.preprocessor
            .blocking(move || {
                let embeddings: Vec<f32> =
                    prompts.iter().flat_map(|prompt| known[prompt].iter().copied()).collect();
                let templates = NonZeroUsize::new(templates.len()).unwrap_or(NonZeroUsize::MIN);
                Classifier::from_prompts(labels, templates, embed_dim, &embeddings, logits)
            })
            .await?
            .map(Arc::new)
            .map_err(|error| Error::Internal(format!("making a classifier: {error}")))
    }

    /// Embeds some prompts as bulk work; each comes with the index of its label.
    async fn embed(&self, part: Vec<(usize, Arc<str>)>) -> Result<Vec<(Arc<str>, Arc<[f32]>)>, Error> {
        let texts = part.iter().map(|(_, prompt)| prompt.to_string()).collect();
        let tokens = self.preprocessor.texts(texts).await?;
        let rows = tokens
            .into_iter()
            .zip(&part)
            .map(|(tokens, (label, _))| {
                let invalid = |error| Error::Invalid(InputError::new(format!("labels[{label}]"), error));
                Ok(Row::Text(tokens.map_err(invalid)?.row))
            })
            .collect::<Result<Vec<Row>, Error>>()?;
        let start_by = self.clock.now().saturating_add(self.timeout);
        let embedded = run(&self.batcher, rows, Class::Bulk, start_by).await?;
        Ok(part.into_iter().zip(embedded).map(|((_, prompt), row)| (prompt, Arc::from(row.values))).collect())
    }
}

/// Lengths are hashed too, so that moving a boundary between labels changes the key.
fn classifier_key(labels: &[String], templates: &[PromptTemplate]) -> ClassifierKey {
    let mut hash = Sha256::new();
    hash.update((templates.len() as u64).to_le_bytes());
    let templates: Vec<String> = templates.iter().map(ToString::to_string).collect();
    for text in templates.iter().chain(labels) {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    hash.finalize().into()
}

/// A cache weighs entries in 32 bits; an entry of 4 GiB would exceed any sensible capacity anyway.
fn weight(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
