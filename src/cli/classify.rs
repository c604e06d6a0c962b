//! `clipd classify`: pictures against labels, as a table or as JSON.

use std::path::Path;

use bytes::Bytes;
use serde::Serialize;

use super::client::{Backoff, Server};
use super::flags::ClassifyFlags;
use super::inputs::{self, Input};
use super::output::{self, Format, Lines};
use super::{Error, Outcome, complain};
use crate::grpc::proto::classify_result::Result as Wire;
use crate::grpc::proto::input::Content;
use crate::grpc::proto::{ClassifyRequest, ClassifyResult, Image, Prediction};

/// Pictures of one request, whatever the server allows: 64 of a large model fit its time limit on a slow CPU.
const MAX_IMAGES: usize = 64;

pub(super) async fn run(flags: &ClassifyFlags) -> Result<Outcome, Error> {
    let mut server = Server::connect(&flags.server).await?;
    let question = Question::new(flags, &server)?;
    let inputs: Vec<Input> = flags.images.iter().map(|path| Input::of_argument(path)).collect();
    let mut report = Report::new(Format::of_flag(flags.json), &inputs, &question.request.labels);

    let mut batch = Batch::default();
    for input in &inputs {
        let name = input.name();
        let image = match load(input, question.max_image_bytes).await {
            Ok(image) => image,
            Err(reason) => {
                report.failed(&name, &reason);
                continue;
            }
        };
        if !question.fits(&batch, &image) {
            question.ask(&mut server, std::mem::take(&mut batch), &mut report).await?;
        }
        batch.push(name, image);
    }
    question.ask(&mut server, batch, &mut report).await?;
    Ok(Outcome::of_failures(report.failed))
}

/// What every picture is compared with, and what fits beside it in a request.
struct Question {
    /// Without images.
    request: ClassifyRequest,
    max_image_bytes: u64,
    /// Bytes of all images of a request.
    room: u64,
    max_images: usize,
}

/// Bytes on the wire around a string or an image: tags and lengths of at most two levels.
const AROUND: u64 = 16;

impl Question {
    fn new(flags: &ClassifyFlags, server: &Server) -> Result<Question, Error> {
        let limits = &server.limits;
        let mut labels: Vec<String> = flags.labels.iter().map(|label| label.trim().to_owned()).collect();
        if let Some(path) = &flags.label_file {
            labels.extend(labels_of_file(path, limits.message_bytes)?);
        }
        let templates = flags.templates.clone();
        let texts: u64 = labels.iter().chain(&templates).map(|text| text.len() as u64 + AROUND).sum();
        let room = limits.message_bytes.saturating_sub(texts + 1024);
        if room == 0 {
            return Err(Error::Other("the labels alone are larger than a request may be".to_owned()));
        }
        let per_image = match labels.len() {
            0 => flags.top_k as usize,
            labels => labels.min(flags.top_k as usize),
        };
        let max_images =
            MAX_IMAGES.min(limits.inputs as usize).min(limits.predictions as usize / per_image.max(1)).max(1);
        let request = ClassifyRequest {
            images: Vec::new(),
            labels: labels.into_iter().map(Bytes::from).collect(),
            templates,
            top_k: flags.top_k,
            classifier: flags.classifier.clone().unwrap_or_default(),
            ..ClassifyRequest::default()
        };
        let max_image_bytes = server.max_content_bytes().min(room - AROUND.min(room));
        Ok(Question { request, max_image_bytes, room, max_images })
    }

    fn fits(&self, batch: &Batch, image: &LoadedImage) -> bool {
        batch.images.len() < self.max_images && batch.bytes + image.bytes <= self.room
    }

    async fn ask(&self, server: &mut Server, batch: Batch, report: &mut Report) -> Result<(), Error> {
        if batch.images.is_empty() {
            return Ok(());
        }
        let request = ClassifyRequest { images: batch.images, ..self.request.clone() };
        let mut backoff = Backoff::default();
        let results = loop {
            match server.client.classify(request.clone()).await {
                Ok(response) => break response.into_inner().results,
                Err(status) => backoff.wait(status).await.map_err(|status| server.failed(status))?,
            }
        };
        if results.len() != batch.names.len() {
            return Err(Error::Other("the server gave another number of results than of images".to_owned()));
        }
        batch.names.iter().zip(results).try_for_each(|(name, result)| report.result(name, result))
    }
}

/// A label on each line; blank lines are none.
fn labels_of_file(path: &Path, max_bytes: u64) -> Result<Vec<String>, Error> {
    let failed = |reason: String| Error::Other(format!("{}: {reason}", path.display()));
    let bytes = inputs::read_file(path, max_bytes).map_err(failed)?;
    let text = String::from_utf8(bytes).map_err(|error| failed(error.to_string()))?;
    let text = text.trim_start_matches('\u{feff}');
    Ok(text.lines().map(str::trim).filter(|label| !label.is_empty()).map(str::to_owned).collect())
}

