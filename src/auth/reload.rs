//! The keys of a file, and of what it becomes while the server runs.

use std::path::Path;

use super::file::KeyFileError;
use super::keys::Keys;
use crate::clock::Clock;
use crate::follow;
use crate::telemetry::metrics::Metrics;

/// Must be called on a runtime.
pub fn follow(path: &Path, clock: Clock, metrics: &Metrics) -> Result<Keys, KeyFileError> {
    let paths = vec![path.to_owned()];
    let contents = follow::read(&paths)?;
    let text = |contents: &[Vec<u8>]| String::from_utf8_lossy(&contents.concat()).into_owned();
    let keys = Keys::parse(&text(&contents), clock, metrics)?;
    let following = keys.clone();
    follow::follow(paths, contents, metrics.reload_failures("keys"), move |contents| {
        following.replace(&text(contents)).map_err(|error| error.to_string())
    })?;
    Ok(keys)
}
