//! `--scenario`: servers, or requests, against each other, in turns, from a file.
//!
//! ```toml
//! title = "bf16 against fp32"
//! rounds = 3                # of every arm in turn
//! duration = "10s"          # of an arm in a round
//! concurrency = 16          # clients that wait for each answer
//!
//! [[arms]]                  # the first is what the others are compared with
//! name = "fp32"
//! serve = ["--precision=fp32"]
//! workload = "images"       # images, rgb, texts or classify
//! repeat_texts = 1          # a text is sent this many times over, to fill the context
//! ```
//!
//! All servers run from the beginning to the end, and only one has requests at a time; arms with the same flags share
//! one. So whatever else the machine does meets all arms alike. Beside each speed stands the fidelity: the cosine to
//! what the first arm of the same requests answered.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::ceiling::Spread;
use super::load::{Bounds, Generator};
use super::progress::Progress;
use super::report::comparison::{Arm as Measured, Comparison, Fidelity};
use super::scrape::Scrape;
use super::server::Target;
use super::workload::{Call, Inputs, text_of};
use super::{Error, connect};
use crate::cli::client::{Client, Server};
use crate::clip::embedding::{dot, normalize};
use crate::config::bench::{BenchFlags, Workload};
use crate::config::own_server::SERVE;
use crate::grpc::proto::embed_result;

const MAX_SCENARIO_BYTES: u64 = 1 << 20;
const MAX_ARMS: usize = 16;
const MAX_ROUNDS: usize = 100;

/// Requests whose answers are compared.
const COMPARED: usize = 64;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    title: String,
    #[serde(default = "three")]
    rounds: usize,
    #[serde(default = "ten_seconds", deserialize_with = "duration")]
    duration: Duration,
    #[serde(default = "sixteen")]
    concurrency: u32,
    arms: Vec<Arm>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Arm {
    name: String,
    /// Flags of `clipd serve`, after those of the command line.
    #[serde(default)]
    serve: Vec<String>,
    #[serde(default = "images")]
    workload: Workload,
    #[serde(default = "once")]
    repeat_texts: usize,
}

fn three() -> usize {
    3
}

fn once() -> usize {
    1
}

fn sixteen() -> u32 {
    16
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

fn images() -> Workload {
    Workload::Images
}

fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    crate::config::bench::duration(&text).map_err(serde::de::Error::custom)
}

/// A server with its requests.
struct Station {
    arm: Arm,
    server: usize,
    generator: Generator,
    calls: Arc<[Call]>,
    embeddings: Vec<Vec<f32>>,
    rounds: Vec<Round>,
    runs: String,
}

struct Round {
    answered_per_second: f64,
    failed: u64,
    p50: Option<f64>,
    cpu_seconds_per_thousand: f64,
}

pub(super) async fn run(flags: &BenchFlags, file: &Path, progress: &Progress) -> Result<Comparison, Error> {
    let scenario = Scenario::read(file)?;
    let inputs = Inputs::load(flags)?;
    let mut servers: Vec<(Vec<String>, Target)> = Vec::new();
    let mut stations = Vec::new();
    for arm in &scenario.arms {
        let arguments: Vec<String> = SERVE
            .map(str::to_owned)
            .into_iter()
            .chain(flags.serve.iter().chain(&arm.serve).cloned())
            .collect();
        let running = servers.iter().position(|(known, _)| *known == arguments);
        let server = match running {
            Some(server) => server,
            None => {
                progress.step(&format!("{}: starting the server", arm.name));
                let target = Target::start(&arguments).await?;
                servers.push((arguments, target));
                servers.len() - 1
            }
        };
        stations.push(Station::open(flags, arm, server, &servers[server].1, &inputs).await?);
    }
    for round in 1..=scenario.rounds {
        for station in &mut stations {
            progress.step(&format!("round {round} of {}: {}", scenario.rounds, station.arm.name));
            station.measure(&scenario, &servers[station.server].1, flags.requests as usize, progress).await?;
        }
    }
    Ok(Comparison::new(scenario.title, scenario.rounds, scenario.concurrency, measured(&stations)))
}

impl Scenario {
    fn read(file: &Path) -> Result<Scenario, Error> {
        let scenario = text_of(file, MAX_SCENARIO_BYTES)
            .and_then(|text| toml::from_str::<Scenario>(&text).map_err(|error| error.to_string()))
            .and_then(Scenario::checked);
        scenario.map_err(|reason| Error::Other(format!("{}: {reason}", file.display())))
    }

    fn checked(self) -> Result<Scenario, String> {
        let within = |field: &str, value: usize, most: usize| match value {
            value if (1..=most).contains(&value) => Ok(()),
            value => Err(format!("{field} is {value}, must be from 1 to {most}")),
        };
        within("the number of arms", self.arms.len(), MAX_ARMS)?;
        within("rounds", self.rounds, MAX_ROUNDS)?;
        within("concurrency", self.concurrency as usize, 1024)?;
        for arm in &self.arms {
            within(&format!("repeat_texts of {:?}", arm.name), arm.repeat_texts, 100)?;
        }
        Ok(self)
    }
}

impl Station {
    async fn open(
        flags: &BenchFlags,
        arm: &Arm,
        server: usize,
        target: &Target,
        inputs: &Inputs,
    ) -> Result<Station, Error> {
        let (generator, Server { client, model, .. }) = connect(flags, target).await?;
        let calls: Arc<[Call]> = inputs.repeated(arm.repeat_texts).calls(arm.workload, &model)?.into();
        let embeddings = embeddings(&client, &calls).await?;
        let runs = format!("{} {}", model.device, model.precision);
        Ok(Station { arm: arm.clone(), server, generator, calls, embeddings, rounds: Vec::new(), runs })
    }

