//! `clipd classify` and `clipd embed`: a running server from the command line.
//!
//! It does not know models: files go to the server as they are. It knows of the server what a foreign client
//! knows, the generated client and what `GetModel` says of its limits.
//!
//! Results go to standard output or to a file, in the order of the inputs; everything else goes to standard
//! error. An input that has no result is named there with the reason, and costs no other input. Exit codes:
//! 0, every input has a result, or the reader of standard output has seen enough; 1, otherwise.

mod classify;
pub(crate) mod client;
pub mod download;
mod embed;
pub mod flags;
pub(crate) mod inputs;
pub(crate) mod ledger;
mod npy;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod stream;

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use flags::{ClassifyFlags, EmbedFlags};

/// Why a command came to an end before its last input.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{cause}; is clipd running at {address}? start it with: clipd serve")]
    Unreachable { address: String, cause: String },
    /// The call as a whole failed; trying again did not help, or would not.
    #[error("the server says: {0}")]
    Refused(String),
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: std::io::Error },
    #[error("standard output: {0}")]
    Stdout(std::io::Error),
    #[error("{0}")]
    Other(String),
}

/// Whether every input has a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Complete,
    SomeFailed,
}

impl Outcome {
    fn of_failures(count: usize) -> Outcome {
        if count == 0 { Outcome::Complete } else { Outcome::SomeFailed }
    }
}

pub fn classify(flags: &ClassifyFlags) -> ExitCode {
    run(classify::run(flags))
}

pub fn embed(flags: &EmbedFlags) -> ExitCode {
    run(embed::run(flags))
}

fn run(command: impl Future<Output = Result<Outcome, Error>>) -> ExitCode {
    let result = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let result = runtime.block_on(command);
            // A read of standard input may never end, and must not hold up the exit.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(Error::Other(format!("no runtime: {error}"))),
    };
    match result {
        Ok(Outcome::Complete) => ExitCode::SUCCESS,
        Ok(Outcome::SomeFailed) => ExitCode::FAILURE,
        // As in `clipd classify ... | head -1`.
        Err(Error::Stdout(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// A line on standard error; if nobody can read it, there is nobody to tell.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
