//! Models and data sets from the Hugging Face hub, kept in the cache that Python's tools share.
//!
//! The `hf-hub` crate knows the hub's protocol and the layout of the cache. Here is what it leaves open: which files
//! make one, whether what came is what was announced, how long a silent hub is waited for, and what to do
//! without one. It does not read the files; [`super::Model::from_dir`] does.

mod choice;
mod repository;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::time::Duration;

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::io::{hash, hexadecimal};
use super::variant::Variant;
use choice::Purpose;
pub use repository::Repository;

/// A download that brings nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(60);
/// Events of a download that wait to be shown; then it waits for them.
const UNTOLD: usize = 64;
/// How often `hf-hub` begins again where a connection broke.
const RETRIES: usize = 3;

/// How to reach the hub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Without one, that of the file `token` in the home of the cache.
    pub token: Option<String>,
    /// Only what is in the cache.
    pub offline: bool,
    /// `None`: `HF_ENDPOINT`, or the hub itself.
    pub endpoint: Option<String>,
    /// `None`: below `HF_HOME`, or `~/.cache/huggingface`.
    pub cache: Option<PathBuf>,
}

/// What happens while files come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A file of so many bytes begins, or begins again.
    Start { file: String, bytes: usize },
    /// So many bytes more have come.
    Bytes(usize),
    /// The hub cannot be reached; what is in the cache is used.
    Cached { reason: String },
}

#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("{0}: the hub has no such repository or revision, or it is private and HF_TOKEN is not set")]
    NotFound(Repository),
    #[error("{0}: the hub refuses access: HF_TOKEN is wrong, or its owner has not been granted access")]
    Denied(Repository),
    #[error("{repository}: {missing}")]
    NoModel { repository: Repository, missing: String },
    #[error(
        "{repository} is not in the cache{}, and HF_HUB_OFFLINE is set; a model is got by `clipd pull {repository}`",
        missing.as_ref().map(|missing| format!(" as a whole ({missing})")).unwrap_or_default()
    )]
    NotCached { repository: Repository, missing: Option<String> },
    #[error("{repository}: the hub cannot be reached, and the cache has no whole copy: {reason}")]
    Unreachable { repository: Repository, reason: String },
    #[error("{repository}: {file}: nothing came from the hub for {} seconds", SILENCE.as_secs())]
    Silent { repository: Repository, file: String },
    #[error("{repository}: {file} is not what the hub announced ({what}), and was deleted")]
    Corrupt { repository: Repository, file: String, what: &'static str },
    #[error("{repository}: {file}: {reason}")]
    File { repository: Repository, file: String, reason: String },
}

/// The hub's answer about a repository.
#[derive(Debug, Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

/// Of a large file.
#[derive(Debug, Deserialize)]
struct Lfs {
    sha256: String,
}

/// The directory with the files of a model, which are downloaded unless the cache has them.
pub fn fetch(
    repository: &Repository,
    variant: &Variant,
    access: &Access,
    report: &mut dyn FnMut(Event),
) -> Result<PathBuf, HubError> {
    fetch_for(Purpose::Model { variant }, repository, access, report)
}

/// The directory with one split of a data set in clip_benchmark's layout.
pub fn fetch_data(
    repository: &Repository,
    split: &str,
    access: &Access,
    report: &mut dyn FnMut(Event),
) -> Result<PathBuf, HubError> {
    fetch_for(Purpose::Data { split }, repository, access, report)
}

fn fetch_for(
    purpose: Purpose<'_>,
    repository: &Repository,
    access: &Access,
    report: &mut dyn FnMut(Event),
) -> Result<PathBuf, HubError> {
    let cache = access.cache.clone().map_or_else(Cache::from_env, Cache::new);
    let cached = cached(purpose, repository, &cache);
    if access.offline {
        return cached.map_err(|missing| HubError::NotCached { repository: repository.clone(), missing });
    }
    // A commit does not change.
    if let Ok(directory) = &cached
        && is_commit(&repository.revision)
    {
        return Ok(directory.clone());
    }
    let download = Download { purpose, repository, cache: &cache, api: api(access, &cache, repository)? };
    match (download.listing(), cached) {
        (Ok(listing), _) => download.all(&listing, report),
        (Err(HubError::Unreachable { reason, .. }), Ok(directory)) => {
            report(Event::Cached { reason });
            Ok(directory)
        }
        (Err(error), _) => Err(error),
    }
}

fn api(access: &Access, cache: &Cache, repository: &Repository) -> Result<Api, HubError> {
    let token = access.token.clone().or_else(|| cache.token());
    let mut builder = ApiBuilder::from_env().with_cache_dir(cache.path().clone());
    if let Some(endpoint) = &access.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    builder
        .with_token(token)
        .with_retries(RETRIES)
        .with_progress(false)
        .with_user_agent("clipd", env!("CARGO_PKG_VERSION"))
        .build()
        .map_err(|error| HubError::Unreachable { repository: repository.clone(), reason: error.to_string() })
}

/// The snapshot in the cache, if it has all files that are needed; else what it lacks, if there is one.
fn cached(purpose: Purpose<'_>, repository: &Repository, cache: &Cache) -> Result<PathBuf, Option<String>> {
    let home = cache.path().join(repository.repo(purpose, &repository.revision).folder_name());
    let commit = if is_commit(&repository.revision) {
        repository.revision.clone()
    } else {
        fs::read_to_string(home.join("refs").join(&repository.revision)).map_err(|_| None)?
    };
    let directory = home.join("snapshots").join(commit.trim());
    let files = files_below(&directory).ok_or(None)?;
    match purpose.missing(&directory, &files) {
        None => Ok(directory),
        missing => Err(missing),
    }
}

