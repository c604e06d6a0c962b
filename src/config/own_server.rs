//! The server of `clipd bench` and `clipd eval`: the command line of `serve` inside its own, after `--`.

use clap::Parser;

use super::Config;
use super::bench::{BenchFlags, Mode};
use super::flags::{Cli, Command};

/// The server that is started, or whose engine the bench measures.
#[derive(Clone, Debug)]
pub struct OwnServer {
    /// As `serve` takes them.
    pub arguments: Vec<String>,
    pub config: Config,
}

/// Put before the user's: a free port each, and a log that a program can read.
pub const SERVE: [&str; 6] = [
    "serve",
    "--listen=127.0.0.1:0",
    "--http-listen=127.0.0.1:0",
    "--metrics-listen=127.0.0.1:0",
    "--log=info",
    "--log-format=json",
];

impl OwnServer {
    /// Contradictions among the flags, or the server that they describe. `None`: all that is known of the
    /// server is its address.
    pub fn of(flags: &BenchFlags) -> Result<Option<OwnServer>, Vec<String>> {
        let mut problems = Vec::new();
        if flags.mode.contains(&Mode::Trace) != flags.trace.is_some() {
            problems.push("--mode trace and --trace FILE go together".to_owned());
        }
        if !flags.mode.contains(&Mode::Closed) && flags.rate.is_empty() && flags.needs_rate() {
            problems.push(
                "--rate is missing: without --mode closed the best rate of the server is not known"
                    .to_owned(),
            );
        }
        let server = match (&flags.addr, flags.serve.as_slice()) {
            (Some(_), []) => Ok(None),
            (_, serve) => OwnServer::parse(serve).map(Some),
        };
        match server {
            Ok(server) if problems.is_empty() => Ok(server),
            Ok(_) => Err(problems),
            Err(more) => Err([problems, more].concat()),
        }
    }

    /// What `serve` says of these flags.
    pub(super) fn parse(serve: &[String]) -> Result<OwnServer, Vec<String>> {
        let fixed = SERVE.map(str::to_owned);
        let arguments: Vec<String> = fixed.into_iter().chain(serve.iter().cloned()).collect();
        let parsed = Cli::try_parse_from(["clipd".to_owned()].iter().chain(&arguments)).map_err(|error| {
            // The first line says what is wrong; the others explain `serve`.
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            vec![format!("after --: {first}")]
        })?;
        let Command::Serve(flags) = parsed.command else { unreachable!("the first argument is serve") };
        Ok(OwnServer { config: Config::from_flags(&flags)?, arguments })
    }
}
