//! `clipd classify` and `clipd embed`, the real program, as clients of a real server.

use std::convert::Infallible;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::task::{Context, Poll};

use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower_service::Service;

use crate::support::*;

const LABELS: [&str; 8] = ["dog", "cat", "pizza", "car", "guitar", "airplane", "umbrella", "apple"];

/// A server, and the program as its client.
struct Session {
    server: Server,
    environment: Vec<(&'static str, String)>,
}

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Session {
    async fn start(flags: &[&str]) -> Session {
        let server = Server::start(flags).await;
        let address = format!("http://{}", server.running.grpc_address);
        Session { server, environment: vec![("CLIPD_ADDR", address)] }
    }

    /// Runs the program in the folder of the fixtures.
    async fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = clipd(arguments);
        command.envs(self.environment.iter().cloned());
        output(command).await
    }
}

fn clipd(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clipd"));
    // Configuration of the machine that runs the tests must not leak in.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CLIPD_")) {
        command.env_remove(name);
    }
    command.args(arguments).current_dir(fixtures()).stdin(Stdio::null());
    command
}

/// Runs it on a thread of its own: the server of the test needs this one.
async fn output(mut command: Command) -> Ran {
    let Output { status, stdout, stderr } =
        tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

fn picture_paths() -> Vec<String> {
    LABELS.iter().map(|label| format!("images/{label}.png")).collect()
}

fn classify<'a>(images: &[&'a str], more: &[&'a str], labels: &'a str) -> Vec<&'a str> {
    [&["classify"], images, &["--template=an emoji of {}", "--labels", labels], more].concat()
}

