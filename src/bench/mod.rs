//! `clipd bench`: what this machine could do, what a server makes of it, and which flags suit it.
//!
//! First the ceiling: the engine and the preprocessing by themselves, in this process, which gives their memory
//! back before the server starts. Then the server, a process of its own or one that runs already: for each
//! workload one load after the other, closed loops to find its best rate and open loops at shares of it. At last
//! the report: a table, and on demand a JSON file and an HTML page. A [`scenario`] instead compares several servers, or
//! several kinds of requests, in turns.
//!
//! It is a client like any other. Whatever it does has an end: loads by time and count, requests by their
//! deadline, requests in flight by a number per connection, and a server that it started by its own.

mod arrivals;
mod bank;
mod ceiling;
mod edge;
mod json;
mod load;
mod machine;
mod plan;
mod progress;
mod recommend;
pub(crate) mod report;
mod scenario;
mod scrape;
pub(crate) mod server;
mod tally;
pub(crate) mod text;
mod words;
mod workload;

use std::io::Write;
use std::sync::Arc;

use http::Uri;
use serde::Serialize;

use crate::app;
use crate::cli;
use crate::cli::client::Server;
use crate::cli::flags::{ServerFlags, TlsFlags};
use crate::clock::Clock;
use crate::config::bench::{BenchFlags, Edge};
use crate::config::own_server::OwnServer;
use crate::shutdown::Signals;
use ceiling::Ceiling;
use edge::{HttpClient, Sender};
use load::Generator;
use progress::Progress;
use recommend::recommend;
use report::{BenchReport, Environment};
use server::Target;
use workload::{Call, Inputs};

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Client(#[from] cli::Error),
    #[error(transparent)]
    Engine(#[from] app::StartError),
    #[error("stopped by {0}")]
    Stopped(&'static str),
    #[error("{0}")]
    Other(String),
}

/// More would not send more on machines of any size, and would take their time from the server.
const GENERATOR_THREADS: usize = 4;

/// `own` is the server to start, or to take the ceiling of.
pub fn run(flags: &BenchFlags, own: Option<OwnServer>) -> Result<(), Box<dyn std::error::Error>> {
    let threads = machine::cores().get().min(GENERATOR_THREADS);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    let result = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        tokio::select! {
            result = bench(flags, own) => result.map_err(Into::into),
            signal = signals.next() => Err(Error::Stopped(signal).into()),
        }
    });
    // A batch that runs for the ceiling must not hold up the exit.
    runtime.shutdown_background();
    result
}

async fn bench(flags: &BenchFlags, own: Option<OwnServer>) -> Result<(), Error> {
    let progress = Progress::begin();
    if let Some(file) = &flags.scenario {
        let comparison = scenario::run(flags, file, &progress).await?;
        progress.end();
        return publish(flags, &comparison.text(), &comparison, None);
    }
    let inputs = Arc::new(Inputs::load(flags)?);
    let trace = plan::trace(flags)?;
    let ceiling = match &own {
        Some(own) => Some(measure_ceiling(flags, own, inputs.clone(), &progress).await?),
        None => None,
    };
    let target = match (&flags.addr, own) {
        (None, Some(own)) => {
            progress.step("starting the server");
            Target::start(&own.arguments).await?
        }
        (None, None) => return Err(Error::Other("there is no server to start or to load".to_owned())),
        (Some(address), _) => {
            Target::running(address, flags.http_addr.as_ref(), flags.metrics_addr.as_ref())?
        }
    };
    let (generator, Server { model, .. }) = connect(flags, &target).await?;
    let plan = plan::Plan { flags, trace, generator, target: &target, progress: &progress };
    let mut services = Vec::new();
    for workload in &flags.workload {
        let calls = over(flags.edge, inputs.calls(*workload, &model)?)?;
        let ceiling = ceiling.as_ref().and_then(|ceiling| ceiling.of(*workload));
        services.push(plan.measure(*workload, calls.into(), ceiling).await?);
    }
    progress.end();
    let recommendation = ceiling.as_ref().and_then(recommend);
    let environment = Environment::new(flags, &model);
    let report = BenchReport::new(environment, ceiling, services, recommendation);
    publish(flags, &report::table::text(&report), &report, Some(&report::html::page(&report)))
}

async fn measure_ceiling(
    flags: &BenchFlags,
    own: &OwnServer,
    inputs: Arc<Inputs>,
    progress: &Progress,
) -> Result<Ceiling, Error> {
    let (config, workloads, progress) = (own.config.clone(), flags.workload.clone(), progress.clone());
    tokio::task::spawn_blocking(move || ceiling::measure(&config, &inputs, &workloads, &progress))
        .await
        .map_err(|error| Error::Other(error.to_string()))?
}

/// What sends the load, and the server as it says it is.
async fn connect(flags: &BenchFlags, target: &Target) -> Result<(Generator, Server), Error> {
    let first = Server::connect(&plain(&target.address)).await?;
    let timeout = first.limits.timeout.and_then(|timeout| timeout.try_into().ok());
    let timeout = flags.timeout.or(timeout);
    let timeout = timeout.ok_or_else(|| Error::Other("the server does not tell its timeout".to_owned()))?;
    let mut clients = vec![Sender::Grpc(first.client.clone())];
    for _ in 1..flags.connections {
        clients.push(Sender::Grpc(Server::connect(&plain(&target.address)).await?.client));
    }
    if flags.edge == Edge::Http {
        let http = target.http.clone();
        let http = http.ok_or_else(|| {
            Error::Other("--edge http needs --http-addr, the address of the HTTP API".into())
        })?;
        // It keeps as many connections as there are requests at a time.
        clients = vec![Sender::Http(HttpClient::new(http))];
    }
    let generator = Generator { clients: clients.into(), timeout, slo: flags.slo, clock: Clock::start() };
    Ok((generator, first))
}

/// `page` is for `--html`.
fn publish(flags: &BenchFlags, text: &str, report: &impl Serialize, page: Option<&str>) -> Result<(), Error> {
    // A reader that has seen enough, as in `clipd bench | head`, is none to complain to.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    if let Some(path) = &flags.json {
        let json = serde_json::to_string_pretty(report).map_err(|error| Error::Other(error.to_string()))?;
        write_file(path, &json)?;
    }
    if let Some((path, page)) = flags.html.as_ref().zip(page) {
        write_file(path, page)?;
    }
    Ok(())
}

fn write_file(path: &std::path::Path, content: &str) -> Result<(), Error> {
    let failed = |error| cli::Error::File { path: path.to_owned(), error };
    let mut file = cli::output::PartialFile::create(path)?;
    file.write_all(content.as_bytes()).map_err(failed)?;
    Ok(file.complete().map_err(failed)?)
}

/// The requests as that edge takes them.
fn over(edge: Edge, calls: Vec<Call>) -> Result<Vec<Call>, Error> {
    match edge {
        Edge::Grpc => Ok(calls),
        Edge::Http => calls.into_iter().map(Call::over_http).collect(),
    }
}

/// A server that needs no certificates of ours.
fn plain(address: &Uri) -> ServerFlags {
    ServerFlags { addr: address.clone(), tls: TlsFlags::default() }
}
