//! Reads the file of keys again when it changes: its content is looked at, since Kubernetes swaps a link.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::interval;

use super::Keys;
use super::file::KeyFileError;
use crate::clock::Clock;
use crate::telemetry::metrics::Metrics;

/// How often it is looked at. SIGHUP asks for it at once.
const LOOK: Duration = Duration::from_secs(2);

/// The keys of a file, which is followed in the background from now on. Must be called on a runtime.
pub fn follow(path: &Path, clock: Clock, metrics: &Metrics) -> Result<Keys, KeyFileError> {
    let text = std::fs::read_to_string(path)?;
    let keys = Keys::parse(&text, clock, metrics)?;
    let hangup = signal(SignalKind::hangup())?;
    let failures = metrics.key_reload_failures();
    failures.increment(0);
    let mut following = Following { path: path.to_owned(), text, keys: keys.clone(), hangup, failures };
    tokio::spawn(async move { following.run().await });
    Ok(keys)
}

struct Following {
    path: PathBuf,
    /// What was read last, whether it could be used or not.
    text: String,
    keys: Keys,
    hangup: tokio::signal::unix::Signal,
    failures: metrics::Counter,
}

impl Following {
    async fn run(&mut self) {
        let mut look = interval(LOOK);
        loop {
            tokio::select! {
                _ = look.tick() => {}
                _ = self.hangup.recv() => {}
            }
            match tokio::fs::read_to_string(&self.path).await {
                Ok(text) if text == self.text => {}
                Ok(text) => {
                    let path = self.path.display();
                    match self.keys.replace(&text) {
                        Ok(()) => tracing::info!(%path, keys = self.keys.len(), "the keys have changed"),
                        Err(error) => self.failed(&error),
                    }
                    self.text = text;
                }
                Err(error) if self.text.is_empty() => tracing::debug!(%error, "still no keys"),
                Err(error) => {
                    self.failed(&error.into());
                    // Told once.
                    self.text.clear();
                }
            }
        }
    }

    fn failed(&self, error: &KeyFileError) {
        self.failures.increment(1);
        let path = self.path.display();
        tracing::error!(%path, %error, "the keys stay as they were");
    }
}
