//! Classify: images against labels, zero-shot.

use std::cmp::Reverse;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::classifiers::Labels;
use super::error::{Error, InputError, Place};
use super::images::Patience;
use super::progress::Progress;
use super::slots::Slots;
use super::{ImageSource, Pipeline, Timing, check_limit, timing, unit};
use crate::admission::{Admitted, Deadline, Reason};
use crate::batcher::{Embedded, Row};
use crate::clip::classifier::{Classifier, Prediction};
use crate::modality::Modality;

#[derive(Clone, Debug)]
pub struct ClassifyRequest {
    pub images: Vec<ImageSource>,
    pub labels: Labels,
    /// `None`: all labels, or as the named classifier has it.
    pub top_k: Option<NonZeroUsize>,
}

#[derive(Debug)]
pub struct ClassifyResponse {
    /// One per image, in order; the predictions best first.
    pub results: Vec<Result<Vec<Prediction>, InputError>>,
    /// To which predictions point.
    pub labels: Arc<[String]>,
    pub timing: Timing,
}

/// Products of two numbers that an async thread may add up for scores: those of 1,000 labels take some 50 µs, no
/// longer than other tasks may be made to wait, and less than a change of threads costs on a busy machine.
const SHORT: usize = 1 << 19;

type EmbeddedImages = (Slots<()>, Vec<Vec<f32>>, Timing);

/// What a stream of images is compared with.
#[derive(Clone)]
pub struct StreamClassifier {
    classifier: Arc<Classifier>,
    top_k: Option<NonZeroUsize>,
    /// For what the stream keeps. `None`: the server keeps it anyway.
    _kept: Option<Arc<OwnedSemaphorePermit>>,
}

/// What a prediction takes beside its label: three numbers of four bytes with their tags, and two lengths.
const PREDICTION_BYTES: usize = 24;

/// Most bytes of so many predictions of different labels.
fn largest(labels: &[String], predictions: usize) -> usize {
    let mut bytes: Vec<usize> = labels.iter().map(String::len).collect();
    let labels: usize = match predictions {
        0 => 0,
        all if all >= bytes.len() => bytes.iter().sum(),
        some => {
            let (before, least, _) = bytes.select_nth_unstable_by_key(some - 1, |length| Reverse(*length));
            before.iter().sum::<usize>() + *least
        }
    };
    labels + predictions * PREDICTION_BYTES
}

impl ClassifyResponse {
    /// What the answer takes, nearly, however it is written.
    pub fn bytes(&self) -> usize {
        let predictions = self.results.iter().flatten().flatten();
        predictions.map(|prediction| self.labels[prediction.index].len() + PREDICTION_BYTES).sum()
    }
}

impl StreamClassifier {
    /// To which predictions point.
    pub fn labels(&self) -> &[String] {
        self.classifier.labels()
    }
}

impl Pipeline {
    pub async fn classify(
        &self,
        request: ClassifyRequest,
        deadline: Deadline,
        call: &Admitted,
    ) -> Result<ClassifyResponse, Error> {
        self.check_inputs(request.images.len())?;
        let progress = Progress::of_call(call, self.clock);
        self.until(deadline, &progress, async {
            let chosen = self.choose(request.labels).await?;
            let top_k = chosen.top_k(request.top_k);
            self.check_predictions(request.images.len(), chosen.labels(), top_k)?;
            let images = self.embed_images(request.images, deadline, &progress)?;
            let classifier = call.stage("labels", self.classifier(chosen));
            let (classifier, images) = tokio::try_join!(classifier, images)?;
            let (slots, embeddings, timing) = images;
            let labels = classifier.labels().clone();
            let predictions = self.score(classifier, embeddings, top_k).await?;
            let results = slots.join(predictions, |(), predictions| Ok(predictions))?;
            Ok(ClassifyResponse { results, labels, timing })
        })
        .await
    }

    /// Prepares a stream: embeds its labels, however long that takes.
    pub async fn stream_classifier(
        &self,
        labels: Labels,
        top_k: Option<NonZeroUsize>,
        call: &Admitted,
    ) -> Result<StreamClassifier, Error> {
        let made = async {
            let chosen = self.choose(labels).await?;
            let top_k = chosen.top_k(top_k);
            self.check_predictions(1, chosen.labels(), top_k)?;
            let _kept = if chosen.is_named() { None } else { Some(Arc::new(self.keep(chosen.labels())?)) };
            let classifier = call.stage("labels", self.classifier(chosen)).await?;
            Ok(StreamClassifier { classifier, top_k, _kept })
        };
        self.counted(made.await, call)
    }

