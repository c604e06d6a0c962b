//! Starts servers and speaks to them.

pub(crate) mod collector;
pub(crate) mod hub;
pub(crate) mod post;
pub(crate) mod scrape;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use clipd::app::ports::Ports;
use clipd::app::{self, Running, Served};
use clipd::batcher::OpenEngine;
use clipd::config::Config;
use clipd::config::flags::{Cli, Command};
use clipd::engine::device::Precision;
use clipd::engine::synthetic::{Gate, SyntheticEngine};
use clipd::grpc::proto;
use clipd::grpc::proto::clip_service_client::ClipServiceClient;
use clipd::model::Model;
use clipd::model::graph::Form;
use scrape::Scrape;
use tonic::transport::Channel;

pub(crate) type Client = ClipServiceClient<Channel>;

/// The configuration of `clipd serve` with these flags; unless they say otherwise on free ports, in fp32 on the CPU.
pub(crate) fn config(flags: &[&str]) -> Config {
    let otherwise = |default: &&&str| {
        let name = default.split_inclusive('=').next().unwrap();
        !flags.iter().any(|flag| flag.starts_with(name))
    };
    let defaults =
        ["--listen=127.0.0.1:0", "--http-listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", "--device=cpu"];
    let arguments = ["clipd", "serve"].iter().chain(defaults.iter().filter(otherwise)).chain(flags);
    let Command::Serve(flags) = Cli::try_parse_from(arguments).unwrap().command else {
        panic!("the subcommand is serve");
    };
    Config::from_flags(&flags).unwrap()
}

/// A server and a client connected to it.
pub(crate) struct Server {
    pub(crate) running: Running,
    pub(crate) client: Client,
}

impl Server {
    /// Serves the embedded model, and waits until it is warm.
    pub(crate) async fn start(flags: &[&str]) -> Server {
        let config = config(flags);
        let served = app::load::load(&config).unwrap();
        let server = Server::listen(&config, served).await;
        server.running.ready().await.unwrap();
        server
    }

    /// Serves synthetic embeddings behind a gate, and waits until it is warm.
    pub(crate) async fn gated(flags: &[&str]) -> (Server, Gate) {
        let gate = Gate::open();
        let server = Server::cold(flags, &gate).await;
        server.running.ready().await.unwrap();
        (server, gate)
    }

    /// As `gated`, but does not wait: with a closed gate the server stays in its warm-up.
    pub(crate) async fn cold(flags: &[&str], gate: &Gate) -> Server {
        let config = config(flags);
        let engines = (0..config.workers_per_device.get()).map(|_| gated_engine(gate.clone())).collect();
        Server::listen(&config, synthetic(engines)).await
    }

    /// What the model calls itself.
    pub(crate) async fn running_name(&self) -> String {
        let model = self.client.clone().get_model(proto::GetModelRequest {}).await;
        model.unwrap().into_inner().name
    }

    pub(crate) async fn listen(config: &Config, served: Served) -> Server {
        let running = app::start(config, Ports::open(config).unwrap(), served).unwrap();
        let client = connect(&running);
        Server { running, client }
    }
}

/// It connects with the first call: a server that starts refuses connections.
pub(crate) fn channel(running: &Running) -> Channel {
    Channel::from_shared(format!("http://{}", running.grpc_address)).unwrap().connect_lazy()
}

pub(crate) fn connect(running: &Running) -> Client {
    ClipServiceClient::new(channel(running)).max_decoding_message_size(64 << 20)
}

/// The embedded model's numbers and vocabulary with other engines.
pub(crate) fn synthetic(engines: Vec<OpenEngine>) -> Served {
    let model = Model::builtin(Form::PORTABLE).unwrap();
    Served {
        name: model.name,
        fingerprint: app::load::fingerprint(&model.fingerprint, Precision::Fp32, None),
        spec: model.spec,
        tokenizer_json: model.tokenizer_json,
        engines,
    }
}

/// Waits until so many images are queued, as the metrics tell.
pub(crate) async fn queued(server: &Server, rows: f64) {
    let sample = "clip_queue_rows{modality=\"image\"}";
    Scrape::when(server.running.metrics_address, sample, |queued| queued == rows).await;
}

pub(crate) fn gated_engine(gate: Gate) -> OpenEngine {
    let dim = Model::builtin(Form::PORTABLE).unwrap().spec.embed_dim;
    OpenEngine::new("cpu", move || Ok(SyntheticEngine::gated(dim, gate)))
}

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A file under `tests/fixtures`.
pub(crate) fn fixture(path: &str) -> Vec<u8> {
    let path = fixtures().join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn image(bytes: impl Into<bytes::Bytes>) -> proto::Image {
    proto::Image { source: Some(proto::image::Source::Encoded(bytes.into())) }
}

pub(crate) fn rgb(width: u32, height: u32, pixels: impl Into<bytes::Bytes>) -> proto::Image {
    let rgb = proto::RgbImage { width, height, pixels: pixels.into() };
    proto::Image { source: Some(proto::image::Source::Rgb(rgb)) }
}

/// A small picture, different for every `seed`.
pub(crate) fn picture(seed: u8) -> proto::Image {
    rgb(2, 2, vec![seed; 12])
}

pub(crate) fn image_input(image: proto::Image) -> proto::Input {
    proto::Input { content: Some(proto::input::Content::Image(image)) }
}

pub(crate) fn text_input(text: &str) -> proto::Input {
    proto::Input { content: Some(proto::input::Content::Text(text.to_owned())) }
}

pub(crate) fn embed_request(inputs: Vec<proto::Input>) -> proto::EmbedRequest {
    proto::EmbedRequest { inputs, ..proto::EmbedRequest::default() }
}

/// A request for one embedding, different for every `seed`.
pub(crate) fn one_image(seed: u8) -> proto::EmbedRequest {
    embed_request(vec![image_input(picture(seed))])
}

pub(crate) fn with_timeout<T>(message: T, timeout: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(timeout);
    request
}

/// The embedding, or a panic with the error in its place.
pub(crate) fn embedding(result: &proto::EmbedResult) -> &proto::Embedding {
    match result.result.as_ref() {
        Some(proto::embed_result::Result::Embedding(embedding)) => embedding,
        other => panic!("not an embedding: {other:?}"),
    }
}

pub(crate) fn error(result: &proto::EmbedResult) -> &proto::Error {
    match result.result.as_ref() {
        Some(proto::embed_result::Result::Error(error)) => error,
        other => panic!("not an error: {other:?}"),
    }
}

pub(crate) fn predictions(result: &proto::ClassifyResult) -> &[proto::Prediction] {
    match result.result.as_ref() {
        Some(proto::classify_result::Result::Predictions(predictions)) => &predictions.predictions,
        other => panic!("not predictions: {other:?}"),
    }
}

pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
