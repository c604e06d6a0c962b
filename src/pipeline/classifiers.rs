//! What images are compared with: labels of the request, or a classifier that the server has by name.
//!
//! Finds label sets in the cache or checks them, and keeps the named classifiers: label sets, embedded when they are
//! first needed or in the background, and trained linear heads, which need no embedding.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OnceCell;

use super::error::{Error, InputError, Place};
use super::label_set::{LabelSet, Listed, check_labels, utf8};
use super::{Pipeline, check_limit};
use crate::clip::classifier::Classifier;
use crate::clip::prompt::PromptTemplate;

/// Which labels a request asks for.
#[derive(Clone, Debug)]
pub enum Labels {
    Listed {
        /// Texts as they came: that they are UTF-8 is checked with the rest.
        labels: Vec<Bytes>,
        /// Empty: the default template.
        templates: Vec<String>,
    },
    /// A classifier of the server.
    Named(String),
}

/// A classifier of the server, as its operator describes it.
#[derive(Clone, Debug)]
pub struct Description {
    pub name: String,
    pub labels: Vec<String>,
    pub source: Source,
    /// For requests that do not say; `None`: all labels.
    pub top_k: Option<NonZeroUsize>,
}

#[derive(Clone, Debug)]
pub enum Source {
    Prompts {
        /// Empty: the default template.
        templates: Vec<String>,
    },
    /// `weights` of shape [labels, embed_dim] and one bias per label.
    Head { weights: Vec<f32>, biases: Vec<f32> },
}

/// By name.
pub(super) type Named = BTreeMap<String, NamedClassifier>;

pub(super) struct NamedClassifier {
    top_k: Option<NonZeroUsize>,
    /// `None`: a linear head.
    set: Option<LabelSet>,
    classifier: OnceCell<Arc<Classifier>>,
}

/// What a request asks for, once it is checked.
pub(super) enum Chosen<'a> {
    Cached(Arc<Classifier>),
    /// Some embeddings may be missing.
    Listed(LabelSet),
    Named(&'a NamedClassifier),
}

impl Pipeline {
    /// Adds a classifier of the server. An error names the field of the description.
    pub fn add_classifier(&mut self, description: Description) -> Result<(), Error> {
        let Description { name, labels, source, top_k } = description;
        let named = match source {
            Source::Prompts { templates } => {
                self.preprocessor.takes_texts()?;
                let set = LabelSet::new(labels, self.templates(&templates)?, &self.limits)?;
                NamedClassifier { top_k, set: Some(set), classifier: OnceCell::new() }
            }
            Source::Head { weights, biases } => {
                check_labels(&labels, &self.limits)?;
                let classifier = Classifier::from_head(labels.into(), self.embed_dim, weights, biases)
                    .map_err(|error| Error::Invalid(InputError::new(Place::Head, error)))?;
                NamedClassifier {
                    top_k,
                    set: None,
                    classifier: OnceCell::new_with(Some(Arc::new(classifier))),
                }
            }
        };
        self.named.insert(name, named);
        Ok(())
    }

    pub fn classifier_names(&self) -> impl Iterator<Item = &str> {
        self.named.keys().map(String::as_str)
    }

    /// Embeds the labels of every named classifier, one after the other, so that requests need not wait.
    /// One that fails is left to the first request that needs it.
    pub async fn embed_named_classifiers(&self) {
        for (name, named) in &self.named {
            match self.named_classifier(named).await {
                Ok(classifier) => {
                    tracing::info!(name, labels = classifier.labels().len(), "classifier ready");
                }
                Err(error) => tracing::warn!(name, %error, "classifier not embedded yet"),
            }
        }
    }

    pub(super) async fn choose(&self, labels: Labels) -> Result<Chosen<'_>, Error> {
        match labels {
            Labels::Listed { labels, templates } => self.listed(labels, &templates).await,
            Labels::Named(name) => {
                let named = self.named.get(&name);
                named.map(Chosen::Named).ok_or(Error::NotFound { classifier: name })
            }
        }
    }

    pub(super) async fn classifier(&self, chosen: Chosen<'_>) -> Result<Arc<Classifier>, Error> {
        match chosen {
            Chosen::Cached(classifier) => Ok(classifier),
            Chosen::Listed(set) => self.labels.classifier(set).await,
            Chosen::Named(named) => self.named_classifier(named).await,
        }
    }

    async fn named_classifier(&self, named: &NamedClassifier) -> Result<Arc<Classifier>, Error> {
        let make = || async {
            match &named.set {
                Some(set) => self.labels.classifier(set.clone()).await,
                None => unreachable!("a linear head is there from the beginning"),
            }
        };
        named.classifier.get_or_try_init(make).await.cloned()
    }

    /// Looked up first, since a cached set has been checked. Checking thousands of labels is not for an async thread.
    async fn listed(&self, labels: Vec<Bytes>, templates: &[String]) -> Result<Chosen<'_>, Error> {
        self.preprocessor.takes_texts()?;
        let templates = self.templates(templates)?;
        if let Some(cached) = self.labels.listed(&Listed { labels: &labels, templates: &templates }).await {
            return Ok(Chosen::Cached(cached));
        }
        let limits = self.limits.clone();
        let set = move || LabelSet::new(utf8(&labels)?, templates, &limits);
        Ok(Chosen::Listed(self.preprocessor.blocking(set).await??))
    }

    fn templates(&self, templates: &[String]) -> Result<Vec<PromptTemplate>, Error> {
        check_limit(Place::Templates, templates.len(), self.limits.templates)?;
        if templates.is_empty() {
            return Ok(vec![PromptTemplate::default()]);
        }
        templates
            .iter()
            .enumerate()
            .map(|(index, template)| {
                check_limit(Place::TemplateBytes(index), template.len(), self.limits.text_bytes)?;
                let parsed = PromptTemplate::parse(template);
                parsed.map_err(|error| InputError::new(Place::Template(index), error).into())
            })
            .collect()
    }
}

impl Chosen<'_> {
    pub(super) fn labels(&self) -> &[String] {
        match self {
            Chosen::Cached(classifier) => classifier.labels(),
            Chosen::Listed(set) => set.labels(),
            Chosen::Named(NamedClassifier { set: Some(set), .. }) => set.labels(),
            Chosen::Named(named) => named.classifier.get().map_or(&[], |head| head.labels()),
        }
    }

    /// Whether the server keeps the labels anyway.
    pub(super) fn is_named(&self) -> bool {
        matches!(self, Chosen::Named(_))
    }

    /// What the request asks for, or else the named classifier's own.
    pub(super) fn top_k(&self, asked: Option<NonZeroUsize>) -> Option<NonZeroUsize> {
        match self {
            Chosen::Cached(_) | Chosen::Listed(_) => asked,
            Chosen::Named(named) => asked.or(named.top_k),
        }
    }
}
