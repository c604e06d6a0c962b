//! The `clipd` program: parse, log, run the subcommand, exit code.
//!
//! 0: done. 64: the command line is wrong (sysexits' EX_USAGE). 1: it failed. 2: `eval` lost more than it may.

use std::error::Error;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use clap::{ArgMatches, CommandFactory, FromArgMatches};
use clipd::app;
use clipd::app::load::Origin;
use clipd::app::ports::Ports;
use clipd::auth::Limits;
use clipd::auth::file::{self, NewKey};
use clipd::cli::download::Download;
use clipd::cli::{classify, embed};
use clipd::config::calibrate::Plan;
use clipd::config::flags::{Cli, Command, ExportFlags, LoggingFlags, PullFlags};
use clipd::config::keys::{KeysCommand, KeysFlags};
use clipd::config::report::{self, MemoryLimits};
use clipd::config::{Config, ModelSource, hub_access, onnx_variant};
#[cfg(feature = "bench")]
use clipd::config::{evaluation::Evaluation, own_server::OwnServer};
#[cfg(feature = "bench")]
use clipd::eval::Verdict;
use clipd::model::calibration::Calibration;
use clipd::model::graph::{Form, Products};
use clipd::model::hub;
use clipd::shutdown::Signals;
use clipd::telemetry::logging;

const USAGE: u8 = 64;
#[cfg(feature = "bench")]
const LOST: u8 = 2;

