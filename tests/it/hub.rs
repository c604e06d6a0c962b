//! Models from the hub, with a local server in its place.
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
use clipd::config::ModelSource;
use clipd::model::hub::{Access, Event, HubError, Repository, fetch};
use clipd::model::variant::Variant;
use clipd::{app, config::Config};
use sha2::{Digest, Sha256};

use crate::support::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const WEIGHTS: &str = "open_clip_model.safetensors";

/// The hub's state: its files, its faults, and what was asked of it.
#[derive(Default)]
struct Hub {
    files: BTreeMap<&'static str, Vec<u8>>,
    /// The hash that the listing announces for the weights.
    announced: String,
    /// Answers to everything.
    status: Option<StatusCode>,
    /// So many answers with weights end half-way.
    cut: usize,
    /// Revisions whose files were asked for, as they were asked for.
    revisions: Vec<String>,
    /// Paths of requests for contents, not for a first byte.
    downloads: Vec<String>,
}

type Shared = Arc<Mutex<Hub>>;

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A hub that has the embedded model.
fn hub() -> Hub {
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

async fn serve(hub: Hub) -> (Shared, SocketAddr) {
    let shared = Shared::new(Mutex::new(hub));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(answer).with_state(shared.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (shared, address)
}

async fn answer(State(hub): State<Shared>, request: Request) -> Response<Body> {
    let mut hub = hub.lock().unwrap();
    if let Some(status) = hub.status {
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
            "main" | "refs%2Fpr%2F15" => Response::new(listing(&hub).into()),
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
    if hub.cut > 0 && part.len() > 1000 {
        hub.cut -= 1;
        let half = part[..part.len() / 2].to_vec();
        let broken = std::io::Error::other("cut");
        let stream = futures_util::stream::iter([Ok(half), Err(broken)]);
        return response.header("content-length", part.len()).body(Body::from_stream(stream)).unwrap();
    }
    response.body(part.into()).unwrap()
}

fn repository() -> Repository {
    "emoji/clip".parse().unwrap()
}

/// Fetches as `serve` does, off the async threads; also what was reported.
async fn pull(address: SocketAddr, cache: &Path, access: Access) -> (Result<PathBuf, HubError>, Vec<Event>) {
    pull_of(repository(), address, cache, access).await
}

async fn pull_of(
    repository: Repository,
    address: SocketAddr,
    cache: &Path,
    access: Access,
) -> (Result<PathBuf, HubError>, Vec<Event>) {
    let access =
        Access { endpoint: Some(format!("http://{address}")), cache: Some(cache.to_owned()), ..access };
    tokio::task::spawn_blocking(move || {
        let mut events = Vec::new();
        let result = fetch(&repository, &Variant::default(), &access, &mut |event| events.push(event));
        (result, events)
    })
    .await
    .unwrap()
}

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_pulled_once_and_served() {
    let (hub, address) = serve(hub()).await;
    let cache = tempfile::tempdir().unwrap();
    let (directory, events) = pull(address, cache.path(), Access::default()).await;
    let directory = directory.unwrap();
    assert!(directory.ends_with(format!("models--emoji--clip/snapshots/{COMMIT}")), "{directory:?}");
    assert!(
        events
            .iter()
            .any(|event| matches!(event, Event::Start { file, bytes } if file == WEIGHTS && *bytes > 1000))
    );
    assert_eq!(hub.lock().unwrap().downloads.len(), 3, "the readme is no part of a model");

    let access = Access {
        endpoint: Some(format!("http://{address}")),
        cache: Some(cache.path().to_owned()),
        ..Access::default()
    };
    let config = Config { model: ModelSource::Hub(repository(), access, Variant::default()), ..config(&[]) };
    let served = tokio::task::spawn_blocking({
        let config = config.clone();
        move || app::load::load(&config).unwrap()
    });
    let mut server = Server::listen(&config, served.await.unwrap()).await;
    server.running.ready().await.unwrap();
    let response = server.client.embed(embed_request(vec![text_input("a car")])).await.unwrap().into_inner();
    assert_eq!(embedding(&response.results[0]).values.len(), 128);
    let model = server.client.get_model(clipd::grpc::proto::GetModelRequest {}).await.unwrap().into_inner();
    assert_eq!(model.name, "emoji/clip");
    assert_eq!(hub.lock().unwrap().downloads.len(), 3, "nothing came twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_goes_on_where_it_ended() {
    let (hub, address) = serve(Hub { cut: 1, ..hub() }).await;
    let cache = tempfile::tempdir().unwrap();
    let (directory, _) = pull(address, cache.path(), Access::default()).await;
    let weights = std::fs::read(directory.unwrap().join(WEIGHTS)).unwrap();
    let hub = hub.lock().unwrap();
    assert!(weights == hub.files[WEIGHTS]);
    let of_weights: Vec<&String> = hub.downloads.iter().filter(|path| path.starts_with(WEIGHTS)).collect();
    assert_eq!(of_weights.len(), 2);
    assert!(!of_weights[1].ends_with(" from 0"), "{of_weights:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_another_hash_is_deleted() {
    let (hub, address) = serve(Hub { announced: sha256(b"another file"), ..hub() }).await;
    let cache = tempfile::tempdir().unwrap();
    let (refused, _) = pull(address, cache.path(), Access::default()).await;
    let message = refused.unwrap_err().to_string();
    assert!(
        message.starts_with("emoji/clip: open_clip_model.safetensors is not what the hub announced"),
        "{message}"
    );
    let (offline, _) = pull(address, cache.path(), Access { offline: true, ..Access::default() }).await;
    assert!(matches!(offline, Err(HubError::NotCached(_))), "{offline:?}");
    // Once the hub is mended, so is the cache.
    {
        let mut hub = hub.lock().unwrap();
        hub.announced = sha256(&hub.files[WEIGHTS]);
    }
    pull(address, cache.path(), Access::default()).await.0.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_serves_without_the_hub() {
    let cache = tempfile::tempdir().unwrap();
    let offline = || Access { offline: true, ..Access::default() };
    let (refused, _) = pull(nobody().await, cache.path(), offline()).await;
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("clipd pull emoji/clip"), "{message}");
    let (refused, _) = pull(nobody().await, cache.path(), Access::default()).await;
    assert!(matches!(refused, Err(HubError::Unreachable { .. })), "{refused:?}");

    let (_hub, address) = serve(hub()).await;
    let directory = pull(address, cache.path(), Access::default()).await.0.unwrap();
    assert_eq!(pull(nobody().await, cache.path(), offline()).await.0.unwrap(), directory);
    let (fallback, events) = pull(nobody().await, cache.path(), Access::default()).await;
    assert_eq!(fallback.unwrap(), directory);
    assert!(matches!(events.as_slice(), [Event::Cached { .. }]), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_what_to_do() {
    for (status, says) in [(404, "no such repository"), (401, "HF_TOKEN"), (403, "HF_TOKEN")] {
        let status = StatusCode::from_u16(status).unwrap();
        let (_hub, address) = serve(Hub { status: Some(status), ..hub() }).await;
        let cache = tempfile::tempdir().unwrap();
        let message = pull(address, cache.path(), Access::default()).await.0.unwrap_err().to_string();
        assert!(message.contains(says) && message.starts_with("emoji/clip"), "{status}: {message}");
    }
    let mut others = hub();
    others.files = BTreeMap::from([("tf_model.h5", vec![1]), ("config.json", vec![2])]);
    let (_hub, address) = serve(others).await;
    let cache = tempfile::tempdir().unwrap();
    let message = pull(address, cache.path(), Access::default()).await.0.unwrap_err().to_string();
    assert!(message.contains("no weights that clipd reads"), "{message}");
}

/// Where transformers looks for safetensors that a bot has made of somebody's pickled weights.
#[tokio::test(flavor = "multi_thread")]
async fn a_conversion_branch_is_a_revision() {
    let (hub, address) = serve(hub()).await;
    let cache = tempfile::tempdir().unwrap();
    let of = |revision: &str| format!("emoji/clip@{revision}").parse::<Repository>().unwrap();
    let branch = || of("refs/pr/15");
    let (directory, _) = pull_of(branch(), address, cache.path(), Access::default()).await;
    let directory = directory.unwrap();
    assert!(directory.ends_with(format!("snapshots/{COMMIT}")), "{directory:?}");
    assert_eq!(hub.lock().unwrap().revisions, ["refs%2Fpr%2F15"]);
    // By its name in the cache, too, as Python's tools keep it.
    let reference = cache.path().join("models--emoji--clip/refs/refs/pr/15");
    assert_eq!(std::fs::read_to_string(reference).unwrap(), COMMIT);
    let offline = Access { offline: true, ..Access::default() };
    let (again, _) = pull_of(branch(), nobody().await, cache.path(), offline).await;
    assert_eq!(again.unwrap(), directory);
    let (missing, _) = pull_of(of("refs/pr/16"), address, cache.path(), Access::default()).await;
    let message = missing.unwrap_err().to_string();
    assert!(message.starts_with("emoji/clip@refs/pr/16: the hub has no such"), "{message}");
}

/// A data set in clip_benchmark's layout: what it is scored from comes once, and the second time from the cache.
#[cfg(feature = "bench")]
#[tokio::test(flavor = "multi_thread")]
async fn a_data_set_is_scored_and_then_without_the_hub() {
    let data = crate::eval::with_bad_ones();
    let read = |name: &str| std::fs::read(data.at(name)).unwrap();
    let files = ["classnames.txt", "test/nshards.txt", "test/0.tar"].map(|name| (name, read(name)));
    let others = [("README.md", b"a data set".to_vec()), ("train/0.tar", vec![1])];
    let (hub, address) =
        serve(Hub { files: files.into_iter().chain(others).collect(), ..Hub::default() }).await;
    let (server, cache) = (Server::start(&[]).await, tempfile::tempdir().unwrap());
    let eval = |endpoint: SocketAddr, offline: &'static str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_clipd"));
        command.args(["eval", "zeroshot", "emoji/clip", "--skip-errors"]);
        command.arg(format!("--addr={}", server.running.grpc_address));
        command.env("HF_HOME", cache.path()).env("HF_ENDPOINT", format!("http://{endpoint}"));
        command.env("HF_HUB_OFFLINE", offline).env_remove("HF_TOKEN");
        async { tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap() }
    };
    let refused = eval(address, "1").await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is not in the cache"), "{refused:?}");
    let first = eval(address, "0").await;
    assert!(first.status.success(), "{first:?}");
    assert!(String::from_utf8_lossy(&first.stdout).contains("8 pictures, 4 LEFT OUT"), "{first:?}");
    let downloads = hub.lock().unwrap().downloads.clone();
    assert_eq!(downloads.len(), 3, "{downloads:?}");
    let second = eval(nobody().await, "1").await;
    assert_eq!((second.status.success(), &second.stdout), (true, &first.stdout), "{second:?}");
    let wrong = eval(address, "0").await;
    assert!(wrong.status.success() && hub.lock().unwrap().downloads.len() == 3, "nothing came twice");
}
