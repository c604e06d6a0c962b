//! Pictures with their answers, from what people have: clip_benchmark's shards, folders, and lists.
//!
//! Everything is looked through before the first picture is sent, labels and captions are read, and pictures only
//! found: what is wrong is known at once, and memory does not depend on pictures' sizes. What is wrong with one
//! input is a problem that is counted; what is wrong with the data as a whole is an error.

mod folder;
mod list;
mod npy;
mod prompts;
mod shards;
mod tar;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use crate::cli::inputs::{Input, read_file};
pub(super) use prompts::Prompts;

/// Longest list of classes, templates or captions, and longest caption file, in bytes.
const MAX_TEXT: u64 = 512 << 20;

/// A picture and what is known of it.
struct Sample {
    picture: Input,
    label: Label,
}

enum Label {
    /// Position in the list of classes.
    Index(u64),
    Name(String),
    /// For each class, whether the picture is of it.
    Set(Vec<bool>),
    Captions(Vec<String>),
}

/// What is asked of each sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Class,
    Captions,
}

/// Data as it lies there.
#[derive(Default)]
struct Raw {
    samples: Vec<Sample>,
    problems: Problems,
    /// The data's own lists.
    classes: Option<Vec<String>>,
    templates: Option<Vec<String>>,
}

/// Inputs without a place in the figures.
#[derive(Clone, Debug, Default)]
pub(super) struct Problems {
    pub(super) count: usize,
    /// Names and reasons of the first ones.
    pub(super) first: Vec<(String, String)>,
}

/// Problems that are named; the others are counted.
const NAMED: usize = 10_000;

impl Problems {
    pub(super) fn add(&mut self, name: impl Into<String>, reason: impl Into<String>) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push((name.into(), reason.into()));
        }
    }
}

/// Pictures and the classes that they are of.
#[derive(Clone)]
pub(super) struct Zeroshot {
    pub(super) name: String,
    pub(super) classes: Vec<String>,
    pub(super) prompts: Prompts,
    pub(super) pictures: Arc<[Input]>,
    pub(super) truth: Truth,
    pub(super) problems: Problems,
}

impl Zeroshot {
    /// The same pictures and classes with the templates of a file.
    pub(super) fn with_templates(&self, file: &Path) -> Result<Zeroshot, Error> {
        Ok(Zeroshot { prompts: Prompts::of_file(file, &self.classes)?, ..self.clone() })
    }
}

/// Positions in the list of classes, picture by picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    One(Vec<u32>),
    Several(Vec<Vec<bool>>),
}

impl Truth {
    /// The classes of the picture, in order.
    pub(super) fn of(&self, picture: usize) -> impl Iterator<Item = usize> {
        let (one, several) = match self {
            Truth::One(classes) => (Some(classes[picture] as usize), None),
            Truth::Several(sets) => (None, Some(&sets[picture])),
        };
        let several = several.into_iter().flat_map(|set| (0..set.len()).filter(|class| set[*class]));
        one.into_iter().chain(several)
    }
}

/// Pictures and their captions.
pub(super) struct Retrieval {
    pub(super) name: String,
    pub(super) pictures: Arc<[Input]>,
    pub(super) captions: Arc<[Input]>,
    /// The picture of each caption; those of one picture follow each other, in the order of pictures.
    pub(super) picture_of: Vec<u32>,
    pub(super) problems: Problems,
}

/// Where data is and which part of it is meant.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    /// As it is called in results.
    pub(super) name: &'a str,
    pub(super) split: &'a str,
    /// Where pictures are that a list names.
    pub(super) images: Option<&'a Path>,
}