    async fn measure(
        &mut self,
        scenario: &Scenario,
        target: &Target,
        requests: usize,
        progress: &Progress,
    ) -> Result<(), Error> {
        let scrape = async || match &target.metrics {
            Some(page) => Scrape::of(page).await,
            None => Err(Error::Other("a server of a scenario has metrics".to_owned())),
        };
        let before = scrape().await?;
        let bounds = Bounds { duration: scenario.duration, requests };
        let load = self.generator.closed(&self.calls, scenario.concurrency, bounds, progress).await?;
        let work = scrape().await?.since(&before, self.arm.workload.modality());
        let counts = load.counts;
        self.rounds.push(Round {
            answered_per_second: counts.answered as f64 / load.elapsed.as_secs_f64(),
            failed: counts.sent - counts.answered,
            p50: counts.latency.p50,
            cpu_seconds_per_thousand: work.cpu_seconds * 1000.0 / counts.sent.max(1) as f64,
        });
        Ok(())
    }

    /// To the answers of `first`, if they are to the same requests.
    fn fidelity(&self, first: &Station) -> Option<Fidelity> {
        let same = self.arm.workload == first.arm.workload && self.arm.repeat_texts == first.arm.repeat_texts;
        if !same || self.embeddings.is_empty() {
            return None;
        }
        let pairs = self.embeddings.iter().zip(&first.embeddings);
        let cosines: Vec<f64> = pairs.map(|(ours, theirs)| f64::from(dot(ours, theirs))).collect();
        Some(Fidelity {
            mean: cosines.iter().sum::<f64>() / cosines.len() as f64,
            min: cosines.into_iter().fold(f64::INFINITY, f64::min),
        })
    }
}

/// Ratios are taken round by round: what slows a whole round down does not show in them.
fn measured(stations: &[Station]) -> Vec<Measured> {
    let Some(first) = stations.first() else { return Vec::new() };
    let arm = |station: &Station| {
        let of = |value: &dyn Fn(&Round) -> f64| Spread::of(station.rounds.iter().map(value).collect());
        let ratios = station.rounds.iter().zip(&first.rounds);
        let ratios = ratios.map(|(ours, theirs)| ours.answered_per_second / theirs.answered_per_second);
        let alike = stations.iter().find(|other| other.arm.workload == station.arm.workload);
        Measured {
            name: station.arm.name.clone(),
            runs: station.runs.clone(),
            workload: station.arm.workload,
            answered_per_second: of(&|round| round.answered_per_second),
            of_first: Spread::of(ratios.collect()),
            p50_ms: Spread::of(station.rounds.iter().filter_map(|round| round.p50).collect()),
            cpu_seconds_per_thousand: of(&|round| round.cpu_seconds_per_thousand),
            failed: station.rounds.iter().map(|round| round.failed).sum(),
            fidelity: alike.and_then(|alike| station.fidelity(alike)),
        }
    };
    stations.iter().map(arm).collect()
}

/// Unit vectors, one for each of the first requests; none for classifications.
async fn embeddings(client: &Client, calls: &[Call]) -> Result<Vec<Vec<f32>>, Error> {
    let mut client = client.clone();
    let mut embeddings = Vec::new();
    for call in calls.iter().take(COMPARED) {
        let Call::Embed(request) = call.clone() else { break };
        let failed = |reason: String| Error::Other(format!("an input to be compared: {reason}"));
        let answer = client.embed(request).await.map_err(|status| failed(status.message().to_owned()))?;
        match answer.into_inner().results.pop().and_then(|result| result.result) {
            Some(embed_result::Result::Embedding(mut embedding)) => {
                normalize(&mut embedding.values).map_err(|error| failed(error.to_string()))?;
                embeddings.push(embedding.values);
            }
            Some(embed_result::Result::Error(error)) => return Err(failed(error.message)),
            None => return Err(failed("no result".to_owned())),
        }
    }
    Ok(embeddings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_is_read_with_its_defaults() {
        let scenario: Scenario = toml::from_str(
            "title = 't'\nduration = '2s'\n[[arms]]\nname = 'a'\n[[arms]]\nname = 'b'\nworkload = 'texts'\n",
        )
        .unwrap();
        let scenario = scenario.checked().unwrap();
        assert_eq!((scenario.rounds, scenario.concurrency), (3, 16));
        assert_eq!(scenario.duration, Duration::from_secs(2));
        assert_eq!(scenario.arms[0].workload, Workload::Images);
        assert_eq!((scenario.arms[1].workload, scenario.arms[1].repeat_texts), (Workload::Texts, 1));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |text: &str, expected: &str| {
            let error = toml::from_str::<Scenario>(text)
                .map_err(|error| error.to_string())
                .and_then(Scenario::checked)
                .unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check("title = 't'\narms = []", "the number of arms is 0");
        check("title = 't'\nrounds = 0\n[[arms]]\nname = 'a'", "rounds is 0");
        check("title = 't'\nduration = 'soon'\n[[arms]]\nname = 'a'", "duration");
        check("title = 't'\n[[arms]]\nname = 'a'\nflags = []", "flags");
        check("title = 't'\n[[arms]]\nname = 'a'\nrepeat_texts = 0", "repeat_texts of \"a\" is 0");
    }
}
