//! One task on one data set: what is to be embedded, and what figures the embeddings give.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::data::{Problems, Retrieval, Truth, Zeroshot};
use super::matrix::Matrix;
use super::task::{Evaluated, Query};
use super::{Error, retrieval, zeroshot};
use crate::cli::inputs::Input;
use crate::clip::classifier::Logits;

pub(super) enum Job {
    Zeroshot(Zeroshot),
    Retrieval { data: Retrieval, recall_k: Vec<u32> },
}

/// Embeddings of a job's pictures, and of its classes or captions.
#[derive(Clone, Copy)]
pub(super) struct Embeddings<'a> {
    pub(super) images: &'a Matrix,
    pub(super) texts: &'a Matrix,
    /// Where probabilities are to be told: they take half as long again as the figures.
    pub(super) logits: Option<&'a Logits>,
}

/// Inputs that count, by their positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) pictures: Vec<usize>,
    /// Captions.
    pub(super) texts: Vec<usize>,
}

impl Job {
    pub(super) fn name(&self) -> &str {
        match self {
            Job::Zeroshot(data) => &data.name,
            Job::Retrieval { data, .. } => &data.name,
        }
    }

    /// As the suite calls it.
    pub(super) fn task(&self) -> &'static str {
        match self {
            Job::Zeroshot(_) => "zeroshot_classification",
            Job::Retrieval { .. } => "zeroshot_retrieval",
        }
    }

    pub(super) fn pictures(&self) -> &Arc<[Input]> {
        match self {
            Job::Zeroshot(data) => &data.pictures,
            Job::Retrieval { data, .. } => &data.pictures,
        }
    }

    /// What the text encoder is to read.
    pub(super) fn texts(&self) -> Arc<[Input]> {
        match self {
            Job::Zeroshot(data) => {
                data.prompts.of_classes(&data.classes).into_iter().flatten().map(Input::Text).collect()
            }
            Job::Retrieval { data, .. } => data.captions.clone(),
        }
    }

    /// Classes or captions, with which pictures are compared.
    pub(super) fn candidates(&self) -> usize {
        match self {
            Job::Zeroshot(data) => data.classes.len(),
            Job::Retrieval { data, .. } => data.captions.len(),
        }
    }

    pub(super) fn problems(&self) -> &Problems {
        match self {
            Job::Zeroshot(data) => &data.problems,
            Job::Retrieval { data, .. } => &data.problems,
        }
    }

    /// The same pictures and classes with the templates of a file.
    pub(super) fn with_templates(&self, file: &Path) -> Result<Job, Error> {
        match self {
            Job::Zeroshot(data) => data.with_templates(file).map(Job::Zeroshot),
            Job::Retrieval { .. } => Err(Error::Other("only classes have templates".to_owned())),
        }
    }

    /// Names what is asked and what may be answered: runs of the same digest may be compared. Prompts may differ.
    pub(super) fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        let mut add = |text: &str| {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text);
        };
        add(self.task());
        self.pictures().iter().for_each(|input| add(&input.name()));
        match self {
            Job::Zeroshot(data) => data.classes.iter().for_each(|class| add(class)),
            Job::Retrieval { data, .. } => data.captions.iter().for_each(|input| add(&input.name())),
        }
        hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Without what failed; a caption goes with its picture, and a picture with its last caption.
    pub(super) fn kept(&self, failed: impl Fn(Query) -> bool) -> Kept {
        let pictures = (0..self.pictures().len()).filter(|picture| !failed(Query::Picture(*picture)));
        match self {
            Job::Zeroshot(_) => Kept { pictures: pictures.collect(), texts: Vec::new() },
            Job::Retrieval { data, .. } => {
                let pictures: BTreeSet<usize> = pictures.collect();
                let picture_of = |caption: usize| data.picture_of[caption] as usize;
                let texts: Vec<usize> = (0..data.captions.len())
                    .filter(|caption| {
                        !failed(Query::Text(*caption)) && pictures.contains(&picture_of(*caption))
                    })
                    .collect();
                let with_captions: BTreeSet<usize> =
                    texts.iter().map(|caption| picture_of(*caption)).collect();
                Kept { pictures: with_captions.into_iter().collect(), texts }
            }
        }
    }

    pub(super) fn evaluate(&self, embeddings: Embeddings<'_>, kept: &Kept) -> Evaluated<'_> {
        let Embeddings { images, texts, logits } = embeddings;
        let images = images.select(&kept.pictures);
        match self {
            Job::Zeroshot(data) => zeroshot::evaluate(data, texts, &images, &kept.pictures, logits),
            Job::Retrieval { data, recall_k } => {
                let texts = texts.select(&kept.texts);
                retrieval::evaluate(data, recall_k, (&kept.pictures, &images), (&kept.texts, &texts))
            }
        }
    }

    pub(super) fn query_name(&self, query: Query) -> String {
        match (self, query) {
            (Job::Retrieval { data, .. }, Query::Text(caption)) => data.captions[caption].name(),
            (_, query) => self.pictures()[query.position()].name(),
        }
    }

    /// Of what came first.
    pub(super) fn answer_name(&self, query: Query, answer: usize) -> String {
        match (self, query) {
            (Job::Zeroshot(data), _) => data.classes[answer].clone(),
            (Job::Retrieval { data, .. }, Query::Picture(_)) => data.captions[answer].name(),
            (Job::Retrieval { data, .. }, Query::Text(_)) => data.pictures[answer].name(),
        }
    }

    /// What would be right.
    pub(super) fn right_names(&self, query: Query) -> Vec<String> {
        match (self, query) {
            (Job::Zeroshot(Zeroshot { truth: Truth::One(truth), classes, .. }), query) => {
                vec![classes[truth[query.position()] as usize].clone()]
            }
            (Job::Zeroshot(Zeroshot { truth: Truth::Several(sets), classes, .. }), query) => {
                let set = &sets[query.position()];
                classes.iter().zip(set).filter(|(_, is)| **is).map(|(class, _)| class.clone()).collect()
            }
            (Job::Retrieval { data, .. }, Query::Picture(picture)) => {
                let first = data.picture_of.partition_point(|of| (*of as usize) < picture);
                let own = data.picture_of[first..].iter().take_while(|of| **of as usize == picture).count();
                data.captions[first..first + own].iter().map(Input::name).collect()
            }
            (Job::Retrieval { data, .. }, Query::Text(caption)) => {
                vec![data.pictures[data.picture_of[caption] as usize].name()]
            }
        }
    }
}
