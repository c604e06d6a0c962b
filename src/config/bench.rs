//! Flags of `clipd bench`. Those of the server that it starts are `serve`'s own, after `--`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, value_parser};
use http::Uri;
use serde::{Deserialize, Serialize};

use crate::cli::flags::address;

/// Durations are written like 250ms or 5s.
#[derive(Clone, Debug, Args)]
pub struct BenchFlags {
    /// Address of a running server to load [default: one that is started with the flags after --]
    #[arg(long, value_parser = address, help_heading = "Server")]
    pub addr: Option<Uri>,
    /// Address of its Prometheus endpoint; without it nothing is known of the server's CPU time and batches
    #[arg(long, requires = "addr", value_parser = address, help_heading = "Server")]
    pub metrics_addr: Option<Uri>,
    /// Address of the HTTP API of that server, for --edge http
    #[arg(long, value_name = "HTTP_ADDR", value_parser = address, requires = "addr", help_heading = "Server")]
    pub http_addr: Option<Uri>,
    /// Which API the requests go over
    #[arg(long, value_enum, default_value = "grpc", help_heading = "Requests")]
    pub edge: Edge,
    /// Flags of `clipd serve`, for the server that is started and for the ceiling. With --addr: as that server
    /// has them, if it runs on this machine; without them no ceiling is measured
    #[arg(last = true, value_name = "SERVE FLAGS")]
    pub serve: Vec<String>,

    /// Compare servers in turns as FILE says, which is TOML; the flags after -- are those of all of them. deploy/bench
    /// has examples
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["addr", "html", "mode", "rate", "concurrency", "duration", "workload", "warm_up", "edge"],
        help_heading = "Server"
    )]
    pub scenario: Option<PathBuf>,

    /// What to send, one after the other
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "images,texts",
        help_heading = "Requests"
    )]
    pub workload: Vec<Workload>,
    /// Directory of pictures (JPEG, PNG, WebP, GIF, BMP or TIFF) [default: four drawn ones of 500 x 375 pixels]
    #[arg(long, value_name = "DIR", help_heading = "Requests")]
    pub images: Option<PathBuf>,
    /// File with a text on each line [default: made-up captions of some 12 tokens]
    #[arg(long, value_name = "FILE", help_heading = "Requests")]
    pub texts: Option<PathBuf>,
    /// Labels of the workload classify
    #[arg(
        long,
        default_value_t = 100,
        value_parser = value_parser!(u32).range(1..=20_000),
        help_heading = "Requests"
    )]
    pub labels: u32,
    /// Deadline of every request [default: the longest that the server allows]
    #[arg(long, value_parser = duration, help_heading = "Requests")]
    pub timeout: Option<Duration>,

    /// How requests come; whatever the order here, closed comes first and trace last
    #[arg(long, value_enum, value_delimiter = ',', default_value = "closed,poisson", help_heading = "Load")]
    pub mode: Vec<Mode>,
    /// Closed loops: requests in flight
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1,8,32",
        value_parser = value_parser!(u32).range(1..=1024),
        help_heading = "Load"
    )]
    pub concurrency: Vec<u32>,
    /// Requests per second: of each Poisson load; of the beginning and the end of a ramp
    /// [default: 0.3, 0.6 and 0.9 of the best closed loop; for a ramp 0.1 and 1.2]
    #[arg(long, value_delimiter = ',', value_parser = rate, help_heading = "Load")]
    pub rate: Vec<f64>,
    /// File with the seconds from the start to each request, one per line
    #[arg(long, value_name = "FILE", help_heading = "Load")]
    pub trace: Option<PathBuf>,
    /// How long each load lasts; a trace lasts as long as it is
    #[arg(long, default_value = "5s", value_parser = duration, help_heading = "Load")]
    pub duration: Duration,
    /// Most requests of each load
    #[arg(
        long,
        default_value_t = 100_000,
        value_parser = value_parser!(u32).range(1..=10_000_000),
        help_heading = "Load"
    )]
    pub requests: u32,
    /// Load before the first measurement of each workload
    #[arg(long, default_value = "1s", value_parser = duration, help_heading = "Load")]
    pub warm_up: Duration,
    /// Connections to the server
    #[arg(
        long,
        default_value_t = 4,
        value_parser = value_parser!(u32).range(1..=256),
        help_heading = "Load"
    )]
    pub connections: u32,
    /// Of captions, pictures' order and arrivals: the same seed, the same requests
    #[arg(long, default_value_t = 1, help_heading = "Load")]
    pub seed: u64,

    /// An answer within this time is a good one
    #[arg(long, default_value = "200ms", value_parser = duration, help_heading = "Report")]
    pub slo: Duration,
    /// Write everything that was measured to this file
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub json: Option<PathBuf>,
    /// Write a page with curves to this file
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub html: Option<PathBuf>,
}

/// The API of the server that requests go over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Edge {
    Grpc,
    /// JSON over HTTP/1.1, one connection for each request at a time.
    Http,
}

/// What the requests of a load ask for: one picture or text each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// Embed of a picture's file
    Images,
    /// Embed of raw pixels in the model's size: nothing to decode or to resize
    Rgb,
    /// Embed of a text
    Texts,
    /// Classify of a picture's file against labels that are cached
    Classify,
}

/// Which requests come when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Mode {
    /// A number of clients that each wait for an answer before they send again; finds the most that can be had
    Closed,
    /// Clients that know nothing of each other: random gaps, whatever the server does
    Poisson,
    /// As poisson, with a rate that rises from the first --rate to the last
    Ramp,
    /// At the times of --trace
    Trace,
}

impl BenchFlags {
    /// Whether a rate is to be known, or found, before all loads can be planned.
    pub(super) fn needs_rate(&self) -> bool {
        self.mode.iter().any(|mode| matches!(mode, Mode::Poisson | Mode::Ramp))
    }
}

/// An hour at most: longer is a mistake.
pub fn duration(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(3600);
    match humantime::parse_duration(text) {
        Ok(duration) if !duration.is_zero() && duration <= longest => Ok(duration),
        Ok(_) => Err("must be more than zero and at most an hour".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate| (0.001..=1e6).contains(rate))
        .ok_or_else(|| "must be requests per second, from 0.001 to 1000000".to_owned())
}
