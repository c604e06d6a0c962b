//! Models from the hub, with a local server in its place.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use axum::http::StatusCode;
use clipd::config::ModelSource;
use clipd::model::hub::{Access, Event, HubError, Repository};
use clipd::model::variant::Variant;
use clipd::{app, config::Config};

use crate::support::hub::{COMMIT, Hub, WEIGHTS, hub, pull_of, serve, sha256};
use crate::support::*;

fn repository() -> Repository {
    "emoji/clip".parse().unwrap()
}

/// Fetches as `serve` does, off the async threads; also what was reported.
async fn pull(address: SocketAddr, cache: &Path, access: Access) -> (Result<PathBuf, HubError>, Vec<Event>) {
    pull_of(repository(), Variant::default(), address, cache, access).await
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
    assert!(matches!(offline, Err(HubError::NotCached { .. })), "{offline:?}");
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

/// In each layout, after each of its files: without the hub what is there is no model, and the error names what is
/// missing; the hub gives the rest, to a commit as to a branch.
#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_was_interrupted_anywhere_is_no_model_until_the_rest_has_come() {
    let golden = fixtures().join("golden");
    let mut states = 0;
    for (layout, additional) in [
        ("transformers-js", &[][..]),
        ("ready-made", &["textual/tokenizer_config.json", "visual/onnx__MatMul_1"]),
        ("inference", &["visual.onnx.data"]),
        ("optimum", &["model.onnx_data"]),
        ("siglip-patch8", &[]),
        ("siglip-timm", &[]),
        ("transformers-shards", &[]),
    ] {
        let mut files = files_below(&golden.join(layout));
        files.extend(additional.iter().map(|name| (*name, b"more".to_vec())));
        let announced = files.get(WEIGHTS).map(|weights| sha256(weights)).unwrap_or_default();
        for revision in ["main", COMMIT] {
            let repository: Repository = format!("emoji/clip@{revision}").parse().unwrap();
            let mut whole = 0;
            for after in 0.. {
                let announced = announced.clone();
                let hub = Hub { files: files.clone(), announced, dies_after: Some(after), ..Hub::default() };
                let ((hub, address), cache) = (serve(hub).await, tempfile::tempdir().unwrap());
                // Python's tools, which share the cache, make the branch point to what they begin.
                let home = cache.path().join("models--emoji--clip");
                std::fs::create_dir_all(home.join("refs")).unwrap();
                std::fs::write(home.join("refs/main"), COMMIT).unwrap();
                let pull = |offline| {
                    let access = Access { offline, ..Access::default() };
                    pull_of(repository.clone(), Variant::default(), address, cache.path(), access)
                };
                let at = format!("{layout}@{revision} after {after}");
                if after > 0 && pull(false).await.0.is_ok() {
                    whole = after;
                    pull(true).await.0.expect("what was pulled is served without the hub");
                    break;
                }
                let message = pull(true).await.0.expect_err(&at).to_string();
                if after > 0 {
                    assert!(
                        message.contains("is not in the cache as a whole (it has no "),
                        "{at}: {message}"
                    );
                }
                hub.lock().unwrap().dies_after = None;
                let directory = pull(false).await.0.expect(&at);
                let downloads = hub.lock().unwrap().downloads.clone();
                let chosen = files.keys().filter(|name| directory.join(name).exists()).count();
                assert_eq!(downloads.len(), chosen, "{at}: nothing came twice: {downloads:?}");
                pull(true).await.0.expect(&at);
                states += 1;
            }
            assert!(whole > 3, "{layout}: {whole} files");
        }
    }
    assert!(states > 60, "{states} states");
}

/// Contents by their names in a repository; the expected outputs of a fixture are not of it.
fn files_below(directory: &Path) -> BTreeMap<&'static str, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().unwrap() != "golden.safetensors" {
                let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
                files.insert(&*name.leak(), std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// Where transformers looks for safetensors that a bot has made of somebody's pickled weights.
#[tokio::test(flavor = "multi_thread")]
async fn a_conversion_branch_is_a_revision() {
    let (hub, address) = serve(hub()).await;
    let cache = tempfile::tempdir().unwrap();
    let of = |revision: &str| format!("emoji/clip@{revision}").parse::<Repository>().unwrap();
    let branch = || of("refs/pr/15");
    let (directory, _) =
        pull_of(branch(), Variant::default(), address, cache.path(), Access::default()).await;
    let directory = directory.unwrap();
    assert!(directory.ends_with(format!("snapshots/{COMMIT}")), "{directory:?}");
    assert_eq!(hub.lock().unwrap().revisions, ["refs%2Fpr%2F15"]);
    // By its name in the cache, too, as Python's tools keep it.
    let reference = cache.path().join("models--emoji--clip/refs/refs/pr/15");
    assert_eq!(std::fs::read_to_string(reference).unwrap(), COMMIT);
    let offline = Access { offline: true, ..Access::default() };
    let (again, _) = pull_of(branch(), Variant::default(), nobody().await, cache.path(), offline).await;
    assert_eq!(again.unwrap(), directory);
    let (missing, _) =
        pull_of(of("refs/pr/16"), Variant::default(), address, cache.path(), Access::default()).await;
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