fn main() -> ExitCode {
    let parsed = Cli::command()
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches).map(|cli| (cli, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help and version come as errors too, with exit code 0.
            let code = if error.use_stderr() { USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let mut problems = install_logging(&cli.logging).err().unwrap_or_default();
    let flags = match cli.command {
        Command::Serve(flags) => {
            frugally();
            flags
        }
        _ if !problems.is_empty() => return usage(&problems),
        Command::Classify(flags) => return classify(&flags),
        Command::Embed(flags) => return embed(&flags),
        Command::Pull(flags) => return exit(pull(&flags)),
        Command::Export(flags) => return exit(export(&flags)),
        Command::Keys(flags) => return exit(keys(&flags)),
        Command::Calibrate(flags) => {
            return match Plan::from_flags(&flags) {
                Ok(plan) => exit(clipd::calibrate::run(&plan)),
                Err(problems) => usage(&problems),
            };
        }
        #[cfg(feature = "bench")]
        Command::Bench(flags) => {
            return match OwnServer::of(&flags) {
                Ok(own) => exit(clipd::bench::run(&flags, own)),
                Err(problems) => usage(&problems),
            };
        }
        #[cfg(feature = "bench")]
        Command::Eval(command) => {
            return match Evaluation::of(&command) {
                Ok(evaluation) => match clipd::eval::run(&evaluation) {
                    Ok(Verdict::Kept) => ExitCode::SUCCESS,
                    Ok(Verdict::Lost) => ExitCode::from(LOST),
                    Err(error) => exit(Err(error)),
                },
                Err(problems) => usage(&problems),
            };
        }
    };
    let config = Config::from_flags(&flags).map_err(|more| problems.extend(more));
    match (config, matches.subcommand_matches("serve")) {
        (Ok(config), Some(serve)) if problems.is_empty() && flags.check_config => {
            exit(check_config(&config, serve))
        }
        (Ok(config), _) if problems.is_empty() => exit(run_server(&config)),
        _ => usage(&problems),
    }
}

/// Begins anew, with glibc told to give large blocks back to the system when they are freed: a model is loaded through
/// many, and what is kept of them would stay for good. It reads that from the environment, when a process begins.
#[expect(clippy::disallowed_methods, reason = "it is glibc's configuration, not ours")]
fn frugally() {
    const VARIABLE: &str = "MALLOC_MMAP_THRESHOLD_";
    if std::env::var_os(VARIABLE).is_some() {
        return;
    }
    let mut arguments = std::env::args_os();
    let mut again = std::process::Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    let error = again.args(arguments).env(VARIABLE, "1048576").exec();
    tracing::debug!(%error, "memory that was freed is kept");
}

fn usage(problems: &[String]) -> ExitCode {
    for problem in problems {
        eprintln!("error: {problem}");
    }
    ExitCode::from(USAGE)
}

fn exit(result: Result<(), Box<dyn Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn pull(flags: &PullFlags) -> Result<(), Box<dyn Error>> {
    let text = &flags.repository;
    let repository = text.parse().map_err(|()| format!("{text:?} is not ORG/NAME or ORG/NAME@REVISION"))?;
    let mut shown = Download::shown();
    let (access, variant) = (hub_access(&flags.hub)?, onnx_variant(&flags.variant)?);
    let directory = hub::fetch(&repository, &variant, &access, &mut |event| shown.on(event))?;
    writeln!(std::io::stdout(), "{}", directory.display())?;
    Ok(())
}

/// Secrets go to standard output alone, and only the one that is made.
fn keys(flags: &KeysFlags) -> Result<(), Box<dyn Error>> {
    let (path, mut out) = (&flags.file, std::io::stdout().lock());
    match &flags.command {
        KeysCommand::Add { name, certificate, expires, bulk, rate, burst, rows, concurrent, streams } => {
            let limits = Limits {
                requests_per_second: *rate,
                burst: *burst,
                rows_per_second: *rows,
                concurrent_requests: *concurrent,
                streams: *streams,
            };
            let new = NewKey {
                name,
                certificate: certificate.as_deref(),
                expires: expires.as_deref(),
                bulk: *bulk,
                limits,
            };
            if let Some(secret) = file::add(path, &new)? {
                writeln!(out, "{secret}")?;
            }
        }
        KeysCommand::List => {
            for key in file::parse(&std::fs::read_to_string(path)?)? {
                let bulk = if key.bulk { " bulk" } else { "" };
                let expires = key.expires.map(|at| UNIX_EPOCH + Duration::from_secs(at));
                let expires = expires.map_or(String::new(), |at| {
                    format!(" expires {}", humantime::format_rfc3339_seconds(at))
                });
                let limits =
                    if key.limits == Limits::default() { String::new() } else { format!(" {}", key.limits) };
                let certificate =
                    key.certificate.map_or(String::new(), |name| format!(" certificate {name}"));
                writeln!(out, "{}{certificate}{bulk}{expires}{limits}", key.name)?;
            }
        }
        KeysCommand::Revoke { name } => file::revoke(path, name)?,
    }
    Ok(())
}

fn export(flags: &ExportFlags) -> Result<(), Box<dyn Error>> {
    let products = match &flags.calibration {
        Some(file) => Products::Int8(Arc::new(Calibration::read(file)?)),
        None => Products::Float,
    };
    let form = Form { weights: flags.precision, products, operators: flags.operators };
    let model = Origin::of(&ModelSource::from_flags(&flags.model)?)?.model(form)?;
    clipd::model::export::export(&model, &flags.out)?;
    tracing::info!(model = model.name, directory = %flags.out.display(), "exported");
    Ok(())
}

/// What `serve` would run with, if it can.
fn check_config(config: &Config, serve: &ArgMatches) -> Result<(), Box<dyn Error>> {
    let served = app::load::load(config)?;
    let mut out = std::io::stdout().lock();
    for line in report::flags(serve, config) {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "memory beside the model, at most: {}", MemoryLimits::new(config, &served.spec))?;
    Ok(())
}

fn install_logging(flags: &LoggingFlags) -> Result<(), Vec<String>> {
    let format = match flags.log_format.as_str() {
        "text" => Ok(logging::Format::Text),
        "json" => Ok(logging::Format::Json),
        other => Err(format!("--log-format: {other:?} is not one of text, json")),
    };
    let filter = logging::filter(&flags.log)
        .map_err(|error| format!("--log: {:?} is not a log filter: {error}", flags.log));
    match (format, filter) {
        (Ok(format), Ok(filter)) => {
            logging::install(format, filter);
            Ok(())
        }
        (format, filter) => Err(format.err().into_iter().chain(filter.err()).collect()),
    }
}

fn run_server(config: &Config) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve_until_signalled(config));
    // What did not end within the grace period must not hold up the exit.
    runtime.shutdown_background();
    result
}

async fn serve_until_signalled(config: &Config) -> Result<(), Box<dyn Error>> {
    // Before the model is loaded, which takes seconds: process 1 of a container ignores a signal that
    // nobody listens for.
    let mut signals = Signals::listen()?;
    let ports = Ports::open(config)?;
    let loading = tokio::task::spawn_blocking({
        let config = config.clone();
        move || app::load::load(&config)
    });
    let served = tokio::select! {
        served = loading => served??,
        signal = signals.next() => {
            tracing::info!(signal, "stopped while loading");
            return Ok(());
        }
    };
    let running = app::start(config, ports, served)?;
    let lost = tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, "shutting down");
            None
        }
        error = announce(&running) => Some(error),
    };
    tokio::select! {
        stopped = running.shutdown() => stopped?,
        signal = signals.next() => return Err(format!("ended at once by a second signal, {signal}").into()),
    }
    lost.map_or(Ok(()), |error| Err(error.into()))
}

/// Logs when the server is ready; returns when it can serve no more, and says why.
async fn announce(running: &app::Running) -> String {
    if let Ok(description) = running.ready().await {
        let clipd::engine::Description { device, engine, precision } = description;
        tracing::info!(device, engine, precision, "ready");
    }
    running.failure().await
}
