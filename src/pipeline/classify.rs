//! Classify: images against labels, zero-shot.

use std::num::NonZeroUsize;
use std::sync::Arc;

use super::classifiers::Labels;
use super::error::{Error, InputError};
use super::images::Patience;
use super::progress::Progress;
use super::{Deadline, ImageSource, Pipeline, Timing, check_limit, timing, unit};
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

type EmbeddedImages = (Vec<Result<(), InputError>>, Vec<Vec<f32>>, Timing);

/// What a stream of images is compared with.
#[derive(Clone)]
pub struct StreamClassifier {
    classifier: Arc<Classifier>,
    top_k: Option<NonZeroUsize>,
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
    ) -> Result<ClassifyResponse, Error> {
        self.check_inputs("images", request.images.len())?;
        let progress = Progress::default();
        self.until(deadline, &progress, async {
            let chosen = self.choose(request.labels).await?;
            let top_k = chosen.top_k(request.top_k);
            self.check_predictions(request.images.len(), chosen.label_count(), top_k)?;
            let images = self.embed_images(request.images, deadline, &progress)?;
            let (classifier, images) = tokio::try_join!(self.classifier(chosen), images)?;
            let (slots, embeddings, timing) = images;
            let labels = classifier.labels().clone();
            let mut predictions = self.score(classifier, embeddings, top_k).await?.into_iter();
            let results =
                slots.into_iter().map(|slot| slot.map(|()| predictions.next().unwrap_or_default())).collect();
            Ok(ClassifyResponse { results, labels, timing })
        })
        .await
    }

    /// Prepares a stream: embeds its labels, however long that takes.
    pub async fn stream_classifier(
        &self,
        labels: Labels,
        top_k: Option<NonZeroUsize>,
    ) -> Result<StreamClassifier, Error> {
        let chosen = self.choose(labels).await?;
        let top_k = chosen.top_k(top_k);
        self.check_predictions(1, chosen.label_count(), top_k)?;
        Ok(StreamClassifier { classifier: self.classifier(chosen).await?, top_k })
    }

    /// Classifies one image of a stream: waits for room instead of being refused, and has one error.
    pub async fn classify_one(
        &self,
        stream: StreamClassifier,
        image: ImageSource,
        deadline: Deadline,
    ) -> Result<(Vec<Prediction>, Timing), Error> {
        let progress = Progress::default();
        self.until_answered(Some(Modality::Image), deadline, &progress, async {
            let start = self.clock.now();
            let row = Row::Image(self.image(image, "image.image", deadline).await?);
            progress.prepared();
            let preprocess = self.clock.now().since(start);
            let mut row = self.run_when_there_is_room(row, deadline).await?;
            let timing = timing(preprocess, std::slice::from_ref(&row));
            unit(&mut row.values)?;
            let StreamClassifier { classifier, top_k } = stream;
            let predictions = self.score(classifier, vec![row.values], top_k).await?.pop();
            Ok((predictions.unwrap_or_else(|| unreachable!("one embedding has predictions")), timing))
        })
        .await
    }

    fn check_predictions(
        &self,
        images: usize,
        labels: usize,
        top_k: Option<NonZeroUsize>,
    ) -> Result<(), Error> {
        let per_image = top_k.map_or(labels, |k| k.get().min(labels));
        check_limit("images x top_k", images * per_image, self.limits.predictions)
    }

    /// For each image whether it can be embedded, and the unit embeddings of those that can, in order. Refuses at
    /// once.
    fn embed_images(
        &self,
        images: Vec<ImageSource>,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<impl Future<Output = Result<EmbeddedImages, Error>>, Error> {
        let start = self.clock.now();
        let path = |index| format!("images[{index}]");
        let images = self.images(images, path, deadline, Patience::None)?;
        Ok(async move {
            let prepared = images.await?;
            progress.prepared();
            let preprocess = self.clock.now().since(start);
            let mut rows = Vec::with_capacity(prepared.len());
            let slots =
                prepared.into_iter().map(|image| image.map(|row| rows.push(Row::Image(row)))).collect();
            let embedded = self.run(rows, deadline).await?;
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
