//! The layout of clip_benchmark 1.6.2 (`build_wds_dataset`): `SPLIT/nshards.txt` and as many archives,
//! `SPLIT/0.tar` and so on, with `KEY.webp`, `.png`, `.jpg` or `.jpeg` beside `KEY.cls` (a class's position),
//! `KEY.npy` (a number for each class) or `KEY.txt` (a caption on each line). Members of one key follow each other,
//! as WebDataset wants it.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use super::tar::{Member, Members, TarError};
use super::{Label, Raw, Sample, Wanted, lines, npy, split_lines, text};
use crate::cli;
use crate::cli::inputs::{Input, Part};
use crate::eval::Error;

const MAX_SHARDS: u32 = 100_000;

/// Longest label, and longest captions of a picture, in bytes.
const MAX_LABEL: u64 = 1 << 20;

/// In the order in which the suite prefers them.
const PICTURES: [&str; 4] = ["webp", "png", "jpg", "jpeg"];

pub(super) fn are_in(directory: &Path, split: &str) -> bool {
    directory.join(split).join("nshards.txt").is_file()
}

pub(super) fn read(directory: &Path, split: &str, wanted: Wanted) -> Result<Raw, Error> {
    let list = |name: &str| {
        let path = directory.join(name);
        path.exists().then(|| lines(&path)).transpose()
    };
    let kind = list("dataset_type.txt")?.and_then(|lines| lines.into_iter().next()).unwrap_or_default();
    let label = match (kind.to_lowercase().as_str(), wanted) {
        ("retrieval", Wanted::Captions) => "txt",
        ("multilabel", Wanted::Class) => "npy",
        ("" | "classification", Wanted::Class) => "cls",
        (kind, _) => {
            let path = directory.join("dataset_type.txt");
            let kind = if kind.is_empty() { "of classes" } else { kind };
            return Err(Error::Other(format!("{}: the data set is {kind}", path.display())));
        }
    };
    let shards_file = directory.join(split).join("nshards.txt");
    let shards = text(&shards_file)?.trim().parse().ok().filter(|shards| (1..=MAX_SHARDS).contains(shards));
    let shards = shards.ok_or_else(|| {
        Error::Other(format!("{}: must be a number from 1 to {MAX_SHARDS}", shards_file.display()))
    })?;
    let mut raw = Raw {
        classes: list("classnames.txt")?,
        templates: list("zeroshot_classification_templates.txt")?,
        ..Raw::default()
    };
    for shard in 0..shards {
        Shard::open(&directory.join(split).join(format!("{shard}.tar")), label)?.read(&mut raw)?;
    }
    Ok(raw)
}

struct Shard {
    path: Arc<Path>,
    /// For people: `test/0.tar`.
    name: String,
    members: Members<BufReader<File>>,
    /// The ending that labels have.
    label: &'static str,
}

/// Members of one key.
#[derive(Default)]
struct Group {
    key: String,
    /// Position in [`PICTURES`].
    picture: Option<(usize, Member)>,
    label: Option<Vec<u8>>,
}

impl Shard {
    fn open(path: &Path, label: &'static str) -> Result<Shard, Error> {
        let failed = |error| cli::Error::File { path: path.to_owned(), error };
        let file = File::open(path).map_err(failed)?;
        // A header; larger, and a seek would throw away more.
        let members = Members::new(BufReader::with_capacity(512, file)).map_err(failed)?;
        let below = path.components().rev().take(2).map(|part| part.as_os_str().to_string_lossy());
        let name = below.collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("/");
        Ok(Shard { path: path.into(), name, members, label })
    }

    fn read(mut self, raw: &mut Raw) -> Result<(), Error> {
        let mut group: Option<Group> = None;
        loop {
            let member = match self.members.next() {
                Ok(member) => member,
                Err(error @ TarError::Cut { .. }) => {
                    // The members of the last key may not be all.
                    raw.problems.add(self.name.clone(), error.to_string());
                    return Ok(());
                }
                Err(error) => return Err(self.bad(&error)),
            };
            let Some(member) = member else {
                if let Some(group) = group {
                    self.close(group, raw);
                }
                return Ok(());
            };
            let Some((key, ending)) = split_name(&member.name) else { continue };
            if group.as_ref().is_none_or(|group| group.key != key) {
                let next = Group { key: key.to_owned(), ..Group::default() };
                if let Some(last) = group.replace(next) {
                    self.close(last, raw);
                }
            }
            let Some(group) = &mut group else { continue };
            let ending = ending.to_lowercase();
            if ending == self.label {
                let content = self.members.small(&member, MAX_LABEL).map_err(|error| self.bad(&error))?;
                if group.label.replace(content).is_some() {
                    return Err(self.twice(&member));
                }
            } else if let Some(place) = PICTURES.iter().position(|known| *known == ending) {
                match &group.picture {
                    Some((before, _)) if *before == place => return Err(self.twice(&member)),
                    Some((before, _)) if *before < place => {}
                    _ => group.picture = Some((place, member)),
                }
            }
        }
    }

    fn close(&self, group: Group, raw: &mut Raw) {
        let name = format!("{}:{}", self.name, group.key);
        let Some((_, picture)) = group.picture else {
            // A key with nothing of ours, such as a file of notes.
            if group.label.is_some() {
                raw.problems.add(name, "there is no picture beside its label");
            }
            return;
        };
        let label = match group.label {
            Some(content) => self.parse(&content),
            None => Err(format!("there is no .{} beside the picture", self.label)),
        };
        let label = if picture.bytes == 0 { Err("the picture is empty".to_owned()) } else { label };
        match label {
            Ok(label) => {
                let Member { offset, bytes, .. } = picture;
                let part = Part { file: self.path.clone(), offset, bytes, name };
                raw.samples.push(Sample { picture: Input::Part(part), label });
            }
            Err(reason) => raw.problems.add(name, reason),
        }
    }

    fn parse(&self, content: &[u8]) -> Result<Label, String> {
        if self.label == "npy" {
            return npy::labels(content).map(Label::Set).map_err(|reason| format!("the label: {reason}"));
        }
        let text = std::str::from_utf8(content).map_err(|_| format!("the .{} is not UTF-8", self.label))?;
        if self.label == "txt" {
            return Ok(Label::Captions(split_lines(text).map(str::to_owned).collect()));
        }
        let shown: String = text.chars().take(20).collect();
        text.trim()
            .parse()
            .map(Label::Index)
            .map_err(|_| format!("the label {shown:?} is no class's position"))
    }

    fn bad(&self, error: &TarError) -> Error {
        Error::Other(format!("{}: {error}", self.path.display()))
    }

    fn twice(&self, member: &Member) -> Error {
        Error::Other(format!("{}: {} is there twice", self.path.display(), member.name))
    }
}

/// The key and the ending: at the first dot of the last part, as WebDataset splits names. `None` for its own notes
/// (`__x__`) and what has no ending.
fn split_name(name: &str) -> Option<(&str, &str)> {
    let name = name.strip_prefix("./").unwrap_or(name);
    if !name.contains('/') && name.starts_with("__") && name.ends_with("__") {
        return None;
    }
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = last + name[last..].find('.')?;
    (dot > last).then(|| (&name[..dot], &name[dot + 1..]))
}
