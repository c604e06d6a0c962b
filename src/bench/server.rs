//! The server that is measured: one that runs already, or a child process of this one.
//!
//! A child is `clipd serve` from the same executable, so that the CPU time of server and generator are told
//! apart. It listens on free ports of the loopback, and lives no longer than its [`Target`]: it answers nobody
//! else, so it is killed rather than drained.

use std::collections::VecDeque;
use std::process::Stdio;
use std::time::Duration;

use http::Uri;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use super::Error;

/// A large model is read, converted and warmed up in this time; a server that takes longer hangs.
const START_TIMEOUT: Duration = Duration::from_secs(600);

/// Lines of a failed server's log that are shown.
const LAST_LINES: usize = 20;

/// Where requests go, and where to look at what they cost.
pub(crate) struct Target {
    pub(crate) address: Uri,
    /// Of the HTTP API, if it is known.
    pub(super) http: Option<Uri>,
    /// `http://.../metrics`.
    pub(super) metrics: Option<Uri>,
    /// Killed when this is dropped.
    child: Option<Child>,
}

impl Target {
    /// A server that somebody else runs.
    pub(super) fn running(address: &Uri, http: Option<&Uri>, metrics: Option<&Uri>) -> Result<Target, Error> {
        let metrics = metrics.and_then(Uri::authority).map(|host| page(host.as_str())).transpose()?;
        Ok(Target { address: address.clone(), http: http.cloned(), metrics, child: None })
    }

    /// Starts a server, and waits until it is ready.
    pub(crate) async fn start(arguments: &[String]) -> Result<Target, Error> {
        let failed = |error: std::io::Error| Error::Other(format!("cannot start the server: {error}"));
        let executable = std::env::current_exe().map_err(failed)?;
        let mut child = Command::new(executable)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let log = child.stderr.take().ok_or_else(|| Error::Other("the server has no log".to_owned()))?;
        let mut lines = BufReader::new(log).lines();
        let addresses = tokio::time::timeout(START_TIMEOUT, until_ready(&mut lines))
            .await
            .map_err(|_| Error::Other(format!("the server is not ready after {START_TIMEOUT:?}")))??;
        // A full pipe would block the server.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let uri = |host: &String| {
            let uri = format!("http://{host}").parse();
            uri.map_err(|error: http::uri::InvalidUri| Error::Other(error.to_string()))
        };
        let (address, http) = (uri(&addresses.grpc)?, addresses.http.as_ref().map(uri).transpose()?);
        Ok(Target { address, http, metrics: Some(page(&addresses.metrics)?), child: Some(child) })
    }

    /// Whether it runs on this machine, for this bench alone.
    pub(super) fn is_ours(&self) -> bool {
        self.child.is_some()
    }
}

fn page(host: &str) -> Result<Uri, Error> {
    format!("http://{host}/metrics").parse().map_err(|error| Error::Other(format!("{host}: {error}")))
}

/// A line of the server's log.
#[derive(Deserialize)]
struct LogLine {
    fields: Fields,
}

#[derive(Deserialize)]
struct Fields {
    message: String,
    grpc: Option<String>,
    http: Option<String>,
    metrics: Option<String>,
}

struct Addresses {
    grpc: String,
    http: Option<String>,
    metrics: String,
}

/// Reads the log up to the line that says so.
async fn until_ready(lines: &mut Lines<BufReader<ChildStderr>>) -> Result<Addresses, Error> {
    let mut addresses = None;
    let mut last = VecDeque::new();
    while let Some(line) = lines.next_line().await.map_err(|error| Error::Other(error.to_string()))? {
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        // What is not of the log, such as a panic, is shown if the server does not start.
        if let Ok(LogLine { fields }) = serde_json::from_str(&line) {
            match (fields.message.as_str(), fields.grpc, fields.metrics) {
                ("starting", Some(grpc), Some(metrics)) => {
                    addresses = Some(Addresses { grpc, http: fields.http, metrics });
                }
                ("ready", ..) => match addresses {
                    Some(addresses) => return Ok(addresses),
                    None => break,
                },
                _ => {}
            }
        }
        last.push_back(line);
    }
    let log = last.into_iter().collect::<Vec<_>>().join("\n");
    Err(Error::Other(format!("the server ended before it was ready; its log:\n{log}")))
}
