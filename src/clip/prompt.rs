//! Prompt templates: a label becomes the sentence that the text encoder was trained on.

use std::fmt;

/// Marks where the label goes.
const PLACEHOLDER: &str = "{}";

/// A sentence with at least one `{}`; every `{}` is replaced by the label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PromptTemplate(Box<str>);

/// The template would give the same prompt for every label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("has no {{}} for the label")]
pub struct NoPlaceholder;

impl PromptTemplate {
    pub fn parse(template: &str) -> Result<Self, NoPlaceholder> {
        if template.contains(PLACEHOLDER) { Ok(Self(template.into())) } else { Err(NoPlaceholder) }
    }

    /// The prompt for `label`. A `{}` inside the label stays as it is.
    pub fn render(&self, label: &str) -> String {
        self.0.replace(PLACEHOLDER, label)
    }

    /// Bytes of the prompt for a label of `label_bytes`, without making it.
    pub fn rendered_bytes(&self, label_bytes: usize) -> usize {
        let placeholders = self.0.matches(PLACEHOLDER).count();
        self.0.len() - placeholders * PLACEHOLDER.len() + placeholders * label_bytes
    }
}

impl Default for PromptTemplate {
    /// The template of the CLIP paper (Radford et al. 2021, section 3.1.4).
    fn default() -> Self {
        Self("a photo of a {}.".into())
    }
}

impl fmt::Display for PromptTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
