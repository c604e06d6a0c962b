//! `clipd embed`: pictures and texts to vectors, printed or written to a file.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::client::Server;
use super::flags::{EmbedFlags, OutFile};
use super::inputs::{self, Depth, Input};
use super::ledger::Answer;
use super::npy::NpyWriter;
use super::output::{self, Format, Lines, PartialFile};
use super::progress::Progress;
use super::stream::{self, Sink};
use super::{Error, Outcome, complain};
use crate::grpc::proto::Class;

pub(super) async fn run(flags: &EmbedFlags) -> Result<Outcome, Error> {
    let depth = if flags.recursive { Depth::AllBelow } else { Depth::OneDirectory };
    let mut inputs = inputs::expand(&flags.images, depth)?;
    inputs.extend(flags.texts.iter().cloned().map(Input::Text));
    let inputs: Arc<[Input]> = inputs.into();

    let mut server = Server::connect(&flags.server).await?;
    let columns = server.model.embedding_size as usize;
    let (destination, progress) = match &flags.out {
        Some(file) => (Destination::create(file, columns)?, Progress::of(inputs.len())),
        None => (Destination::lines(Format::of_flag(flags.json), &inputs), Progress::Silent),
    };
    let mut results = Results { inputs: inputs.clone(), destination, progress, failed: 0 };
    let ended = stream::embed(&mut server, inputs, Class::Unspecified, &mut results).await;
    results.progress.end();
    match ended {
        Ok(()) => results.complete(),
        Err(error) => {
            results.abandon();
            Err(error)
        }
    }
}

/// Writes results, and counts those that are missing.
struct Results {
    inputs: Arc<[Input]>,
    destination: Destination,
    progress: Progress,
    failed: usize,
}

impl Sink for Results {
    fn take(&mut self, input: usize, answer: Answer) -> Result<(), Error> {
        let input = &self.inputs[input];
        match answer {
            Ok(embedding) => self.destination.write(input, &embedding.values)?,
            Err(reason) => {
                self.failed += 1;
                self.progress.failed(&input.name(), &reason);
            }
        }
        self.progress.advance();
        Ok(())
    }
}

impl Results {
    fn complete(self) -> Result<Outcome, Error> {
        self.destination.complete()?;
        if self.failed > 0 {
            complain(&format!("{} of {} inputs have no embedding", self.failed, self.inputs.len()));
        }
        Ok(Outcome::of_failures(self.failed))
    }

    fn abandon(self) {
        match self.destination.abandon() {
            Ok(Some(path)) => complain(&format!("what was embedded so far is in {}", path.display())),
            Ok(None) => {}
            Err(error) => complain(&format!("error: {error}")),
        }
    }
}

enum Destination {
    Table {
        lines: Lines,
        width: usize,
    },
    Json(Lines),
    Jsonl {
        file: PartialFile,
        path: PathBuf,
        rows: usize,
    },
    Npy {
        rows: NpyWriter<PartialFile>,
        path: PathBuf,
        names: PartialFile,
        names_path: PathBuf,
        columns: usize,
    },
}

/// One line of `--json` and of a `.jsonl` file.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    embedding: &'a [f32],
}

/// Numbers of each embedding in the table.
const SHOWN: usize = 6;

impl Destination {
    fn lines(format: Format, inputs: &[Input]) -> Destination {
        match format {
            Format::Json => Destination::Json(Lines::new()),
            Format::Table => {
                let names: Vec<String> = inputs.iter().map(shown_name).collect();
                let width = output::widest(names.iter().map(String::as_str).chain(["INPUT"]));
                let header = format!("{}  SIZE  EMBEDDING", output::left("INPUT", width));
                Destination::Table { lines: Lines::under(header), width }
            }
        }
    }

    fn create(file: &OutFile, columns: usize) -> Result<Destination, Error> {
        match file {
            OutFile::Jsonl(path) => {
                Ok(Destination::Jsonl { file: PartialFile::create(path)?, path: path.clone(), rows: 0 })
            }
            OutFile::Npy(path) => {
                let names_path = path.with_extension("paths.txt");
                let names = PartialFile::create(&names_path)?;
                let rows = PartialFile::create(path)?;
                let rows = NpyWriter::new(rows, columns).map_err(at(path))?;
                Ok(Destination::Npy { rows, path: path.clone(), names, names_path, columns })
            }
        }
    }

    fn write(&mut self, input: &Input, values: &[f32]) -> Result<(), Error> {
        match self {
            Destination::Table { lines, width } => {
                let name = output::left(&shown_name(input), *width);
                let begin: Vec<String> =
                    values.iter().take(SHOWN).map(|value| format!("{value:>7.4}")).collect();
                let more = if values.len() > SHOWN { " ..." } else { "" };
                lines.text(&format!("{name}  {:>4}  {}{more}", values.len(), begin.join(" ")))
            }
            Destination::Json(lines) => lines.json(&Line::new(input, &input.name(), values)),
            Destination::Jsonl { file, path, rows } => {
                let line = output::to_json(&Line::new(input, &input.name(), values))?;
                *rows += 1;
                writeln!(file, "{line}").map_err(at(path))
            }
            Destination::Npy { rows, path, names, names_path, .. } => {
                rows.push(values).map_err(at(path))?;
                writeln!(names, "{}", one_line(&input.name())).map_err(at(names_path))
            }
        }
    }

    /// Files get their names. Says where they are.
    fn complete(self) -> Result<(), Error> {
        match self {
            Destination::Table { .. } | Destination::Json(_) => {}
            Destination::Jsonl { file, path, rows } => {
                file.complete().map_err(at(&path))?;
                complain(&format!("{rows} embeddings in {}", path.display()));
            }
            Destination::Npy { rows, path, names, names_path, columns } => {
                let count = rows.rows();
                let rows = rows.finish().map_err(at(&path))?;
                // The list first: whoever sees the array finds its list.
                names.complete().map_err(at(&names_path))?;
                rows.complete().map_err(at(&path))?;
                let (path, names) = (path.display(), names_path.display());
                complain(&format!(
                    "{count} embeddings of {columns} floats in {path}, their paths in {names}"
                ));
            }
        }
        Ok(())
    }

    /// Files stay readable under their temporary names; returns that of the embeddings.
    fn abandon(self) -> Result<Option<PathBuf>, Error> {
        match self {
            Destination::Table { .. } | Destination::Json(_) => Ok(None),
            Destination::Jsonl { mut file, path, .. } => {
                file.flush().map_err(at(&path))?;
                Ok(Some(output::partial(&path)))
            }
            Destination::Npy { rows, path, mut names, names_path, .. } => {
                rows.finish().map_err(at(&path))?;
                names.flush().map_err(at(&names_path))?;
                Ok(Some(output::partial(&path)))
            }
        }
    }
}

impl<'a> Line<'a> {
    fn new(input: &Input, name: &'a str, embedding: &'a [f32]) -> Line<'a> {
        match input {
            Input::Text(_) => Line { path: None, text: Some(name), embedding },
            Input::Picture(_) | Input::Part(_) | Input::Stdin => {
                Line { path: Some(name), text: None, embedding }
            }
        }
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::File { path, error }
}

/// A text has quotation marks, so that it does not look like a path.
fn shown_name(input: &Input) -> String {
    let name = output::printable(&input.name());
    match input {
        Input::Text(_) => format!("\"{name}\""),
        Input::Picture(_) | Input::Part(_) | Input::Stdin => name,
    }
}

/// Line breaks in a name are written as \n and \r: line and row numbers agree.
fn one_line(name: &str) -> String {
    name.replace('\n', "\\n").replace('\r', "\\r")
}
