//! A job's embeddings, from a server: pictures and texts through StreamEmbed, in the bulk class.
//!
//! What has no embedding keeps its place, as a row of NaN, with the reason beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Error;
use super::about::About;
use super::classified::{self, Answers};
use super::data::Truth;
use super::job::{Embeddings, Job, Kept};
use super::matrix::Matrix;
use super::record::{Header, Record};
use super::task::{Evaluated, Line, Query};
use super::zeroshot;
use crate::cli;
use crate::cli::client::Server;
use crate::cli::inputs::Input;
use crate::cli::ledger::Answer;
use crate::cli::progress::Progress;
use crate::cli::stream::{self, Sink};
use crate::grpc::proto::Class;

/// A run that is over.
pub(super) struct Run {
    pub(super) about: About,
    pub(super) images: Arc<Embedded>,
    /// Of classes or captions.
    pub(super) texts: Embedded,
    /// Of the prompts that classes are made of.
    pub(super) prompts: Option<Matrix>,
    /// Of a classifier of the server, in place of embeddings.
    answers: Option<Vec<Line>>,
}

/// Rows in input order.
#[derive(Default)]
pub(super) struct Embedded {
    pub(super) matrix: Matrix,
    /// Inputs without an embedding, and why.
    pub(super) failures: BTreeMap<usize, String>,
    /// Texts that were longer than the model reads.
    pub(super) truncated: BTreeSet<usize>,
}

impl Run {
    /// `record` is where pictures' embeddings are kept as they come, and taken from if they are there.
    pub(super) async fn of(server: &mut Server, job: &Job, record: Option<&Record>) -> Result<Run, Error> {
        let about = About::of(server);
        let columns = server.model.embedding_size as usize;
        let header = Header { data: job.digest(), about: about.clone(), columns };
        let images = match record {
            Some(record) => record.begin(&header)?,
            None => Matrix::new(columns),
        };
        let images = embed(server, job.pictures(), images, record).await?;
        let (texts, prompts) = texts(server, job, columns).await?;
        if let Some(record) = record {
            record.complete(&texts.matrix)?;
        }
        Ok(Run { about, images: Arc::new(images), texts, prompts, answers: None })
    }

    /// By a classifier of the server.
    pub(super) async fn classified(server: &Server, job: &Job, classifier: &str) -> Result<Run, Error> {
        let Job::Zeroshot(data) = job else {
            return Err(Error::Other("captions have no classifier".to_owned()));
        };
        let Answers { lines, failures } = classified::ask(server, data, classifier).await?;
        let images = Arc::new(Embedded { failures, ..Embedded::default() });
        let texts = Embedded::default();
        Ok(Run { about: About::of(server), images, texts, prompts: None, answers: Some(lines) })
    }

    /// The same pictures with the texts of another job.
    pub(super) async fn with_texts_of(&self, server: &mut Server, job: &Job) -> Result<Run, Error> {
        let (texts, prompts) = texts(server, job, self.images.matrix.columns).await?;
        Ok(Run { about: self.about.clone(), images: self.images.clone(), texts, prompts, answers: None })
    }

    pub(super) fn recorded(record: &Record, job: &Job) -> Result<Run, Error> {
        let (header, images, texts) = record.load(&job.digest(), job.pictures().len())?;
        Ok(Run {
            about: header.about,
            images: Arc::new(images.into()),
            texts: texts.into(),
            prompts: None,
            answers: None,
        })
    }

    pub(super) fn evaluate<'a>(&self, job: &'a Job, kept: &Kept) -> Evaluated<'a> {
        if let (Some(lines), Job::Zeroshot(data)) = (&self.answers, job)
            && let Truth::One(truth) = &data.truth
        {
            let is_kept = |line: &&Line| kept.pictures.binary_search(&line.query.position()).is_ok();
            return zeroshot::single(data, truth, lines.iter().filter(is_kept).copied().collect());
        }
        let (images, texts) = (&self.images.matrix, &self.texts.matrix);
        job.evaluate(Embeddings { images, texts, logit_scale: self.about.logit_scale }, kept)
    }

    pub(super) fn failed(&self, query: Query) -> bool {
        match query {
            Query::Picture(picture) => self.images.failures.contains_key(&picture),
            Query::Text(text) => self.texts.failures.contains_key(&text),
        }
    }
}

impl From<Matrix> for Embedded {
    /// As it was recorded.
    fn from(matrix: Matrix) -> Embedded {
        let failed = (0..matrix.rows()).filter(|row| matrix.row(*row).iter().any(|value| value.is_nan()));
        let failures =
            failed.map(|row| (row, "the recorded run has no embedding of it".to_owned())).collect();
        Embedded { matrix, failures, ..Embedded::default() }
    }
}

/// Of classes or captions; and, for classes, of their prompts.
async fn texts(server: &mut Server, job: &Job, columns: usize) -> Result<(Embedded, Option<Matrix>), Error> {
    let inputs = job.texts();
    let texts = embed(server, &inputs, Matrix::new(columns), None).await?;
    if let (Job::Zeroshot(_), Some((prompt, reason))) = (job, texts.failures.first_key_value()) {
        // A class without a row would be one that no picture is ever taken for.
        return Err(Error::Other(format!("the prompt {:?}: {reason}", inputs[*prompt].name())));
    }
    match job.candidates(&texts.matrix)? {
        Some(rows) => Ok((Embedded { matrix: rows, ..Embedded::default() }, Some(texts.matrix))),
        None => Ok((texts, None)),
    }
}

/// `done` are the rows of the first inputs.
async fn embed(
    server: &mut Server,
    inputs: &Arc<[Input]>,
    done: Matrix,
    record: Option<&Record>,
) -> Result<Embedded, Error> {
    let first = done.rows();
    let left: Arc<[Input]> = if first == 0 { inputs.clone() } else { inputs[first..].into() };
    let embedded = Embedded { matrix: done, ..Embedded::default() };
    let mut rows = Rows { inputs: left.clone(), first, embedded, record, progress: Progress::of(left.len()) };
    rows.embedded.matrix.values.reserve(left.len() * rows.embedded.matrix.columns);
    let ended = stream::embed(server, left, Class::Bulk, &mut rows).await;
    rows.progress.end();
    ended?;
    Ok(rows.embedded)
}

/// Keeps embeddings as they come.
struct Rows<'a> {
    inputs: Arc<[Input]>,
    /// Position of the first of them.
    first: usize,
    embedded: Embedded,
    record: Option<&'a Record>,
    progress: Progress,
}

impl Sink for Rows<'_> {
    fn take(&mut self, input: usize, answer: Answer) -> Result<(), cli::Error> {
        let Embedded { matrix, failures, truncated } = &mut self.embedded;
        let position = self.first + input;
        let answer = answer.and_then(|embedding| match embedding.values.len() {
            columns if columns == matrix.columns => Ok(embedding),
            columns => Err(format!("{columns} numbers where the server said {}", matrix.columns)),
        });
        match answer {
            Ok(embedding) => {
                if embedding.truncated {
                    truncated.insert(position);
                }
                matrix.values.extend(embedding.values);
            }
            Err(reason) => {
                self.progress.failed(&self.inputs[input].name(), &reason);
                failures.insert(position, reason);
                matrix.values.extend(std::iter::repeat_n(f32::NAN, matrix.columns));
            }
        }
        if let Some(record) = self.record {
            record.add(matrix.row(position))?;
        }
        self.progress.advance();
        Ok(())
    }
}