/// Names of the files in a directory and in those of its own, where ONNX graphs and splits of data may be.
fn files_below(directory: &Path) -> Option<Vec<String>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).ok()? {
        let name = entry.ok()?.file_name().into_string().ok()?;
        let path = directory.join(&name);
        if path.is_dir() {
            let inner = fs::read_dir(path).ok()?;
            let inner = inner.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            files.extend(inner.map(|inner| format!("{name}/{inner}")));
        } else {
            files.push(name);
        }
    }
    // A link whose file is gone is no file.
    files.retain(|name| directory.join(name).exists());
    Some(files)
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

struct Download<'a> {
    purpose: Purpose<'a>,
    repository: &'a Repository,
    cache: &'a Cache,
    api: Api,
}

impl Download<'_> {
    fn listing(&self) -> Result<Listing, HubError> {
        let request = self.api.repo(self.repo(&self.repository.revision)).info_request();
        let unreachable =
            |reason: String| HubError::Unreachable { repository: self.repository.clone(), reason };
        let mut response =
            request.query("blobs", "true").call().map_err(|error| self.refused(error, unreachable))?;
        response.body_mut().read_json().map_err(|error| unreachable(error.to_string()))
    }

    fn repo(&self, revision: &str) -> Repo {
        self.repository.repo(self.purpose, revision)
    }

    /// Gets what is missing, and makes the revision point to it once all is there.
    fn all(&self, listing: &Listing, report: &mut dyn FnMut(Event)) -> Result<PathBuf, HubError> {
        let names: Vec<String> = listing.siblings.iter().map(|entry| entry.rfilename.clone()).collect();
        let chosen = self
            .purpose
            .choose(&names)
            .map_err(|missing| HubError::NoModel { repository: self.repository.clone(), missing })?;
        // Of the commit that was listed: a branch may move meanwhile.
        let at_commit = self.cache.repo(self.repo(&listing.sha));
        let directory = at_commit.pointer_path(&listing.sha);
        // In the order of the choice.
        let entry = |name: &str| listing.siblings.iter().find(|entry| entry.rfilename == name);
        for entry in chosen.into_iter().filter_map(entry) {
            let path = directory.join(&entry.rfilename);
            if !path.exists() {
                self.file(entry, &listing.sha, report)?;
                self.verify(entry, &path)?;
            }
        }
        let branch = self.cache.repo(self.repo(&self.repository.revision));
        branch.create_ref(&listing.sha).map_err(|error| self.failed("refs", &error.to_string()))?;
        Ok(directory)
    }

    /// On a thread of its own, because a silent connection cannot be interrupted.
    fn file(&self, entry: &Entry, commit: &str, report: &mut dyn FnMut(Event)) -> Result<(), HubError> {
        let (events, inbox) = mpsc::sync_channel(UNTOLD);
        let (repo, name) = (self.api.repo(self.repo(commit)), entry.rfilename.clone());
        let thread = std::thread::spawn(move || repo.download_with_progress(&name, Reporter(events)));
        loop {
            match inbox.recv_timeout(SILENCE) {
                Ok(event) => report(event),
                // The reporter is gone: the download has ended.
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let (repository, file) = (self.repository.clone(), entry.rfilename.clone());
                    return Err(HubError::Silent { repository, file });
                }
            }
        }
        let result = thread.join().map_err(|_| self.failed(&entry.rfilename, "the download panicked"))?;
        result.map(drop).map_err(|error| match error {
            ApiError::RequestError(error) => {
                self.refused(*error, |reason| self.failed(&entry.rfilename, &reason))
            }
            error => self.failed(&entry.rfilename, &error.to_string()),
        })
    }

    /// What came is as long as announced, and has the announced hash where the hub knows one (large files).
    fn verify(&self, entry: &Entry, path: &Path) -> Result<(), HubError> {
        let failed = |error: io::Error| self.failed(&entry.rfilename, &error.to_string());
        let what = if entry.size.is_some_and(|size| fs::metadata(path).is_ok_and(|file| file.len() != size)) {
            "another length"
        } else if let Some(lfs) = &entry.lfs
            && sha256(path).map_err(failed)? != lfs.sha256
        {
            "another SHA-256"
        } else {
            return Ok(());
        };
        // The link and what it points to.
        if let Ok(blob) = fs::canonicalize(path) {
            fs::remove_file(blob).map_err(failed)?;
        }
        let _ = fs::remove_file(path);
        Err(HubError::Corrupt { repository: self.repository.clone(), file: entry.rfilename.clone(), what })
    }

    fn refused(&self, error: ureq::Error, otherwise: impl FnOnce(String) -> HubError) -> HubError {
        match error {
            ureq::Error::StatusCode(404) => HubError::NotFound(self.repository.clone()),
            ureq::Error::StatusCode(401 | 403) => HubError::Denied(self.repository.clone()),
            error => otherwise(error.to_string()),
        }
    }

    fn failed(&self, file: &str, reason: &str) -> HubError {
        let (repository, file) = (self.repository.clone(), file.to_owned());
        HubError::File { repository, file, reason: reason.to_owned() }
    }
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    hash(&mut File::open(path)?, &mut hasher)?;
    Ok(hexadecimal(hasher))
}

/// Tells of a download from its thread. Nobody listens any more after a silence.
struct Reporter(SyncSender<Event>);

impl Progress for Reporter {
    fn init(&mut self, size: usize, filename: &str) {
        let _ = self.0.send(Event::Start { file: filename.to_owned(), bytes: size });
    }

    fn update(&mut self, size: usize) {
        let _ = self.0.send(Event::Bytes(size));
    }

    fn finish(&mut self) {}
}
