//! What was measured, in the shape of the JSON file; [`table`] and [`html`] show the same.
//!
//! The JSON file is one [`BenchReport`]. Names say their unit: `_seconds`, `_per_second`, `_ms`. A number that is not
//! known is null: a percentile of too few requests, the server's part when its metrics cannot be read. `schema` is
//! raised when a name changes its meaning or goes.

mod chart;
pub(super) mod comparison;
pub(super) mod html;
pub(super) mod table;
mod warnings;

use std::fmt;

use serde::Serialize;

use super::ceiling::{Ceiling, WorkloadCeiling};
use super::machine;
use super::recommend::Recommendation;
use super::scrape::Work;
use super::tally::Counts;
use crate::config::bench::{BenchFlags, Workload};
use crate::grpc::proto::GetModelResponse;

const SCHEMA: u32 = 1;

#[derive(Debug, Serialize)]
pub(super) struct BenchReport {
    schema: u32,
    environment: Environment,
    /// Null for a server of which only the address is known.
    ceiling: Option<Ceiling>,
    /// One per workload.
    services: Vec<Service>,
    recommendation: Option<Recommendation>,
    /// What to bear in mind when reading the numbers.
    warnings: Vec<String>,
}

/// Where it was measured, and with what.
#[derive(Debug, Serialize)]
pub(super) struct Environment {
    /// Version of the bench.
    clipd: &'static str,
    /// Version of the server.
    server: String,
    model: String,
    fingerprint: String,
    device: String,
    precision: String,
    /// Inference library and version.
    engine: String,
    /// Of this machine. The server may run on another.
    cpu: Option<String>,
    cores: usize,
    /// Those after `--`.
    serve_flags: Vec<String>,
    /// `null`: started by the bench.
    address: Option<String>,
    slo_seconds: f64,
    seed: u64,
    connections: u32,
}

/// A workload against the server.
#[derive(Debug, Serialize)]
pub(super) struct Service {
    workload: Workload,
    /// Most answers per second of any load.
    best_per_second: f64,
    /// As a share of the ceiling.
    of_ceiling: Option<f64>,
    /// What engine and preprocessing need for a row, as a share of the server's CPU time per request at its best
    /// rate. Unlike the share of the ceiling it hardly depends on what else the machine does.
    of_cpu: Option<f64>,
    loads: Vec<LoadReport>,
}

#[derive(Debug, Serialize)]
pub(super) struct LoadReport {
    #[serde(flatten)]
    pub(super) arrivals: Arrivals,
    /// As planned; null for a closed loop.
    pub(super) offered_per_second: Option<f64>,
    /// From the first request to the last outcome, or to the end of the plan.
    pub(super) seconds: f64,
    pub(super) answered_per_second: f64,
    /// Answers within the SLO.
    pub(super) good_per_second: f64,
    #[serde(flatten)]
    pub(super) counts: Counts,
    pub(super) generator_cpu_seconds: f64,
    /// Of the machine, by everything but server and generator.
    pub(super) other_cpu_seconds: Option<f64>,
    pub(super) server: Option<Work>,
}

/// How requests came.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub(super) enum Arrivals {
    Closed { concurrency: u32 },
    Poisson { rate: f64 },
    Ramp { from: f64, to: f64 },
    Trace,
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Arrivals::Closed { concurrency } => write!(f, "closed x {concurrency}"),
            Arrivals::Poisson { rate } => write!(f, "poisson {rate:.1}/s"),
            Arrivals::Ramp { from, to } => write!(f, "ramp {from:.1}-{to:.1}/s"),
            Arrivals::Trace => f.write_str("trace"),
        }
    }
}

impl BenchReport {
    pub(super) fn new(
        environment: Environment,
        ceiling: Option<Ceiling>,
        services: Vec<Service>,
        recommendation: Option<Recommendation>,
    ) -> BenchReport {
        let warnings = warnings::of(environment.cores, &services);
        BenchReport { schema: SCHEMA, environment, ceiling, services, recommendation, warnings }
    }
}

impl Environment {
    pub(super) fn new(flags: &BenchFlags, model: &GetModelResponse) -> Environment {
        Environment {
            clipd: env!("CARGO_PKG_VERSION"),
            server: model.server_version.clone(),
            model: model.name.clone(),
            fingerprint: model.fingerprint.clone(),
            device: model.device.clone(),
            precision: model.precision.clone(),
            engine: model.engine.clone(),
            cpu: machine::cpu_model(),
            cores: machine::cores().get(),
            serve_flags: flags.serve.clone(),
            address: flags.addr.as_ref().map(ToString::to_string),
            slo_seconds: flags.slo.as_secs_f64(),
            seed: flags.seed,
            connections: flags.connections,
        }
    }

    /// Two lines for a person.
    fn lines(&self) -> [String; 2] {
        let Environment { model, device, precision, engine, server, .. } = self;
        let cpu = self.cpu.as_deref().unwrap_or("a CPU of unknown name");
        let started = match &self.address {
            Some(address) => format!("server at {address}"),
            None => format!("flags of serve: {}", or_none(&self.serve_flags.join(" "))),
        };
        [
            format!("{model} on {device} in {precision} ({engine}), clipd {server}"),
            format!("{cpu}, {} cores; {started}", self.cores),
        ]
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

impl Service {
    pub(super) fn new(
        workload: Workload,
        loads: Vec<LoadReport>,
        ceiling: Option<&WorkloadCeiling>,
    ) -> Service {
        let best = loads.iter().max_by(|a, b| a.answered_per_second.total_cmp(&b.answered_per_second));
        let best_per_second = best.map_or(0.0, |best| best.answered_per_second);
        let of_ceiling = ceiling.map(|ceiling| best_per_second / ceiling.rows_per_second);
        let spent = best.and_then(|best| best.per_thousand(best.server.as_ref()?.cpu_seconds));
        let of_cpu = ceiling.zip(spent).map(|(ceiling, spent)| {
            let needed =
                ceiling.engine_cpu_seconds_per_row.median + ceiling.preprocess_cpu_seconds_per_row.median;
            needed * 1000.0 / spent
        });
        Service { workload, best_per_second, of_ceiling, of_cpu, loads }
    }
}

impl LoadReport {
    /// CPU seconds of `seconds`, per 1,000 requests that were sent.
    fn per_thousand(&self, seconds: f64) -> Option<f64> {
        (self.counts.sent > 0).then(|| seconds * 1000.0 / self.counts.sent as f64)
    }

    fn mean_batch(&self) -> Option<f64> {
        let server = self.server.as_ref()?;
        (server.batches > 0).then(|| server.rows as f64 / server.batches as f64)
    }

    /// Each bucket's name, such as `3-4`, and its share of the batches; none that are all empty at the end.
    fn batch_shares(&self) -> Vec<(String, f64)> {
        let Some(server) = &self.server else { return Vec::new() };
        let all: u64 = server.batch_rows.iter().map(|bucket| bucket.batches).sum();
        let used = server.batch_rows.iter().rposition(|bucket| bucket.batches > 0).map_or(0, |last| last + 1);
        let mut from = 1;
        let named = server.batch_rows.iter().take(used).map(|bucket| {
            let name = match bucket.up_to {
                Some(to) if to == from => to.to_string(),
                Some(to) => format!("{from}-{to}"),
                None => format!("{from}+"),
            };
            from = bucket.up_to.map_or(from, |to| to + 1);
            (name, bucket.batches as f64 / all as f64)
        });
        named.collect()
    }
}