    /// Room for labels and their embeddings as long as a stream has them.
    fn keep(&self, labels: &[String]) -> Result<OwnedSemaphorePermit, Error> {
        let row = self.embed_dim.get() * size_of::<f32>();
        let bytes: usize = labels.iter().map(|label| label.len() + row).sum();
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let kept = self.stream_labels.clone().try_acquire_many_owned(permits);
        kept.map_err(|_| Error::refused(Reason::StreamLabels, Duration::from_secs(1)))
    }

    /// Classifies one image of a stream: waits for room instead of being refused, and has one error.
    pub async fn classify_one(
        &self,
        stream: StreamClassifier,
        image: ImageSource,
        deadline: Deadline,
        call: &Admitted,
    ) -> Result<(Vec<Prediction>, Timing), Error> {
        let progress = Progress::of_input(call, self.clock);
        self.until_answered(Some(Modality::Image), deadline, &progress, async {
            let start = self.clock.now();
            let row = Row::Image(self.image(image, deadline).await?);
            let preprocess = progress.prepared(start);
            let mut row = self.run_when_there_is_room(row, deadline, progress.span()).await?;
            let timing = timing(preprocess, std::slice::from_ref(&row));
            unit(&mut row.values)?;
            let StreamClassifier { classifier, top_k, _kept } = stream;
            let predictions = self.score(classifier, vec![row.values], top_k).await?.pop();
            Ok((predictions.unwrap_or_else(|| unreachable!("one embedding has predictions")), timing))
        })
        .await
    }

    fn check_predictions(
        &self,
        images: usize,
        labels: &[String],
        top_k: Option<NonZeroUsize>,
    ) -> Result<(), Error> {
        let per_image = top_k.map_or(labels.len(), |k| k.get().min(labels.len()));
        check_limit(Place::Predictions, images * per_image, self.limits.predictions)?;
        let limit = self.limits.response_bytes;
        // Few are near the limit: only of those it is looked at which labels are the longest.
        let longest = labels.iter().map(String::len).max().unwrap_or(0);
        if images * per_image * (longest + PREDICTION_BYTES) <= limit {
            return Ok(());
        }
        let bytes = images * largest(labels, per_image);
        if bytes > limit {
            let message = format!(
                "{bytes} may be needed, which is more than the limit of {limit}: set top_k, or send fewer images or \
                 shorter labels"
            );
            return Err(InputError::new(Place::Response, message).into());
        }
        Ok(())
    }

    /// For each image whether it can be embedded, and the unit embeddings of those that can, in order. Refuses at
    /// once.
    fn embed_images(
        &self,
        images: Vec<ImageSource>,
        deadline: Deadline,
        progress: &Progress<'_>,
    ) -> Result<impl Future<Output = Result<EmbeddedImages, Error>>, Error> {
        let start = self.clock.now();
        let images = self.images(images.into_iter().enumerate(), deadline, Patience::None)?;
        Ok(async move {
            let prepared = images.await?;
            let preprocess = progress.prepared(start);
            let (slots, rows) = Slots::split(prepared, |row| ((), Row::Image(row)));
            let embedded = self.run(rows, deadline, progress.span()).await?;
            let timing = timing(preprocess, &embedded);
            let embeddings = embedded.into_iter().map(|Embedded { mut values, .. }| {
                unit(&mut values)?;
                Ok(values)
            });
            Ok((slots, embeddings.collect::<Result<_, Error>>()?, timing))
        })
    }

    /// The predictions of each embedding, in order.
    async fn score(
        &self,
        classifier: Arc<Classifier>,
        embeddings: Vec<Vec<f32>>,
        top_k: Option<NonZeroUsize>,
    ) -> Result<Vec<Vec<Prediction>>, Error> {
        let products = embeddings.len() * classifier.labels().len() * self.embed_dim.get();
        let score = move || classifier.classify(&embeddings, top_k);
        if products <= SHORT { Ok(score()) } else { self.preprocessor.blocking(score).await }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_labels_make_the_largest_answer() {
        let labels = ["a", "four", "of 8 byt"].map(str::to_owned);
        assert_eq!(largest(&labels, 0), 0);
        assert_eq!(largest(&labels, 1), 8 + PREDICTION_BYTES);
        assert_eq!(largest(&labels, 2), 8 + 4 + 2 * PREDICTION_BYTES);
        assert_eq!(largest(&labels, 3), 8 + 4 + 1 + 3 * PREDICTION_BYTES);
    }
}
