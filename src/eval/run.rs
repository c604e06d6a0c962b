//! A job's embeddings, from a server: pictures and texts through StreamEmbed, in the bulk class.
//!
//! What has no embedding keeps its place, as a row of NaN, and is a fault.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Error;
use super::about::About;
use super::classified;
use super::data::Truth;
use super::faults::Faults;
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
    /// Texts that were longer than the model reads.
    pub(super) truncated: BTreeSet<usize>,
}

impl Run {
    /// `record` is where pictures' embeddings are kept as they come, and taken from if they are there.
    pub(super) async fn of(
        server: &mut Server,
        job: &Job,
        record: Option<&Record>,
        faults: &mut Faults,
    ) -> Result<Run, Error> {
        let about = About::of(server);
        let columns = server.model.embedding_size as usize;
        let header = Header { data: job.digest(), about: about.clone(), columns };
        let images = match record {
            Some(record) => record.begin(&header)?,
            None => Matrix::new(columns),
        };
        let images = embed(server, job.pictures(), images, record, (Query::Picture, faults)).await?;
        let (texts, prompts) = texts(server, job, columns, faults).await?;
        if let Some(record) = record {
            record.complete(&texts.matrix)?;
        }
        Ok(Run { about, images: Arc::new(images), texts, prompts, answers: None })
    }

    /// By a classifier of the server.
    pub(super) async fn classified(
        server: &Server,
        job: &Job,
        classifier: &str,
        faults: &mut Faults,
    ) -> Result<Run, Error> {
        let Job::Zeroshot(data) = job else {
            return Err(Error::Other("captions have no classifier".to_owned()));
        };
        let lines = classified::ask(server, data, classifier, faults).await?;
        let (images, texts) = (Arc::default(), Embedded::default());
        Ok(Run { about: About::of(server), images, texts, prompts: None, answers: Some(lines) })
    }

    /// The same pictures with the texts of another job.
    pub(super) async fn with_texts_of(
        &self,
        server: &mut Server,
        job: &Job,
        faults: &mut Faults,
    ) -> Result<Run, Error> {
        let (texts, prompts) = texts(server, job, self.images.matrix.columns, faults).await?;
        Ok(Run { about: self.about.clone(), images: self.images.clone(), texts, prompts, answers: None })
    }

    pub(super) fn recorded(record: &Record, job: &Job, faults: &mut Faults) -> Result<Run, Error> {
        let (header, images, texts) = record.load(&job.digest(), (job.pictures().len(), job.candidates()))?;
        let mut missing = |matrix: &Matrix, query: fn(usize) -> Query| {
            let is_missing = |row: &usize| matrix.row(*row).iter().any(|value| value.is_nan());
            for query in (0..matrix.rows()).filter(is_missing).map(query) {
                let reason = "the recorded run has no embedding of it";
                faults.add(query, &job.query_name(query), reason, &Progress::Silent);
            }
        };
        missing(&images, Query::Picture);
        if matches!(job, Job::Retrieval { .. }) {
            missing(&texts, Query::Text);
        }
        let embedded = |matrix| Embedded { matrix, ..Embedded::default() };
        let (images, texts) = (Arc::new(embedded(images)), embedded(texts));
        Ok(Run { about: header.about, images, texts, prompts: None, answers: None })
    }

    /// With `probabilities`, lines have those of classes in place of cosines.
    pub(super) fn evaluate<'a>(&self, job: &'a Job, kept: &Kept, probabilities: bool) -> Evaluated<'a> {
        if let (Some(lines), Job::Zeroshot(data)) = (&self.answers, job)
            && let Truth::One(truth) = &data.truth
        {
            let is_kept = |line: &&Line| kept.pictures.binary_search(&line.query.position()).is_ok();
            return zeroshot::single(data, truth, lines.iter().filter(is_kept).copied().collect());
        }
        let (images, texts) = (&self.images.matrix, &self.texts.matrix);
        let logits = probabilities.then(|| self.about.logits());
        job.evaluate(Embeddings { images, texts, logits: logits.as_ref() }, kept)
    }
}

/// Of classes or captions; and, for classes, of their prompts.
async fn texts(
    server: &mut Server,
    job: &Job,
    columns: usize,
    faults: &mut Faults,
) -> Result<(Embedded, Option<Matrix>), Error> {
    let (inputs, nothing) = (job.texts(), Matrix::new(columns));
    let Job::Zeroshot(data) = job else {
        return Ok((embed(server, &inputs, nothing, None, (Query::Text, faults)).await?, None));
    };
    // A class without a row would be one that no picture is ever taken for.
    let mut faults = Faults::default();
    let prompts = embed(server, &inputs, nothing, None, (Query::Text, &mut faults)).await?.matrix;
    match faults.problems().count {
        0 => {}
        count => {
            return Err(Error::Other(format!(
                "{count} prompts have no embedding, and classes need all of theirs"
            )));
        }
    }
    let matrix = zeroshot::class_rows(data, &prompts)?;
    Ok((Embedded { matrix, ..Embedded::default() }, Some(prompts)))
}

/// `done` are the rows of the first inputs; what fails is added to the faults, under its query.
async fn embed(
    server: &mut Server,
    inputs: &Arc<[Input]>,
    done: Matrix,
    record: Option<&Record>,
    (query, faults): (fn(usize) -> Query, &mut Faults),
) -> Result<Embedded, Error> {
    let first = done.rows();
    let left: Arc<[Input]> = if first == 0 { inputs.clone() } else { inputs[first..].into() };
    let embedded = Embedded { matrix: done, ..Embedded::default() };
    let progress = Progress::of(left.len());
    let mut rows = Rows { inputs: left.clone(), first, embedded, record, query, faults, progress };
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
    query: fn(usize) -> Query,
    faults: &'a mut Faults,
    progress: Progress,
}

impl Sink for Rows<'_> {
    fn take(&mut self, input: usize, answer: Answer) -> Result<(), cli::Error> {
        let Embedded { matrix, truncated } = &mut self.embedded;
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
                let name = self.inputs[input].name();
                self.faults.add((self.query)(position), &name, &reason, &self.progress);
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
