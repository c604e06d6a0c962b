//! Requests, made before the load begins: pictures and texts of the user, or drawn and made up ones.
//!
//! It does not send them. Messages hold their pictures by reference, so that making one more costs nothing.

use std::path::Path;

use bytes::Bytes;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::json::JsonCall;
use super::{Error, words};
use crate::cli::inputs::{self, Depth};
use crate::clip::image::{ImageLimits, ImagePreprocessor};
use crate::clip::row::ImageRow;
use crate::clip::spec::{ImageSpec, Interpolation, ResizeMode};
use crate::config::bench::{BenchFlags, Workload};
use crate::grpc::proto::input::Content;
use crate::grpc::proto::{
    ClassifyRequest, EmbedRequest, GetModelResponse, Image, Input, RgbImage, image::Source,
};
use crate::modality::Modality;

/// Drawn by `pictures/make.py`.
const PICTURES: [&[u8]; 4] = [
    include_bytes!("pictures/0.jpg"),
    include_bytes!("pictures/1.jpg"),
    include_bytes!("pictures/2.jpg"),
    include_bytes!("pictures/3.jpg"),
];

/// Made-up captions; more would not be more different.
const CAPTIONS: usize = 512;

/// What is held in memory of a directory or file: the first ones.
const MAX_PICTURES: usize = 2000;
const MAX_PICTURE_BYTES: u64 = 1 << 30;
const MAX_TEXTS: usize = 100_000;
const MAX_TEXT_BYTES: u64 = 64 << 20;

/// What is sent, in an order that the seed decides.
pub(super) struct Inputs {
    pub(super) pictures: Vec<Bytes>,
    pub(super) texts: Vec<String>,
    labels: u32,
}

/// One request, ready to be sent.
#[derive(Clone)]
pub(super) enum Call {
    Embed(EmbedRequest),
    Classify(ClassifyRequest),
    /// Over HTTP.
    Json(JsonCall),
}

impl Call {
    /// The same for the HTTP API.
    pub(super) fn over_http(self) -> Result<Call, Error> {
        Ok(Call::Json(match self {
            Call::Embed(request) => JsonCall::embed(&request)?,
            Call::Classify(request) => JsonCall::classify(&request)?,
            Call::Json(call) => call,
        }))
    }
}

impl Workload {
    /// As in flags.
    pub(super) fn name(self) -> &'static str {
        match self {
            Workload::Images => "images",
            Workload::Rgb => "rgb",
            Workload::Texts => "texts",
            Workload::Classify => "classify",
        }
    }

    /// What its requests are batched with.
    pub(super) fn modality(self) -> Modality {
        match self {
            Workload::Images | Workload::Rgb | Workload::Classify => Modality::Image,
            Workload::Texts => Modality::Text,
        }
    }
}

impl Inputs {
    pub(super) fn load(flags: &BenchFlags) -> Result<Inputs, Error> {
        let mut pictures = match &flags.images {
            None => PICTURES.map(Bytes::from_static).to_vec(),
            Some(directory) => pictures(directory)?,
        };
        let mut texts = match &flags.texts {
            None => words::captions(CAPTIONS, flags.seed),
            Some(file) => texts(file)?,
        };
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(flags.seed);
        pictures.shuffle(&mut rng);
        texts.shuffle(&mut rng);
        Ok(Inputs { pictures, texts, labels: flags.labels })
    }

    /// With every text that many times over.
    pub(super) fn repeated(&self, times: usize) -> Inputs {
        let texts = self.texts.iter().map(|text| vec![text.as_str(); times].join(" ")).collect();
        Inputs { pictures: self.pictures.clone(), texts, labels: self.labels }
    }

