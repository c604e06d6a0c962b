//! Logs: one line per event on standard error, as text or JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Parses a filter such as `info` or `clipd=debug,h2=warn`.
pub fn filter(directives: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder().parse(directives).map_err(|error| error.to_string())
}

/// Installs the process-wide subscriber. Called once, by `main`.
pub fn install(format: Format, filter: EnvFilter) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // Complaints about a closed standard error would go to standard error, and panic.
        .log_internal_errors(false);
    match format {
        Format::Text => builder.finish().init(),
        Format::Json => builder.json().finish().init(),
    }
}
