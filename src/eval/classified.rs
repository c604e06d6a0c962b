//! Answers of a classifier that the server has, through Classify in the bulk class: its rows never leave the server, so
//! there are ranks and probabilities, and no embeddings.

use tokio::task::JoinSet;
use tonic::Status;

use super::Error;
use super::data::{Truth, Zeroshot};
use super::faults::Faults;
use super::matrix::Standing;
use super::task::{Line, Query};
use crate::cli::client::{Backoff, Client, Server};
use crate::cli::progress::Progress;
use crate::grpc::proto::classify_result::Result as Wire;
use crate::grpc::proto::input::Content;
use crate::grpc::proto::{Class, ClassifyRequest, ClassifyResult, Image, Prediction};

/// Requests in flight, and pictures of each.
const REQUESTS: usize = 8;
const PICTURES: usize = 8;

/// What became of the pictures of one request, in their order.
type Batch = Result<Vec<(usize, Result<Vec<Prediction>, String>)>, Status>;

/// Answers in input order.
pub(super) async fn ask(
    server: &Server,
    data: &Zeroshot,
    classifier: &str,
    faults: &mut Faults,
) -> Result<Vec<Line>, Error> {
    let Truth::One(truth) = &data.truth else {
        return Err(Error::Other("--classifier: each picture must have one class".to_owned()));
    };
    let (limits, max_bytes) = (&server.limits, server.max_content_bytes() / PICTURES as u64);
    // All labels, as far as one answer may have them.
    let top_k = limits.labels.min(limits.predictions / PICTURES as u32).max(1);
    let mut progress = Progress::of(data.pictures.len());
    let mut lines = Vec::new();
    let mut next = (0..data.pictures.len()).step_by(PICTURES);
    let mut running = JoinSet::new();
    loop {
        while running.len() < REQUESTS
            && let Some(first) = next.next()
        {
            let (pictures, client) = (data.pictures.clone(), server.client.clone());
            let request = ClassifyRequest {
                classifier: classifier.to_owned(),
                top_k,
                class: Class::Bulk.into(),
                ..ClassifyRequest::default()
            };
            running.spawn(async move {
                let last = (first + PICTURES).min(pictures.len());
                let load = move || {
                    (first..last).map(|picture| (picture, pictures[picture].load(max_bytes))).collect()
                };
                batch(client, request, tokio::task::spawn_blocking(load).await.unwrap_or_default()).await
            });
        }
        let Some(batch) = running.join_next().await else { break };
        let batch = batch.map_err(|error| Error::Other(error.to_string()))?;
        for (picture, predictions) in batch.map_err(|status| server.failed(status))? {
            progress.advance();
            match predictions {
                Ok(predictions) => {
                    lines.push(line(data, picture, truth[picture] as usize, &predictions)?);
                }
                Err(reason) => {
                    faults.add(Query::Picture(picture), &data.pictures[picture].name(), &reason, &progress);
                }
            }
        }
    }
    progress.end();
    lines.sort_by_key(|line| line.query);
    Ok(lines)
}

async fn batch(
    mut client: Client,
    request: ClassifyRequest,
    loaded: Vec<(usize, Result<Content, String>)>,
) -> Batch {
    let (mut done, mut sent, mut images) = (Vec::new(), Vec::new(), Vec::<Image>::new());
    for (picture, content) in loaded {
        match content {
            Ok(Content::Image(image)) => {
                sent.push(picture);
                images.push(image);
            }
            Ok(Content::Text(_)) => done.push((picture, Err("not a picture".to_owned()))),
            Err(reason) => done.push((picture, Err(reason))),
        }
    }
    if images.is_empty() {
        return Ok(done);
    }
    let request = ClassifyRequest { images, ..request };
    let mut backoff = Backoff::default();
    let results = loop {
        match client.classify(request.clone()).await {
            Ok(response) => break response.into_inner().results,
            Err(status) => backoff.wait(status).await?,
        }
    };
    let missing = || ClassifyResult { result: None };
    for (picture, result) in sent.into_iter().zip(results.into_iter().chain(std::iter::repeat_with(missing)))
    {
        let predictions = match result.result {
            Some(Wire::Predictions(predictions)) => Ok(predictions.predictions),
            Some(Wire::Error(error)) => Err(error.message),
            None => Err("the server gave neither a result nor a reason".to_owned()),
        };
        done.push((picture, predictions));
    }
    Ok(done)
}

/// Labels are classes by their names.
fn line(data: &Zeroshot, picture: usize, right: usize, predictions: &[Prediction]) -> Result<Line, Error> {
    let best = predictions.first().ok_or_else(|| Error::Other("the classifier has no label".to_owned()))?;
    let first = data.classes.iter().position(|class| *class == best.label).ok_or_else(|| {
        let label = &best.label;
        Error::Other(format!(
            "the classifier's label {label:?} is none of the classes; --classes names them anew"
        ))
    })?;
    let is_right = |prediction: &&Prediction| prediction.label == data.classes[right];
    let place = predictions.iter().position(|prediction| is_right(&prediction));
    let score = |found: Option<&Prediction>| found.map_or(0.0, |prediction| prediction.score);
    let wrong = score(predictions.iter().find(|prediction| !is_right(prediction)));
    let standing = Standing {
        first,
        rank: place.map_or(0, |place| place + 1),
        margin: score(place.map(|place| &predictions[place])) - wrong,
    };
    Ok(Line::new(Query::Picture(picture), standing, best.score))
}
