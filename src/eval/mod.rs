//! `clipd eval`: what the model scores on people's own data through a server, in the figures of the LAION CLIP
//! Benchmark (clip_benchmark 1.6.2), and what another precision costs there.
//!
//! ```text
//! data (looked through first) ── job: pictures, texts ──> run: embeddings, through StreamEmbed
//!                                                          │            (record: kept in a directory)
//!          report: table, JSON, lines, page <── measures <─┴── compared with another run
//! ```
//!
//! It is a client like any other, in the bulk class, and gives way to whoever waits. Nothing is silently missing from a
//! figure: what cannot be read or has no answer is named and counted, and without `--skip-errors` there are no figures.

mod about;
mod classified;
mod compare;
mod cores;
mod data;
mod faults;
mod job;
mod matrix;
mod measure;
mod numbers;
mod published;
mod record;
mod report;
mod retrieval;
mod run;
mod task;
mod zeroshot;

use std::path::{Path, PathBuf};

use http::Uri;

use crate::bench::server::Target;
use crate::cli;
use crate::cli::client::Server;
use crate::cli::complain;
use crate::cli::download::Download;
use crate::cli::flags::ServerFlags;
use crate::config::eval::{Against, EvalFlags};
use crate::config::evaluation::{Evaluation, Task};
use crate::model::hub;
use crate::shutdown::Signals;
use data::Source;
use faults::Faults;
use job::{Job, Kept};
use record::Record;
use report::Report;
use run::Run;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Client(#[from] cli::Error),
    #[error(transparent)]
    Server(#[from] crate::bench::Error),
    #[error("stopped by {0}")]
    Stopped(&'static str),
    #[error("{0}")]
    Other(String),
}

/// Whether the figures are as good as they have to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Kept,
    /// More was lost than `--max-loss` allows.
    Lost,
}

pub fn run(evaluation: &Evaluation) -> Result<Verdict, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        tokio::select! {
            result = evaluate(evaluation) => result.map_err(Into::into),
            signal = signals.next() => Err(Error::Stopped(signal).into()),
        }
    });
    // What is still being read must not hold up the exit.
    runtime.shutdown_background();
    result
}

async fn evaluate(evaluation: &Evaluation) -> Result<Verdict, Error> {
    let flags = &evaluation.flags;
    let job = {
        let evaluation = evaluation.clone();
        aside(move || read(&evaluation)).await??
    };
    let mut faults = Faults::of(&job);
    faults.allow(flags.skip_errors)?;
    let record = flags.record.as_deref().map(Record::at);
    let mut served = Served::open(flags.addr.as_ref(), evaluation.own.as_deref(), flags).await?;
    let expected = published::expected(&flags.expect, job.name(), &served.server.model.name)?;
    announce(&job, &served.server);
    let here = measure(&mut served.server, evaluation, &job, record.as_ref(), &mut faults).await?;
    faults.allow(flags.skip_errors)?;
    faults.in_the_other_run();
    let other = match &flags.against {
        None => None,
        Some(Against::Templates(file)) => {
            let other = job.with_templates(file)?;
            let run = here.with_texts_of(&mut served.server, &other, &mut faults).await?;
            Some((Some(other), run))
        }
        Some(Against::Record(directory)) => {
            Some((None, Run::recorded(&Record::at(directory), &job, &mut faults)?))
        }
        Some(Against::Precision(_) | Against::Server(_)) => {
            // Two servers would share the machine, and its memory.
            drop(served);
            let address = match &flags.against {
                Some(Against::Server(address)) => Some(address),
                _ => None,
            };
            let mut served = Served::open(address, evaluation.other.as_deref(), flags).await?;
            Some((None, measure(&mut served.server, evaluation, &job, None, &mut faults).await?))
        }
    };
    faults.allow(flags.skip_errors)?;
    let flags = flags.clone();
    aside(move || conclude(&flags, &expected, &job, &here, other.as_ref(), &faults)).await?
}

async fn measure(
    server: &mut Server,
    evaluation: &Evaluation,
    job: &Job,
    record: Option<&Record>,
    faults: &mut Faults,
) -> Result<Run, Error> {
    match &evaluation.task {
        Task::Zeroshot { classifier: Some(classifier), .. } => {
            Run::classified(server, job, classifier, faults).await
        }
        _ => Run::of(server, job, record, faults).await,
    }
}