/// The rows of a `.npy` file of float32 (NumPy's format 1.0).
fn npy(path: &Path) -> (String, Vec<Vec<f32>>) {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let data = 10 + u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    assert_eq!(data % 64, 0);
    let header = std::str::from_utf8(&bytes[10..data]).unwrap().trim_end().to_owned();
    let floats: Vec<f32> =
        bytes[data..].chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    (header, floats.chunks_exact(128).map(<[f32]>::to_vec).collect())
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

fn json(line: &str) -> serde_json::Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

fn copy_pictures(to: &Path) {
    for label in LABELS {
        let name = format!("{label}.png");
        std::fs::copy(fixtures().join("images").join(&name), to.join(&name)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn classify_prints_a_table_with_the_right_label_first() {
    let session = Session::start(&[]).await;
    let (paths, labels) = (picture_paths(), LABELS.join(","));
    let images: Vec<&str> = paths.iter().map(String::as_str).collect();
    let ran = session.run(&classify(&images, &["--top-k=2"], &labels)).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let rows: Vec<Vec<&str>> = ran.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["IMAGE", "RANK", "LABEL", "SCORE", "SIMILARITY"]);
    assert_eq!(rows.len(), 1 + 2 * LABELS.len());
    for (label, rows) in LABELS.iter().zip(rows[1..].chunks(2)) {
        assert_eq!(rows[0][..3], [&format!("images/{label}.png"), "1", label], "{}", ran.stdout);
        let score: f32 = rows[0][3].strip_suffix('%').unwrap().parse().unwrap();
        assert!((50.0..=100.0).contains(&score), "{}", ran.stdout);
        assert_eq!((rows[1].len(), rows[1][0]), (4, "2"), "the second row has no name");
    }
    let widths: Vec<usize> = ran.stdout.lines().map(str::len).collect();
    assert!(widths.iter().all(|width| *width == widths[0]), "{}", ran.stdout);
}

/// Requests of two images at most, labels from a file, one picture that is none, one file that is not there.
#[tokio::test(flavor = "multi_thread")]
async fn classify_in_json_in_several_requests_and_without_the_bad_ones() {
    let session = Session::start(&["--max-inputs=2", "--max-message-bytes=20000"]).await;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("labels.txt");
    std::fs::write(&file, LABELS.join("\n\n")).unwrap();
    let mut paths = picture_paths();
    paths.insert(1, "images/README.md".to_owned());
    paths.insert(4, "images/no-such.png".to_owned());
    let mut arguments = vec!["classify", "--json", "--label-file", file.to_str().unwrap()];
    arguments.extend(["--template=an emoji of {}", "--top-k=3"]);
    arguments.extend(paths.iter().map(String::as_str));
    let ran = session.run(&arguments).await;
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    for (label, line) in LABELS.iter().zip(ran.stdout.lines()) {
        let object = json(line);
        assert_eq!(object["image"], format!("images/{label}.png"));
        assert_eq!(object["predictions"].as_array().unwrap().len(), 3);
        assert_eq!(object["predictions"][0]["label"], *label);
        assert!(object["predictions"][0]["score"].as_f64().unwrap() > 0.5);
    }
    assert_eq!(ran.stdout.lines().count(), LABELS.len());
    assert!(ran.stderr.contains("images/README.md: the image format is not recognised"), "{}", ran.stderr);
    assert!(ran.stderr.contains("images/no-such.png: No such file"), "{}", ran.stderr);
    assert_eq!(ran.stderr.lines().count(), 2, "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_is_told() {
    let session = Session::start(&[]).await;
    let ran = session.run(&classify(&["images/dog.png"], &[], "dog,dog")).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    assert!(ran.stderr.contains("labels[1]: is the same as labels[0]"), "{}", ran.stderr);
    let ran = session.run(&["classify", "images/dog.png", "--classifier=animals"]).await;
    assert!(ran.stderr.contains("none named \"animals\""), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn embed_writes_a_folder_in_sorted_order_with_the_answers_of_embed() {
    let mut session = Session::start(&[]).await;
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("x.npy");
    let ran = session.run(&["embed", "images", "--out", out.to_str().unwrap()]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""), "{}", ran.stderr);

    let (header, rows) = npy(&out);
    assert_eq!(header, "{'descr': '<f4', 'fortran_order': False, 'shape': (9, 128), }");
    let paths = lines(&home.path().join("x.paths.txt"));
    let mut expected = picture_paths();
    expected.push("images/pizza.jpg".to_owned());
    expected.sort();
    assert_eq!(paths, expected);
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 2, "nothing else was left");

    let inputs = paths.iter().map(|path| image_input(image(fixture(path)))).collect();
    let response = session.server.client.embed(embed_request(inputs)).await.unwrap().into_inner();
    assert_eq!(rows.len(), 9);
    for (row, result) in rows.iter().zip(&response.results) {
        assert!((dot(row, row) - 1.0).abs() < 1e-5);
        let difference = |(a, b): (&f32, &f32)| (a - b).abs();
        let worst = row.iter().zip(&embedding(result).values).map(difference).fold(0.0, f32::max);
        assert!(worst < 1e-6, "{worst}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_is_reported_and_the_rest_is_written() {
    let session = Session::start(&["--max-image-bytes=100000"]).await;
    let home = tempfile::tempdir().unwrap();
    copy_pictures(home.path());
    std::fs::create_dir(home.path().join("below")).unwrap();
    std::fs::write(home.path().join("below/broken.png"), "not a picture").unwrap();
    std::fs::write(home.path().join("below/large.jpg"), vec![0; 100_001]).unwrap();
    let out = home.path().join("x.jsonl");
    let folder = home.path().to_str().unwrap();
    let arguments = ["embed", "--recursive", folder, "--text=an emoji of pizza", "--out"];
    let ran = session.run(&[&arguments[..], &[out.to_str().unwrap()]].concat()).await;
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    for reason in ["below/broken.png: the image format", "below/large.jpg: more bytes than the limit"] {
        assert!(ran.stderr.contains(reason), "{reason}: {}", ran.stderr);
    }
    let rows: Vec<serde_json::Value> = lines(&out).iter().map(|line| json(line)).collect();
    let mut labels = LABELS;
    labels.sort_unstable();
    for (label, row) in labels.iter().zip(&rows) {
        assert_eq!(row["path"], home.path().join(format!("{label}.png")).to_str().unwrap());
        assert_eq!(row["embedding"].as_array().unwrap().len(), 128);
    }
    assert_eq!(rows.len(), 9);
    assert_eq!(rows[8]["text"], "an emoji of pizza");
}

#[tokio::test(flavor = "multi_thread")]
async fn embed_prints_single_inputs_and_reads_standard_input() {
    let session = Session::start(&[]).await;
    let ran = session.run(&["embed", "images/dog.png", "--text=a dog"]).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let firsts: Vec<&str> = ran.stdout.lines().filter_map(|line| line.split("  ").next()).collect();
    assert_eq!(firsts, ["INPUT", "images/dog.png", "\"a dog\""], "{}", ran.stdout);

    let mut command = clipd(&["embed", "--json", "-", "images/dog.png"]);
    command.envs(session.environment.clone());
    command.stdin(std::fs::File::open(fixtures().join("images/dog.png")).unwrap());
    let ran = output(command).await;
    let objects: Vec<serde_json::Value> = ran.stdout.lines().map(json).collect();
    assert_eq!((objects.len(), objects[0]["path"].as_str()), (2, Some("-")), "{}", ran.stderr);
    assert_eq!(objects[0]["embedding"], objects[1]["embedding"]);
}

/// The server ends each stream after a moment; every row is there all the same, once and in its place.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_stream_left_unanswered_is_sent_on_the_next() {
    let session = Session::start(&["--max-stream-age=50ms", "--max-stream-inputs=4"]).await;
    let home = tempfile::tempdir().unwrap();
    copy_pictures(home.path());
    let mut arguments = vec!["embed", "--out"];
    let out = home.path().join("x.npy");
    arguments.push(out.to_str().unwrap());
    let folders = vec![home.path().to_str().unwrap(); 13];
    arguments.extend(folders);
    let ran = session.run(&arguments).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("104 of 104\n"), "{}", ran.stderr);
    let (_, rows) = npy(&out);
    let paths = lines(&home.path().join("x.paths.txt"));
    assert_eq!((rows.len(), paths.len()), (104, 104));
    for (index, row) in rows.iter().enumerate() {
        assert_eq!(paths[index], paths[index % 8]);
        assert!(dot(row, &rows[index % 8]) > 0.999_99, "row {index}");
    }
    let scrape = scrape::Scrape::quiet(session.server.running.metrics_address).await;
    let ended = scrape.value("clip_requests_total{method=\"StreamEmbed\",code=\"UNAVAILABLE\"}");
    assert!(ended >= 1.0, "the server ended {ended} streams");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_seen_enough_is_no_error() {
    let session = Session::start(&[]).await;
    let mut command = clipd(&["embed", "images", "--json"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.envs(session.environment.clone()).stdout(writer).stderr(Stdio::piped());
    let ended = tokio::task::spawn_blocking(move || command.spawn().unwrap().wait_with_output().unwrap());
    let Output { status, stderr, .. } = ended.await.unwrap();
    assert_eq!((status.code(), String::from_utf8(stderr).unwrap().as_str()), (Some(0), ""));
}

/// A service that answers every call with what it was given as `authorization`.
#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "clip.v1.ClipService";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let given = request.headers().get("authorization").map(|value| value.to_str().unwrap());
        std::future::ready(Ok(Status::unauthenticated(format!("given: {given:?}")).into_http()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_the_environment_is_sent() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let incoming = TcpListenerStream::new(listener);
    tokio::spawn(tonic::transport::Server::builder().add_service(Echo).serve_with_incoming(incoming));
    let with_key = async |key: &str| {
        let mut command = clipd(&["embed", "--text=a", "--addr", &address]);
        command.env("CLIPD_API_KEY", key);
        let ran = output(command).await;
        assert_eq!(ran.code, Some(1));
        ran.stderr
    };
    let told = with_key("a-key").await;
    assert!(told.contains("given: Some(\"Bearer a-key\")"), "{told}");
    assert!(told.contains("set CLIPD_API_KEY"), "{told}");
    assert!(with_key("").await.contains("given: None"));
    assert!(with_key("two\nlines").await.contains("CLIPD_API_KEY has characters"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_it_says_what_to_do() {
    // Bound and not listening: the port refuses, and nobody else can take it.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = held.local_addr().unwrap().to_string();
    for command in [&["classify", "images/dog.png", "--labels=dog"][..], &["embed", "images/dog.png"]] {
        let ran = output(clipd(&[command, &["--addr", &address]].concat())).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
        let advice = format!("is clipd running at http://{address}? start it with: clipd serve\n");
        assert!(ran.stderr.ends_with(&advice), "{}", ran.stderr);
    }
}

#[tokio::test]
async fn wrong_flags_are_usage_errors() {
    for arguments in [
        &["classify", "a.png"][..],
        &["classify", "--labels=a"],
        &["classify", "a.png", "--labels=a", "--classifier=b"],
        &["classify", "a.png", "--labels=a", "--top-k=0"],
        &["classify", "a.png", "--labels=a", "--addr=ftp://localhost:1"],
        &["embed"],
        &["embed", "a.png", "--out=x.txt"],
        &["embed", "a.png", "--out=x.npy", "--json"],
        &["embed", "a.png", "--log-format=xml"],
    ] {
        assert_eq!(output(clipd(arguments)).await.code, Some(64), "{arguments:?}");
    }
}
