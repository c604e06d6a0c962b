//! Two graphs, and how to feed them: all that a layout has to say. What its files are called is said before they are
//! read: a repository's are chosen by name.

use crate::clip::spec::Scores;
use crate::model::config::ready_made::ReadyMadeConfig;
use crate::model::config::tokenizer::TokenizerFiles;

pub(super) struct Recipe {
    /// Sizes, pixels, tokens.
    pub(super) config: ReadyMadeConfig,
    pub(super) image: Source,
    /// `None`: there is an image encoder alone.
    pub(super) text: Option<Source>,
    pub(super) logits: KnownLogits,
    /// Contents of the small files but the tokenizer's, in the order in which the fingerprint has them.
    pub(super) files: Vec<Vec<u8>>,
    /// There if there is a text encoder.
    pub(super) tokenizer: Option<TokenizerFiles>,
}

/// The files of a layout, from the model's directory.
pub(super) struct Names {
    pub(super) image: String,
    /// The same as `image` where one graph has both; an image encoder alone has none.
    pub(super) text: String,
    /// Of each group there is one file at least.
    pub(super) needed: &'static [&'static [&'static str]],
    /// Of the texts.
    pub(super) tokenizer: &'static str,
    /// Beside it; CLIP's own has no need of it.
    pub(super) tokenizer_config: &'static str,
    /// Whether a file may have weights of a graph. Which do, the graph alone says.
    pub(super) may_be_weights: fn(&str, graph: &str) -> bool,
}

/// Whether it is called after the graph, as exporters call one file with all weights.
pub(super) fn is_called_after(file: &str, graph: &str) -> bool {
    file.strip_prefix(graph).is_some_and(|rest| rest == ".data" || rest.starts_with("_data"))
}

impl Names {
    /// Whether either graph is there: then the layout is this one.
    pub(super) fn are_there(&self, has: &dyn Fn(&str) -> bool) -> bool {
        has(&self.image) || has(&self.text)
    }

    /// Of those in `files`, all that make a model. What a model may lack comes before what it needs, and the image's
    /// graph last: in this order a download that was interrupted lacks something that is needed. An error says what.
    pub(super) fn choose<'a>(&self, files: &'a [String]) -> Result<Vec<&'a str>, String> {
        let find = |name: &str| files.iter().map(String::as_str).find(|file| *file == name);
        let need = |group: &[&str]| {
            let found: Vec<&str> = group.iter().filter_map(|name| find(name)).collect();
            if found.is_empty() { Err(format!("it has no {}", group[0])) } else { Ok(found) }
        };
        let weights =
            |file: &&str| [&self.image, &self.text].iter().any(|graph| (self.may_be_weights)(file, graph));
        let mut chosen: Vec<&str> = files.iter().map(String::as_str).filter(weights).collect();
        chosen.extend(find(self.tokenizer_config));
        let text = find(&self.text);
        chosen.extend(text.filter(|text| *text != self.image));
        for group in self.needed {
            chosen.extend(need(group)?);
        }
        if text.is_some() {
            chosen.extend(need(&[self.tokenizer])?);
        }
        chosen.extend(need(&[&self.image])?);
        Ok(chosen)
    }
}

/// A graph.
pub(super) struct Source {
    /// From the model's directory.
    pub(super) file: String,
    /// Names that the output with the embedding may have, the best first; the only output of a graph needs none.
    pub(super) outputs: &'static [&'static str],
}

/// What is known of scale and bias.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct KnownLogits {
    pub(super) scale: f32,
    pub(super) bias: f32,
    pub(super) scores: Scores,
}

impl KnownLogits {
    /// Nothing; `sigmoid` says whether the model was trained with one. OpenAI's and nearly all other CLIPs end at this
    /// scale: training clips it there.
    pub(super) fn none(sigmoid: bool) -> KnownLogits {
        if sigmoid {
            tracing::warn!(
                "these graphs do not say the scale and bias that the model was trained to: scores are shares of all \
                 labels, and not the probability of each as those of the same model from weights"
            );
        }
        KnownLogits { scale: 100.0, bias: 0.0, scores: Scores::Softmax }
    }
}