struct LoadedImage {
    image: Image,
    /// On the wire.
    bytes: u64,
}

/// Files are read aside: the connection has pings to answer meanwhile.
async fn load(input: &Input, max_bytes: u64) -> Result<LoadedImage, String> {
    let input = input.clone();
    let read = move || match input.load(max_bytes)? {
        Content::Image(image) => Ok(image),
        Content::Text(_) => Err("not a picture".to_owned()),
    };
    let image: Image = tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())??;
    let bytes = super::ledger::held_bytes(&Content::Image(image.clone())) as u64 + AROUND;
    Ok(LoadedImage { image, bytes })
}

/// Pictures of one request with their names.
#[derive(Default)]
struct Batch {
    names: Vec<String>,
    images: Vec<Image>,
    bytes: u64,
}

impl Batch {
    fn push(&mut self, name: String, LoadedImage { image, bytes }: LoadedImage) {
        self.names.push(name);
        self.images.push(image);
        self.bytes += bytes;
    }
}

/// Prints results, and counts those that are missing.
struct Report {
    lines: Lines,
    format: Format,
    image_width: usize,
    label_width: usize,
    failed: usize,
}

#[derive(Serialize)]
struct ImageObject<'a> {
    image: &'a str,
    predictions: Vec<PredictionObject<'a>>,
}

#[derive(Serialize)]
struct PredictionObject<'a> {
    label: &'a str,
    index: u32,
    score: f32,
    similarity: f32,
}

impl<'a> From<&'a Prediction> for PredictionObject<'a> {
    fn from(prediction: &'a Prediction) -> PredictionObject<'a> {
        let Prediction { label, index, score, similarity } = prediction;
        PredictionObject { label, index: *index, score: *score, similarity: *similarity }
    }
}

/// Rows with a longer label stick out.
const MAX_LABEL_WIDTH: usize = 40;

/// The labels of a classifier of the server are not known beforehand.
const UNKNOWN_LABEL_WIDTH: usize = 24;

impl Report {
    fn new(format: Format, inputs: &[Input], labels: &[Bytes]) -> Report {
        let names: Vec<String> = inputs.iter().map(|input| output::printable(&input.name())).collect();
        let image_width = output::widest(names.iter().map(String::as_str).chain(["IMAGE"]));
        let label_width = match labels {
            [] => UNKNOWN_LABEL_WIDTH,
            labels => {
                let labels = labels.iter().filter_map(|label| std::str::from_utf8(label).ok());
                output::widest(labels.chain(["LABEL"])).min(MAX_LABEL_WIDTH)
            }
        };
        let lines = match format {
            Format::Json => Lines::new(),
            Format::Table => {
                let columns = ["IMAGE", "RANK", "LABEL", "SCORE", "SIMILARITY"];
                Lines::under(row(columns, image_width, label_width))
            }
        };
        Report { lines, format, image_width, label_width, failed: 0 }
    }

    fn failed(&mut self, name: &str, reason: &str) {
        self.failed += 1;
        complain(&output::printable(&format!("{name}: {reason}")));
    }

    fn result(&mut self, name: &str, result: ClassifyResult) -> Result<(), Error> {
        match (result.result, self.format) {
            (Some(Wire::Predictions(found)), Format::Table) => self.table(name, &found.predictions),
            (Some(Wire::Predictions(found)), Format::Json) => self.json(name, &found.predictions),
            (Some(Wire::Error(error)), _) => {
                self.failed(name, &error.message);
                Ok(())
            }
            (None, _) => {
                self.failed(name, "the server gave neither a result nor a reason");
                Ok(())
            }
        }
    }

    /// The name stands in the first row only.
    fn table(&mut self, name: &str, predictions: &[Prediction]) -> Result<(), Error> {
        for (position, prediction) in predictions.iter().enumerate() {
            let name = if position == 0 { output::printable(name) } else { String::new() };
            let rank = (position + 1).to_string();
            let label = output::printable(&prediction.label);
            let score = format!("{:.1}%", prediction.score * 100.0);
            let similarity = format!("{:.3}", prediction.similarity);
            let columns = [name.as_str(), &rank, &label, &score, &similarity];
            self.lines.text(&row(columns, self.image_width, self.label_width))?;
        }
        Ok(())
    }

    fn json(&mut self, image: &str, predictions: &[Prediction]) -> Result<(), Error> {
        let predictions = predictions.iter().map(PredictionObject::from).collect();
        self.lines.json(&ImageObject { image, predictions })
    }
}

fn row(columns: [&str; 5], image_width: usize, label_width: usize) -> String {
    let [image, rank, label, score, similarity] = columns;
    let (image, label) = (output::left(image, image_width), output::left(label, label_width));
    format!("{image}  {rank:>4}  {label}  {score:>6}  {similarity:>10}")
}