impl Source<'_> {
    /// `classes` and `templates` are files that replace the data's own.
    pub(super) fn zeroshot(
        &self,
        classes: Option<&Path>,
        templates: Option<&Path>,
    ) -> Result<Zeroshot, Error> {
        let Raw { samples, mut problems, classes: own, templates: own_templates } =
            self.read(Wanted::Class)?;
        let classes = match classes {
            Some(file) => Some(lines(file)?),
            None => own,
        };
        let classes = match classes {
            Some(classes) => classes,
            None => distinct_names(&samples)
                .ok_or_else(|| Error::Other("the names of the classes are missing: --classes".to_owned()))?,
        };
        if let Some(position) = classes.iter().position(String::is_empty) {
            return Err(Error::Other(format!("class {position} has no name")));
        }
        let prompts = match templates {
            Some(file) => Prompts::of_file(file, &classes)?,
            None => Prompts::shared(own_templates.unwrap_or_else(|| vec![prompts::DEFAULT.to_owned()]))?,
        };
        let several = samples.iter().any(|sample| matches!(sample.label, Label::Set(_)));
        let positions: HashMap<&str, u32> =
            classes.iter().enumerate().rev().map(|(index, name)| (name.as_str(), index as u32)).collect();
        let (mut pictures, mut ones, mut sets) = (Vec::new(), Vec::new(), Vec::new());
        for Sample { picture, label } in samples {
            match resolve(label, &positions, classes.len(), several) {
                Ok(Resolved::One(class)) => ones.push(class),
                Ok(Resolved::Several(set)) => sets.push(set),
                Err(reason) => {
                    problems.add(picture.name(), reason);
                    continue;
                }
            }
            pictures.push(picture);
        }
        let truth = if several { Truth::Several(sets) } else { Truth::One(ones) };
        let name = self.name.to_owned();
        Ok(Zeroshot { name, classes, prompts, pictures: pictures.into(), truth, problems })
    }

    pub(super) fn retrieval(&self) -> Result<Retrieval, Error> {
        let Raw { samples, mut problems, .. } = self.read(Wanted::Captions)?;
        let (mut pictures, mut captions, mut picture_of) = (Vec::new(), Vec::new(), Vec::new());
        for Sample { picture, label } in samples {
            let Label::Captions(texts) = label else {
                problems.add(picture.name(), "it has a label, and no caption");
                continue;
            };
            let (texts, empty): (Vec<String>, Vec<String>) =
                texts.into_iter().partition(|text| !text.trim().is_empty());
            for _ in empty {
                problems.add(picture.name(), "an empty caption");
            }
            if texts.is_empty() {
                problems.add(picture.name(), "it has no caption");
                continue;
            }
            picture_of.extend(std::iter::repeat_n(pictures.len() as u32, texts.len()));
            captions.extend(texts.into_iter().map(Input::Text));
            pictures.push(picture);
        }
        let (name, pictures, captions) = (self.name.to_owned(), pictures.into(), captions.into());
        Ok(Retrieval { name, pictures, captions, picture_of, problems })
    }

    fn read(&self, wanted: Wanted) -> Result<Raw, Error> {
        let path = self.path;
        let raw = if path.is_file() {
            let beside = path.parent().map_or_else(PathBuf::new, Path::to_owned);
            list::read(path, self.images.unwrap_or(&beside), wanted)?
        } else if shards::are_in(path, self.split) {
            shards::read(path, self.split, wanted)?
        } else if path.is_dir() && wanted == Wanted::Class {
            folder::read(path)?
        } else {
            let (path, split) = (path.display(), self.split);
            return Err(Error::Other(format!(
                "{path}: there is no {split}/nshards.txt, and it is no list either"
            )));
        };
        match raw.samples.len() + raw.problems.count {
            0 => Err(Error::Other(format!("{}: there is no picture", path.display()))),
            _ if u32::try_from(raw.samples.len()).is_err() => {
                Err(Error::Other(format!("{}: too many pictures", path.display())))
            }
            _ => Ok(raw),
        }
    }
}

enum Resolved {
    One(u32),
    Several(Vec<bool>),
}

fn resolve(
    label: Label,
    positions: &HashMap<&str, u32>,
    classes: usize,
    several: bool,
) -> Result<Resolved, String> {
    let index = |index: u64| match u32::try_from(index) {
        Ok(class) if (class as usize) < classes => Ok(Resolved::One(class)),
        _ => Err(format!("label {index} is out of range: there are {classes} classes")),
    };
    match label {
        Label::Set(set) if set.len() == classes => Ok(Resolved::Several(set)),
        Label::Set(set) => Err(format!("{} labels, and there are {classes} classes", set.len())),
        _ if several => Err("it has one label where others have several".to_owned()),
        Label::Index(position) => index(position),
        Label::Name(name) => match (positions.get(name.as_str()), name.parse()) {
            (Some(class), _) => Ok(Resolved::One(*class)),
            (None, Ok(position)) => index(position),
            (None, Err(_)) => Err(format!("label {name:?} is none of the classes")),
        },
        Label::Captions(_) => Err("it has captions, and no label".to_owned()),
    }
}

/// In their order; `None` if a label is only a number.
fn distinct_names(samples: &[Sample]) -> Option<Vec<String>> {
    let mut names = samples
        .iter()
        .map(|sample| match &sample.label {
            Label::Name(name) => Some(name.clone()),
            _ => None,
        })
        .collect::<Option<Vec<String>>>()?;
    names.sort();
    names.dedup();
    Some(names)
}

/// Lines without the space around them, as the suite reads its lists.
fn lines(file: &Path) -> Result<Vec<String>, Error> {
    let text = text(file)?;
    Ok(split_lines(text.trim_start_matches('\u{feff}')).map(|line| line.trim().to_owned()).collect())
}

fn text(file: &Path) -> Result<String, Error> {
    let failed = |reason: String| Error::Other(format!("{}: {reason}", file.display()));
    String::from_utf8(read_file(file, MAX_TEXT).map_err(failed)?).map_err(|error| failed(error.to_string()))
}

/// As Python's `str.splitlines`: at every character that it takes for a line's end; nothing after the last one is
/// no line.
fn split_lines(text: &str) -> impl Iterator<Item = &str> {
    const ENDS: [char; 10] =
        ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (line, after) = match rest.find(ENDS) {
            Some(end) => {
                let (line, after) = rest.split_at(end);
                let one = after.chars().next().map_or(0, char::len_utf8);
                (line, after.strip_prefix("\r\n").unwrap_or(&after[one..]))
            }
            None => (rest, ""),
        };
        rest = after;
        Some(line)
    })
}

#[cfg(test)]
mod tests;