/// Data as the flags say.
fn read(evaluation: &Evaluation) -> Result<Job, Error> {
    let Evaluation { task, flags, .. } = evaluation;
    let (path, name) = place(evaluation)?;
    let source = Source { path: &path, name: &name, split: &flags.split, images: flags.images.as_deref() };
    match task {
        Task::Zeroshot { classes, templates, .. } => {
            source.zeroshot(classes.as_deref(), templates.as_deref()).map(Job::Zeroshot)
        }
        Task::Retrieval { recall_k } => {
            let data = source.retrieval()?;
            let fewest = data.pictures.len().min(data.captions.len());
            if let Some(k) = recall_k.iter().find(|k| **k as usize > fewest) {
                return Err(Error::Other(format!("--recall-k: there are not {k} pictures and {k} captions")));
            }
            Ok(Job::Retrieval { data, recall_k: recall_k.clone() })
        }
    }
}

/// Where the data are, fetched from the hub if they are nowhere else, and what they are called.
fn place(evaluation: &Evaluation) -> Result<(PathBuf, String), Error> {
    let Evaluation { flags: EvalFlags { data, split, .. }, access, .. } = evaluation;
    let path = Path::new(data);
    if path.exists() {
        let name = path.file_name().map_or_else(|| data.clone(), |name| name.to_string_lossy().into_owned());
        return Ok((path.to_owned(), name));
    }
    let repository = data.parse().map_err(|()| {
        Error::Other(format!("{data:?} is neither a file or directory nor ORG/NAME of the hub"))
    })?;
    let mut shown = Download::shown();
    let directory = hub::fetch_data(&repository, split, access, &mut |event| shown.on(event));
    Ok((directory.map_err(|error| Error::Other(error.to_string()))?, data.clone()))
}

/// What is about to be done, and what it takes.
fn announce(job: &Job, server: &Server) {
    let (pictures, texts) = (job.pictures().len(), job.texts().len());
    let bytes = (pictures + texts) * server.model.embedding_size as usize * size_of::<f32>();
    let (name, precision, device) = (&server.model.name, &server.model.precision, &server.model.device);
    complain(&format!(
        "{}: {pictures} pictures and {texts} texts with {name} in {precision} on {device}; {} MB of embeddings",
        job.name(),
        bytes.div_ceil(1_000_000)
    ));
}

/// A server, and the child process that it may be.
struct Served {
    server: Server,
    _child: Option<Target>,
}

impl Served {
    /// The server at `address`, or else the one that `serve` describes.
    async fn open(
        address: Option<&Uri>,
        serve: Option<&[String]>,
        flags: &EvalFlags,
    ) -> Result<Served, Error> {
        let child = match (address, serve) {
            (None, Some(serve)) => {
                complain("starting the server");
                Some(Target::start(serve).await?)
            }
            _ => None,
        };
        let own = child.as_ref().map(|child| &child.address);
        let addr = address.or(own).ok_or_else(|| Error::Other("there is no server".to_owned()))?.clone();
        let server = Server::connect(&ServerFlags { addr, tls: flags.tls.clone() }).await?;
        Ok(Served { server, _child: child })
    }
}

/// The other run has a job of its own where its templates differ.
fn conclude(
    flags: &EvalFlags,
    expected: &[(String, f64)],
    job: &Job,
    here: &Run,
    other: Option<&(Option<Job>, Run)>,
    faults: &Faults,
) -> Result<Verdict, Error> {
    let kept = job.kept(|query| faults.failed(query));
    let Kept { pictures, .. } = &kept;
    if pictures.is_empty() {
        return Err(Error::Other("no input is left".to_owned()));
    }
    let shown = flags.lines.is_some() || flags.html.is_some();
    let evaluated = here.evaluate(job, &kept, shown);
    let comparison = other.map(|(own, run)| {
        let there = run.evaluate(own.as_ref().unwrap_or(job), &kept, false);
        compare::compare(job, (&evaluated, here), (&there, run), &kept)
    });
    let problems = faults.problems();
    let (kept, evaluated) = (&kept, &evaluated);
    let report = Report { flags, expected, job, run: here, kept, evaluated, problems, comparison };
    report.publish()?;
    Ok(report.verdict())
}

async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Other(error.to_string()))
}
