//! Lists of pictures: CSV (Flickr's captions too), JSON lines, and COCO's JSON.
//!
//! A CSV has a path and a label, or a path and a caption, a row for each; columns are known by their names, or else are
//! the first and the second. A JSON line has `path` and `label`, or `path` and `captions` (or `caption`).

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{Label, Raw, Sample, Wanted, text};
use crate::cli;
use crate::cli::inputs::Input;
use crate::eval::Error;

/// Names of columns and keys.
const PATHS: [&str; 8] =
    ["path", "filepath", "file", "filename", "file_name", "image", "image_path", "image_name"];
const LABELS: [&str; 5] = ["label", "class", "class_name", "target", "category"];
const CAPTIONS: [&str; 5] = ["caption", "captions", "comment", "text", "title"];

pub(super) fn read(file: &Path, images: &Path, wanted: Wanted) -> Result<Raw, Error> {
    let mut rows = Rows { images, wanted, raw: Raw::default(), places: HashMap::new() };
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("csv" | "tsv" | "txt") => csv(file, &mut rows)?,
        Some("jsonl") => json_lines(file, &mut rows)?,
        Some("json") => coco(file, &mut rows)?,
        _ => {
            return Err(Error::Other(format!("{}: must end in .csv, .tsv, .jsonl or .json", file.display())));
        }
    }
    Ok(rows.raw)
}

/// Rows as they come; captions of one path become one sample.
struct Rows<'a> {
    images: &'a Path,
    wanted: Wanted,
    raw: Raw,
    places: HashMap<String, usize>,
}

impl Rows<'_> {
    fn add(&mut self, path: &str, answers: Vec<String>) {
        if answers.is_empty() {
            return self.raw.problems.add(path, "it has no label or caption");
        }
        let place = self.places.get(path).copied();
        let sample = place.and_then(|place| self.raw.samples.get_mut(place));
        match (sample, self.wanted) {
            (Some(Sample { label: Label::Captions(captions), .. }), _) => captions.extend(answers),
            (Some(_), _) => self.raw.problems.add(path, "it is there twice"),
            (None, Wanted::Captions) => self.push(path, Label::Captions(answers)),
            (None, Wanted::Class) => match <[String; 1]>::try_from(answers) {
                Ok([name]) => self.push(path, Label::Name(name)),
                Err(_) => self.raw.problems.add(path, "it has several labels"),
            },
        }
    }

    fn push(&mut self, path: &str, label: Label) {
        self.places.insert(path.to_owned(), self.raw.samples.len());
        self.raw.samples.push(Sample { picture: Input::Picture(self.images.join(path)), label });
    }

    fn answers(&self) -> &'static [&'static str] {
        match self.wanted {
            Wanted::Class => &LABELS,
            Wanted::Captions => &CAPTIONS,
        }
    }
}

fn csv(file: &Path, rows: &mut Rows<'_>) -> Result<(), Error> {
    let unfit = |error: &dyn std::fmt::Display| Error::Other(format!("{}: {error}", file.display()));
    let delimiter = delimiter(file)?;
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        // Flickr's captions have quotation marks that quote nothing.
        .quoting(delimiter == b',')
        .trim(csv::Trim::All)
        .from_path(file)
        .map_err(|error| unfit(&error))?;
    let mut columns = None;
    for record in reader.records() {
        let record = record.map_err(|error| unfit(&error))?;
        let [path, answer] = match columns {
            Some(columns) => columns,
            None => {
                let named = |names: &[&str]| {
                    record.iter().position(|cell| names.iter().any(|name| cell.eq_ignore_ascii_case(name)))
                };
                let header = named(&PATHS).zip(named(rows.answers())).map(|(path, answer)| [path, answer]);
                columns = Some(header.unwrap_or([0, 1]));
                if header.is_some() {
                    continue;
                }
                [0, 1]
            }
        };
        let line = || format!("line {}", record.position().map_or(0, csv::Position::line));
        match record.get(path).filter(|path| !path.is_empty()) {
            Some(path) => {
                let answer = record.get(answer).filter(|answer| !answer.is_empty());
                rows.add(path, answer.map(str::to_owned).into_iter().collect());
            }
            None => rows.raw.problems.add(line(), "it has no path"),
        }
    }
    Ok(())
}

/// Between columns: that of the name, or of the first line (Flickr30k has bars).
fn delimiter(file: &Path) -> Result<u8, Error> {
    use std::io::{BufRead, BufReader, Read};
    if file.extension().is_some_and(|extension| extension == "tsv") {
        return Ok(b'\t');
    }
    let failed = |error| cli::Error::File { path: file.to_owned(), error };
    let mut first = Vec::new();
    let mut reader = BufReader::new(File::open(file).map_err(failed)?.take(1 << 16));
    reader.read_until(b'\n', &mut first).map_err(failed)?;
    let has = |byte: u8| first.contains(&byte);
    Ok(if has(b'|') && !has(b',') { b'|' } else { b',' })
}

fn json_lines(file: &Path, rows: &mut Rows<'_>) -> Result<(), Error> {
    for (index, line) in text(file)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let name = format!("line {}", index + 1);
        let object: HashMap<String, Value> = match serde_json::from_str(line) {
            Ok(object) => object,
            Err(error) => {
                rows.raw.problems.add(name, error.to_string());
                continue;
            }
        };
        let path = PATHS.iter().find_map(|key| object.get(*key)?.as_str());
        let answer = rows.answers().iter().find_map(|key| object.get(*key));
        let texts = match answer {
            Some(Value::String(text)) => vec![text.clone()],
            Some(Value::Number(number)) => vec![number.to_string()],
            Some(Value::Array(texts)) => {
                texts.iter().filter_map(|text| Some(text.as_str()?.to_owned())).collect()
            }
            _ => Vec::new(),
        };
        match path {
            Some(path) => rows.add(path, texts),
            None => rows.raw.problems.add(name, "it has no path"),
        }
    }
    Ok(())
}

/// `captions_val2017.json` and its like.
#[derive(Deserialize)]
struct Coco {
    images: Vec<CocoImage>,
    annotations: Vec<CocoCaption>,
}

#[derive(Deserialize)]
struct CocoImage {
    id: u64,
    file_name: String,
}

#[derive(Deserialize)]
struct CocoCaption {
    image_id: u64,
    caption: String,
}

fn coco(file: &Path, rows: &mut Rows<'_>) -> Result<(), Error> {
    if rows.wanted == Wanted::Class {
        return Err(Error::Other(format!("{}: COCO's JSON has captions, and no classes", file.display())));
    }
    let coco: Coco = serde_json::from_str(&text(file)?)
        .map_err(|error| Error::Other(format!("{}: it is no list of COCO's: {error}", file.display())))?;
    let mut captions: HashMap<u64, Vec<String>> = HashMap::new();
    for CocoCaption { image_id, caption } in coco.annotations {
        captions.entry(image_id).or_default().push(caption);
    }
    // As torchvision's CocoCaptions: in the order of ids.
    let mut images = coco.images;
    images.sort_by_key(|image| image.id);
    for CocoImage { id, file_name } in images {
        rows.add(&file_name, captions.remove(&id).unwrap_or_default());
    }
    for (id, captions) in captions {
        for _ in captions {
            rows.raw.problems.add(format!("image_id {id}"), "a caption of a picture that is not listed");
        }
    }
    Ok(())
}
