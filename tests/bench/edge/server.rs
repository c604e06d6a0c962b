//! A server on threads of its own, and its client on the thread that measures.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use clipd::app::ports::Ports;
use clipd::app::{self, Served};
use clipd::batcher::OpenEngine;
use clipd::clock::Clock;
use clipd::config::Config;
use clipd::config::flags::{Cli, Command};
use clipd::engine::device::Precision;
use clipd::engine::synthetic::{Gate, Pace, SyntheticEngine};
use clipd::grpc::proto::clip_service_client::ClipServiceClient;
use clipd::grpc::proto::input::Content;
use clipd::grpc::proto::{EmbedRequest, Image, Input, RgbImage, image::Source};
use clipd::model::Model;
use clipd::model::graph::Form;
use rustix::time::{ClockId, Timespec, clock_gettime};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, ClientTlsConfig};

pub(crate) type Client = ClipServiceClient<Channel>;

/// Most embeddings have 512 numbers.
const DIM: usize = 512;

/// The picture of the embedded model, in pixels.
const SIDE: u32 = 64;

/// Room for all predictions of 20,000 labels.
const MAX_RESPONSE: usize = 64 << 20;

pub(crate) struct Server {
    /// Of the client; it runs only while it is asked.
    pub(crate) here: Runtime,
    running: app::Running,
    /// Dropped last: it runs the server.
    _threads: Runtime,
}

impl Server {
    /// An engine that takes next to no time, so that what is measured is all the rest.
    pub(crate) fn synthetic(flags: &[&str]) -> Server {
        Server::synthetic_of(SIDE, flags)
    }

    /// The same for pictures of another size.
    pub(crate) fn synthetic_of(side: u32, flags: &[&str]) -> Server {
        Server::of(OpenEngine::new("cpu", || Ok(SyntheticEngine::gated(DIM, Gate::open()))), side, flags)
    }

    /// An engine that is busy for so long with each row.
    pub(crate) fn spinning(per_row: Duration, flags: &[&str]) -> Server {
        let pace = Pace { per_batch: Duration::ZERO, per_row };
        let engine = move || Ok(SyntheticEngine::spinning(DIM, Clock::start(), pace));
        Server::of(OpenEngine::new("cpu", engine), SIDE, flags)
    }

    fn of(engine: OpenEngine, side: u32, flags: &[&str]) -> Server {
        let mut model = Model::builtin(Form::PORTABLE).expect("it is embedded");
        model.spec.embed_dim = DIM;
        (model.spec.image.height, model.spec.image.width) = (side, side);
        let served = Served {
            name: model.name,
            fingerprint: app::load::fingerprint(&model.fingerprint, Precision::Fp32, None),
            spec: model.spec,
            tokenizer_json: model.tokenizer_json,
            engines: vec![engine],
        };
        Server::start(&config(flags), served)
    }

    fn start(config: &Config, served: Served) -> Server {
        let threads = Builder::new_multi_thread().enable_all().build().expect("threads start");
        let start = async { app::start(config, Ports::open(config)?, served) };
        let running = threads.block_on(start).expect("the server starts");
        threads.block_on(running.ready()).expect("the server warms up");
        let here = Builder::new_current_thread().enable_all().build().expect("a runtime starts");
        Server { here, running, _threads: threads }
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.running.http_address.expect("it is not switched off")
    }

    /// On a connection of its own.
    pub(crate) fn client(&self) -> Client {
        self.client_over(None)
    }

    pub(crate) fn client_over(&self, tls: Option<ClientTlsConfig>) -> Client {
        self.here.block_on(self.connect(tls))
    }

    pub(crate) async fn connect(&self, tls: Option<ClientTlsConfig>) -> Client {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let address = format!("{scheme}://{}", self.running.grpc_address);
        let channel = Channel::from_shared(address).expect("it is an address");
        let channel = match tls {
            Some(tls) => channel.tls_config(tls).expect("the certificate is one"),
            None => channel,
        };
        let channel = channel.connect().await.expect("the server listens");
        Client::new(channel).max_decoding_message_size(MAX_RESPONSE)
    }
}

fn config(flags: &[&str]) -> Config {
    let base = [
        "clipd",
        "serve",
        "--device=cpu",
        "--listen=127.0.0.1:0",
        "--http-listen=127.0.0.1:0",
        "--metrics-listen=127.0.0.1:0",
    ];
    let Ok(Cli { command: Command::Serve(flags), .. }) = Cli::try_parse_from(base.iter().chain(flags)) else {
        panic!("the flags are right")
    };
    Config::from_flags(&flags).expect("the configuration is right")
}

pub(crate) fn picture() -> Image {
    rgb(SIDE, SIDE)
}

pub(crate) fn rgb(width: u32, height: u32) -> Image {
    let pixels = vec![127; width as usize * height as usize * 3].into();
    Image { source: Some(Source::Rgb(RgbImage { width, height, pixels })) }
}

pub(crate) fn embed(content: Content) -> EmbedRequest {
    EmbedRequest { inputs: vec![Input { content: Some(content) }], ..EmbedRequest::default() }
}

/// All different, and as short as words.
pub(crate) fn labels(count: usize) -> Vec<Bytes> {
    (0..count).map(|label| format!("a label {label}").into()).collect()
}

/// CPU time that everything but this thread has taken so far.
pub(crate) fn cpu_of_others() -> Duration {
    let seconds = |clock| {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
        Duration::new(tv_sec as u64, tv_nsec as u32)
    };
    seconds(ClockId::ProcessCPUTime) - seconds(ClockId::ThreadCPUTime)
}
