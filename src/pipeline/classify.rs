//! Classify: images against labels, zero-shot.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use super::error::{Error, InputError};
use super::labels::LabelSet;
use super::{Deadline, ImageSource, Pipeline, Timing, timing, unit};
use crate::batcher::Row;
use crate::clip::classifier::{Classifier, Prediction};
use crate::clip::prompt::PromptTemplate;
use crate::modality::Modality;

#[derive(Clone, Debug)]
pub struct ClassifyRequest {
    pub images: Vec<ImageSource>,
    pub labels: Vec<String>,
    /// Empty: the default template.
    pub templates: Vec<String>,
    /// `None`: all labels.
    pub top_k: Option<NonZeroUsize>,
}

#[derive(Debug)]
pub struct ClassifyResponse {
    /// One per image, in order; the predictions best first.
    pub results: Vec<Result<Vec<Prediction>, InputError>>,
    /// The request's labels, to which predictions point.
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
        let set = self.label_set(request.labels, &request.templates)?;
        self.check_predictions(request.images.len(), &set, request.top_k)?;
        self.until(deadline, async {
            self.check_room(Modality::Image, request.images.len())?;
            let labels = set.labels.clone();
            let (classifier, images) =
                tokio::try_join!(self.labels.classifier(set), self.embed_images(request.images, deadline))?;
            let (embeddings, timing) = images;
            let results = self.score(classifier, embeddings, request.top_k).await?;
            Ok(ClassifyResponse { results, labels, timing })
        })
        .await
    }

    /// Prepares a stream: embeds its labels, however long that takes.
    pub async fn stream_classifier(
        &self,
        labels: Vec<String>,
        templates: &[String],
        top_k: Option<NonZeroUsize>,
    ) -> Result<StreamClassifier, Error> {
        let set = self.label_set(labels, templates)?;
        self.check_predictions(1, &set, top_k)?;
        Ok(StreamClassifier { classifier: self.labels.classifier(set).await?, top_k })
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

    fn label_set(&self, labels: Vec<String>, templates: &[String]) -> Result<LabelSet, Error> {
        let templates = self.templates(templates)?;
        self.check_labels(&labels, &templates)?;
        Ok(LabelSet { labels: labels.into(), templates })
    }

    fn check_predictions(
        &self,
        images: usize,
        set: &LabelSet,
        top_k: Option<NonZeroUsize>,
    ) -> Result<(), Error> {
        let labels = set.labels.len();
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

    fn templates(&self, templates: &[String]) -> Result<Vec<PromptTemplate>, Error> {
        check_limit("templates", templates.len(), self.limits.templates)?;
        if templates.is_empty() {
            return Ok(vec![PromptTemplate::default()]);
        }
        templates
            .iter()
            .enumerate()
            .map(|(index, template)| {
                let field = format!("templates[{index}]");
                check_limit(&format!("{field} bytes"), template.len(), self.limits.text_bytes)?;
                PromptTemplate::parse(template).map_err(|error| Error::Invalid(InputError::new(field, error)))
            })
            .collect()
    }

    fn check_labels(&self, labels: &[String], templates: &[PromptTemplate]) -> Result<(), Error> {
        if labels.is_empty() {
            return Err(Error::Invalid(InputError::new("labels", "must not be empty")));
        }
        check_limit("labels", labels.len(), self.limits.labels)?;
        check_limit("labels x templates", labels.len().saturating_mul(templates.len()), self.limits.prompts)?;
        let mut seen = HashMap::with_capacity(labels.len());
        for (index, label) in labels.iter().enumerate() {
            let invalid =
                |message: String| Error::Invalid(InputError::new(format!("labels[{index}]"), message));
            if label.trim().is_empty() {
                return Err(invalid("must not be empty".into()));
            }
            if label.len() > self.limits.text_bytes {
                let (bytes, limit) = (label.len(), self.limits.text_bytes);
                return Err(invalid(format!("{bytes} bytes are more than the limit of {limit}")));
            }
            if let Some(first) = seen.insert(label, index) {
                return Err(invalid(format!("is the same as labels[{first}]")));
            }
        }
        self.check_prompt_bytes(labels, templates)
    }

    /// A template of many `{}` could make prompts far larger than anything that was sent.
    fn check_prompt_bytes(&self, labels: &[String], templates: &[PromptTemplate]) -> Result<(), Error> {
        let longest = labels.iter().map(String::len).max().unwrap_or(0);
        templates.iter().enumerate().try_for_each(|(index, template)| {
            let field = format!("templates[{index}] with its longest label: bytes");
            check_limit(&field, template.rendered_bytes(longest), self.limits.text_bytes)
        })
    }
}

fn check_limit(field: &str, count: usize, limit: usize) -> Result<(), Error> {
    if count > limit {
        let message = format!("{count} are more than the limit of {limit}");
        return Err(Error::Invalid(InputError::new(field, message)));
    }
    Ok(())
}
