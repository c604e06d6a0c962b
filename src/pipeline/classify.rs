//! Classify: images against labels, zero-shot.

use std::num::NonZeroUsize;
use std::sync::Arc;

use super::classifiers::Labels;
use super::error::{Error, InputError};
use super::{Deadline, ImageSource, Pipeline, Timing, check_limit, timing, unit};
use crate::batcher::Row;
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
        let chosen = self.choose(request.labels)?;
        let top_k = chosen.top_k(request.top_k);
        self.check_predictions(request.images.len(), chosen.label_count(), top_k)?;
        self.until(deadline, async {
            self.admissible(Modality::Image, request.images.len(), deadline)?;
            let images = self.embed_images(request.images, deadline);
            let (classifier, images) = tokio::try_join!(self.classifier(chosen), images)?;
            let (embeddings, timing) = images;
            let labels = classifier.labels().clone();
            let results = self.score(classifier, embeddings, top_k).await?;
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
        let chosen = self.choose(labels)?;
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
        self.until(deadline, async {
            let start = self.clock.now();
            let row = self.preprocessor.image("image.image".to_owned(), image).await;
            let row = Row::Image(row.map_err(Error::Invalid)?);
            let preprocess = self.clock.now().since(start);
            let mut row = self.run_when_there_is_room(row, deadline).await?;
            let timing = timing(preprocess, std::slice::from_ref(&row));
            unit(&mut row.values)?;
            let StreamClassifier { classifier, top_k } = stream;
            let score = move || classifier.classify(&row.values, top_k);
            Ok((self.preprocessor.blocking(score).await?, timing))
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

    /// Unit embeddings of the images, in order.
    async fn embed_images(
        &self,
        images: Vec<ImageSource>,
        deadline: Deadline,
    ) -> Result<(Vec<Result<Vec<f32>, InputError>>, Timing), Error> {
        let start = self.clock.now();
        let prepared = self.preprocessor.images(images, |index| format!("images[{index}]")).await;
        let preprocess = self.clock.now().since(start);
        let mut rows = Vec::with_capacity(prepared.len());
        let slots: Vec<Result<(), InputError>> =
            prepared.into_iter().map(|image| image.map(|row| rows.push(Row::Image(row)))).collect();
        let embedded = self.run(rows, deadline).await?;
        let timing = timing(preprocess, &embedded);
        let mut values = embedded.into_iter().map(|row| row.values);
        let embeddings = slots
            .into_iter()
            .map(|slot| match slot {
                Ok(()) => {
                    let mut values = values.next().unwrap_or_default();
                    unit(&mut values).map(|()| Ok(values))
                }
                Err(error) => Ok(Err(error)),
            })
            .collect::<Result<_, Error>>()?;
        Ok((embeddings, timing))
    }

    /// Similarity to thousands of labels is milliseconds of work: not for an async thread.
    async fn score(
        &self,
        classifier: Arc<Classifier>,
        embeddings: Vec<Result<Vec<f32>, InputError>>,
        top_k: Option<NonZeroUsize>,
    ) -> Result<Vec<Result<Vec<Prediction>, InputError>>, Error> {
        self.preprocessor
            .blocking(move || {
                embeddings.into_iter().map(|embedding| Ok(classifier.classify(&embedding?, top_k))).collect()
            })
            .await
    }
}
