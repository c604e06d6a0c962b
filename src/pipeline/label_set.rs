//! Labels and their prompt templates: checked once, and found again by what a request lists.
//!
//! It does not embed them. A [`LabelSet`] is the key under which its classifier is cached, and [`Listed`] the same
//! key as a request brings it: unchecked, and borrowed. Both hash alike, quickly rather than unforgeably, because
//! equality decides: it compares every label, so that no collision can give an answer of other labels.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use equivalent::Equivalent;
use foldhash::fast::RandomState;

use super::error::{Error, InputError, Place};
use super::{Limits, check_limit};
use crate::clip::prompt::PromptTemplate;

/// Checked. Prompts are numbered label by label, and within a label template by template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LabelSet {
    labels: Arc<[String]>,
    /// At least one.
    templates: Vec<PromptTemplate>,
}

/// As a request lists them: labels of a cached set were checked when it was made, so these need not be.
pub(super) struct Listed<'a> {
    pub(super) labels: &'a [Bytes],
    pub(super) templates: &'a [PromptTemplate],
}

impl LabelSet {
    /// `templates` is not empty.
    pub(super) fn new(
        labels: Vec<String>,
        templates: Vec<PromptTemplate>,
        limits: &Limits,
    ) -> Result<LabelSet, Error> {
        check_labels(&labels, limits)?;
        let prompts = labels.len().saturating_mul(templates.len());
        check_limit(Place::Prompts, prompts, limits.prompts)?;
        check_prompt_bytes(&labels, &templates, limits)?;
        Ok(LabelSet { labels: labels.into(), templates })
    }

    pub(super) fn labels(&self) -> &Arc<[String]> {
        &self.labels
    }

    pub(super) fn templates(&self) -> usize {
        self.templates.len()
    }

    pub(super) fn prompts(&self) -> usize {
        self.labels.len() * self.templates.len()
    }

    /// Index of the label that prompt `number` is of.
    pub(super) fn label(&self, number: usize) -> usize {
        number / self.templates.len()
    }

    pub(super) fn prompt(&self, number: usize) -> Arc<str> {
        let template = &self.templates[number % self.templates.len()];
        Arc::from(template.render(&self.labels[self.label(number)]))
    }

    /// Of labels and templates, without what the allocator adds.
    pub(super) fn bytes(&self) -> usize {
        let labels = self.labels.iter().map(|label| size_of::<String>() + label.len());
        labels.chain(self.templates.iter().map(|template| template.rendered_bytes(0))).sum()
    }
}

impl Listed<'_> {
    pub(super) fn prompts(&self) -> usize {
        self.labels.len() * self.templates.len()
    }
}

impl Hash for LabelSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash(self.labels.iter().map(String::as_bytes), &self.templates, state);
    }
}

impl Hash for Listed<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash(self.labels.iter().map(|label| &label[..]), self.templates, state);
    }
}

fn hash<'a, H: Hasher>(labels: impl Iterator<Item = &'a [u8]>, templates: &[PromptTemplate], state: &mut H) {
    templates.hash(state);
    labels.for_each(|label| label.hash(state));
}

impl Equivalent<LabelSet> for Listed<'_> {
    fn equivalent(&self, set: &LabelSet) -> bool {
        self.templates == set.templates
            && self.labels.len() == set.labels.len()
            && self.labels.iter().zip(&*set.labels).all(|(listed, label)| **listed == *label.as_bytes())
    }
}

/// Labels as they came to texts.
pub(super) fn utf8(labels: &[Bytes]) -> Result<Vec<String>, Error> {
    let texts = labels.iter().enumerate().map(|(index, label)| match std::str::from_utf8(label) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => Err(invalid(index, error.to_string())),
    });
    texts.collect()
}

pub(super) fn check_labels(labels: &[String], limits: &Limits) -> Result<(), Error> {
    if labels.is_empty() {
        return Err(Error::Invalid(InputError::new(Place::Labels, "must not be empty")));
    }
    check_limit(Place::Labels, labels.len(), limits.labels)?;
    let mut seen = HashSet::with_capacity_and_hasher(labels.len(), RandomState::default());
    for (index, label) in labels.iter().enumerate() {
        if label.trim().is_empty() {
            return Err(invalid(index, "must not be empty".to_owned()));
        }
        if label.len() > limits.text_bytes {
            let (bytes, limit) = (label.len(), limits.text_bytes);
            return Err(invalid(index, format!("{bytes} bytes are more than the limit of {limit}")));
        }
        if !seen.insert(label) {
            let first = labels.iter().position(|first| first == label).unwrap_or_default();
            return Err(invalid(index, format!("is the same as labels[{first}]")));
        }
    }
    Ok(())
}

fn invalid(label: usize, message: String) -> Error {
    Error::Invalid(InputError::new(Place::Label(label), message))
}

/// A template of many `{}` could make prompts far larger than anything that was sent.
fn check_prompt_bytes(labels: &[String], templates: &[PromptTemplate], limits: &Limits) -> Result<(), Error> {
    let longest = labels.iter().map(String::len).max().unwrap_or(0);
    templates.iter().enumerate().try_for_each(|(index, template)| {
        check_limit(Place::LongestPrompt(index), template.rendered_bytes(longest), limits.text_bytes)
    })
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    fn set(labels: &[&str], template: &str) -> LabelSet {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        LabelSet { labels, templates: vec![PromptTemplate::parse(template).unwrap()] }
    }

    /// Whether what a request lists finds a set.
    #[track_caller]
    fn check(listed: &LabelSet, set: &LabelSet, found: bool) {
        let labels: Vec<Bytes> = listed.labels.iter().map(|label| Bytes::from(label.clone())).collect();
        let asked = Listed { labels: &labels, templates: &listed.templates };
        assert_eq!(asked.equivalent(set), found);
        let hasher = RandomState::default();
        assert_eq!(hasher.hash_one(&asked) == hasher.hash_one(set), found);
        assert_eq!(listed == set, found);
    }

    #[test]
    fn a_set_is_found_by_its_labels_and_templates_alone() {
        let animals = set(&["cat", "dog"], "a {}");
        check(&set(&["cat", "dog"], "a {}"), &animals, true);
        check(&set(&["dog", "cat"], "a {}"), &animals, false);
        check(&set(&["cat"], "a {}"), &animals, false);
        check(&set(&["cat", "dog", "cow"], "a {}"), &animals, false);
        check(&set(&["catd", "og"], "a {}"), &animals, false);
        check(&set(&["cat", "dog"], "the {}"), &animals, false);
    }
}
