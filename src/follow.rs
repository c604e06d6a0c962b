//! Files that are read again when they change, as keys and certificates are while a server runs.
//!
//! Their content is looked at, since Kubernetes swaps a link. What cannot be used changes nothing.

use std::path::PathBuf;
use std::time::Duration;

use metrics::Counter;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::interval;

/// How often they are looked at. SIGHUP asks for it at once.
const LOOK: Duration = Duration::from_secs(2);

/// Calls `apply` with the contents whenever they have changed from `contents`, which are in use. Runs in the background
/// as long as the process; must be called on a runtime of several threads.
pub fn follow(
    paths: Vec<PathBuf>,
    contents: Vec<Vec<u8>>,
    failures: Counter,
    apply: impl FnMut(&[Vec<u8>]) -> Result<(), String> + Send + 'static,
) -> std::io::Result<()> {
    failures.increment(0);
    let hangup = signal(SignalKind::hangup())?;
    let mut files = Files { paths, contents, failures, apply };
    tokio::spawn(async move { files.run(hangup).await });
    Ok(())
}

/// What is in them now.
pub fn read(paths: &[PathBuf]) -> std::io::Result<Vec<Vec<u8>>> {
    let read = |path: &PathBuf| {
        std::fs::read(path)
            .map_err(|error| std::io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    };
    paths.iter().map(read).collect()
}

struct Files<F> {
    paths: Vec<PathBuf>,
    /// As they were when they were looked at last, whether they could be used or not; empty if they could not be read.
    contents: Vec<Vec<u8>>,
    failures: Counter,
    apply: F,
}

impl<F: FnMut(&[Vec<u8>]) -> Result<(), String>> Files<F> {
    async fn run(&mut self, mut hangup: Signal) {
        let mut look = interval(LOOK);
        loop {
            tokio::select! {
                _ = look.tick() => {}
                _ = hangup.recv() => {}
            }
            // Small files, and seldom.
            let (now, error) = match tokio::task::block_in_place(|| read(&self.paths)) {
                Ok(now) => (now, None),
                Err(error) => (Vec::new(), Some(error.to_string())),
            };
            if now == self.contents {
                continue;
            }
            let files =
                self.paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
            match error.map_or_else(|| (self.apply)(&now), Err) {
                Ok(()) => tracing::info!(files, "changed, and in use"),
                Err(error) => {
                    self.failures.increment(1);
                    tracing::error!(files, error, "changed, and what was read before stays in use");
                }
            }
            self.contents = now;
        }
    }
}
