//! A local server in the hub's place.
//!
//! It plays the listing, redirects to a store as the hub does for large files, ranges, and faults. It cannot play the
//! hub's other transfer protocol (Xet), which is untested.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use clipd::model::hub::{Access, Event, HubError, Repository, fetch};
use clipd::model::variant::Variant;
use sha2::{Digest, Sha256};

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub(crate) const WEIGHTS: &str = "open_clip_model.safetensors";

/// The hub's state: its files, its faults, and what was asked of it.
#[derive(Default)]
pub(crate) struct Hub {
    pub(crate) files: BTreeMap<&'static str, Vec<u8>>,
    /// The hash that the listing announces for the weights.
    pub(crate) announced: String,
    /// Answers to everything.
    pub(crate) status: Option<StatusCode>,
    /// So many answers with weights end half-way.
    pub(crate) cut: usize,
    /// After so many contents it answers to nothing any more.
    pub(crate) dies_after: Option<usize>,
    /// Revisions whose files were asked for, as they were asked for.
    pub(crate) revisions: Vec<String>,
    /// Paths of requests for contents, not for a first byte.
    pub(crate) downloads: Vec<String>,
}

pub(crate) type Shared = Arc<Mutex<Hub>>;

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A hub that has the embedded model.
pub(crate) fn hub() -> Hub {
    let builtin = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model/builtin");
    let read = |name: &str| std::fs::read(builtin.join(name)).unwrap();
    let weights = read(WEIGHTS);
    Hub {
        announced: sha256(&weights),
        files: BTreeMap::from([
            (WEIGHTS, weights),
            ("open_clip_config.json", read("open_clip_config.json")),
            ("tokenizer.json", read("tokenizer.json")),
            ("README.md", b"a model".to_vec()),
        ]),
        ..Hub::default()
    }
}

pub(crate) async fn serve(hub: Hub) -> (Shared, SocketAddr) {
    let shared = Shared::new(Mutex::new(hub));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(answer).with_state(shared.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (shared, address)
}

/// Fetches as `serve` does, off the async threads; also what was reported.
pub(crate) async fn pull_of(
    repository: Repository,
    variant: Variant,
    address: SocketAddr,
    cache: &Path,
    access: Access,
) -> (Result<PathBuf, HubError>, Vec<Event>) {
    let access =
        Access { endpoint: Some(format!("http://{address}")), cache: Some(cache.to_owned()), ..access };
    tokio::task::spawn_blocking(move || {
        let mut events = Vec::new();
        let result = fetch(&repository, &variant, &access, &mut |event| events.push(event));
        (result, events)
    })
    .await
    .unwrap()
}

async fn answer(State(hub): State<Shared>, request: Request) -> Response<Body> {
    let mut hub = hub.lock().unwrap();
    let is_dead = hub.dies_after.is_some_and(|after| hub.downloads.len() >= after);
    if let Some(status) = hub.status.or(is_dead.then_some(StatusCode::SERVICE_UNAVAILABLE)) {
        return Response::builder().status(status).body(Body::empty()).unwrap();
    }
    let path = request.uri().path();
    if let Some(revision) = path
        .strip_prefix("/api/models/emoji/clip/revision/")
        .or_else(|| path.strip_prefix("/api/datasets/emoji/clip/revision/"))
    {
        hub.revisions.push(revision.to_owned());
        // A conversion branch is a reference like any other, its slashes escaped.
        return match revision {
            "main" | COMMIT | "refs%2Fpr%2F15" => Response::new(listing(&hub).into()),
            _ => missing(),
        };
    }
    let file = path.strip_prefix("/datasets").unwrap_or(path);
    if let Some(name) = file.strip_prefix(&format!("/emoji/clip/resolve/{COMMIT}/")) {
        let Some(bytes) = hub.files.get(name) else { return missing() };
        let etag = if name == WEIGHTS { hub.announced.clone() } else { format!("git-{name}") };
        let linked = Response::builder().header("x-repo-commit", COMMIT).header("x-linked-etag", etag);
        if name == WEIGHTS {
            // Large files are elsewhere.
            let location = format!("http://{}/store/{name}", request.headers()["host"].to_str().unwrap());
            return linked.status(302).header("location", location).body(Body::empty()).unwrap();
        }
        let bytes = bytes.clone();
        return contents(linked, &request, &bytes, &mut hub);
    }
    match path.strip_prefix("/store/").and_then(|name| hub.files.get(name)).cloned() {
        Some(bytes) => contents(Response::builder(), &request, &bytes, &mut hub),
        None => missing(),
    }
}

fn missing() -> Response<Body> {
    Response::builder().status(404).body(Body::empty()).unwrap()
}

fn listing(hub: &Hub) -> String {
    let entries: Vec<String> = hub
        .files
        .iter()
        .map(|(name, bytes)| {
            let lfs = if *name == WEIGHTS {
                format!(r#", "lfs": {{"sha256": "{}", "size": {}}}"#, hub.announced, bytes.len())
            } else {
                String::new()
            };
            format!(r#"{{"rfilename": "{name}", "size": {}{lfs}}}"#, bytes.len())
        })
        .collect();
    format!(r#"{{"sha": "{COMMIT}", "siblings": [{}]}}"#, entries.join(", "))
}

/// The range that is asked for, which ends early if there is a cut to make.
fn contents(
    response: axum::http::response::Builder,
    request: &Request,
    bytes: &[u8],
    hub: &mut Hub,
) -> Response<Body> {
    let range = request.headers()["range"].to_str().unwrap().trim_start_matches("bytes=");
    let (start, end) = range.split_once('-').unwrap();
    let start: usize = start.parse().unwrap();
    let end = end.parse().unwrap_or(bytes.len() - 1).min(bytes.len() - 1);
    let response =
        response.status(206).header("content-range", format!("bytes {start}-{end}/{}", bytes.len()));
    let part = bytes[start.min(end + 1)..=end].to_vec();
    if range == "0-0" {
        return response.body(part.into()).unwrap();
    }
    hub.downloads.push(format!("{} from {start}", request.uri().path().rsplit('/').next().unwrap()));
    if hub.cut > 0 && request.uri().path().ends_with(WEIGHTS) {
        hub.cut -= 1;
        let half = part[..part.len() / 2].to_vec();
        let broken = std::io::Error::other("cut");
        let stream = futures_util::stream::iter([Ok(half), Err(broken)]);
        return response.header("content-length", part.len()).body(Body::from_stream(stream)).unwrap();
    }
    response.body(part.into()).unwrap()
}