    /// The different requests of a workload; a load sends them again and again.
    pub(super) fn calls(&self, workload: Workload, model: &GetModelResponse) -> Result<Vec<Call>, Error> {
        let encoded = |bytes: &Bytes| Image { source: Some(Source::Encoded(bytes.clone())) };
        let embed = |content| {
            let inputs = vec![Input { content: Some(content) }];
            Call::Embed(EmbedRequest { inputs, ..EmbedRequest::default() })
        };
        Ok(match workload {
            Workload::Images => {
                self.pictures.iter().map(|bytes| embed(Content::Image(encoded(bytes)))).collect()
            }
            Workload::Texts => self.texts.iter().map(|text| embed(Content::Text(text.clone()))).collect(),
            Workload::Rgb => {
                let (width, height) = (model.image_width, model.image_height);
                let rgb = |pixels| RgbImage { width, height, pixels };
                let image = |pixels| Image { source: Some(Source::Rgb(rgb(pixels))) };
                let rows = self.rows(width, height)?;
                rows.map(|pixels| embed(Content::Image(image(pixels)))).collect()
            }
            Workload::Classify => {
                let labels: Vec<Bytes> =
                    words::labels(self.labels as usize).into_iter().map(Bytes::from).collect();
                let classify = |bytes: &Bytes| ClassifyRequest {
                    images: vec![encoded(bytes)],
                    labels: labels.clone(),
                    top_k: 5,
                    ..ClassifyRequest::default()
                };
                self.pictures.iter().map(|bytes| Call::Classify(classify(bytes))).collect()
            }
        })
    }

    /// Pixels of the pictures in the model's size.
    fn rows(&self, width: u32, height: u32) -> Result<impl Iterator<Item = Bytes>, Error> {
        let spec = ImageSpec {
            height,
            width,
            interpolation: Interpolation::Bicubic,
            resize_mode: ResizeMode::Shortest,
        };
        let limits = ImageLimits { max_bytes: usize::MAX, max_pixels: MAX_PIXELS };
        let preprocessor = ImagePreprocessor::new(spec, limits);
        let rows: Result<Vec<ImageRow>, _> =
            self.pictures.iter().map(|bytes| preprocessor.encoded(bytes)).collect();
        let rows = rows.map_err(|error| Error::Other(format!("--workload rgb: a picture: {error}")))?;
        Ok(rows.into_iter().map(|ImageRow(pixels)| pixels))
    }
}

/// As `serve` takes them by default.
const MAX_PIXELS: u64 = 50_000_000;

fn pictures(directory: &Path) -> Result<Vec<Bytes>, Error> {
    let mut pictures = Vec::new();
    let mut room = MAX_PICTURE_BYTES;
    for input in inputs::expand(&[directory.to_owned()], Depth::OneDirectory)?.iter().take(MAX_PICTURES) {
        let failed = |reason: String| Error::Other(format!("{}: {reason}", input.name()));
        let Content::Image(Image { source: Some(Source::Encoded(bytes)) }) =
            input.load(MAX_PICTURE_BYTES).map_err(failed)?
        else {
            return Err(failed("not a picture".to_owned()));
        };
        let Some(left) = room.checked_sub(bytes.len() as u64) else { break };
        room = left;
        pictures.push(bytes);
    }
    Ok(pictures)
}

fn texts(file: &Path) -> Result<Vec<String>, Error> {
    let failed = |reason: String| Error::Other(format!("{}: {reason}", file.display()));
    let content = text_of(file, MAX_TEXT_BYTES).map_err(failed)?;
    let lines = content.lines().map(str::trim).filter(|line| !line.is_empty());
    let texts: Vec<String> = lines.take(MAX_TEXTS).map(str::to_owned).collect();
    if texts.is_empty() { Err(failed("no text in it".to_owned())) } else { Ok(texts) }
}

/// The content of a file of UTF-8, or what is wrong with it.
pub(super) fn text_of(file: &Path, max_bytes: u64) -> Result<String, String> {
    let bytes = inputs::read_file(file, max_bytes)?;
    String::from_utf8(bytes).map_err(|error| error.to_string())
}
