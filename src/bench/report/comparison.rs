//! What a scenario measured, as a table and in the shape of the JSON file.

use serde::Serialize;

use crate::bench::ceiling::Spread;
use crate::bench::machine;
use crate::bench::text::{dash, number, range, titled};
use crate::config::bench::Workload;

#[derive(Debug, Serialize)]
pub(in crate::bench) struct Comparison {
    title: String,
    cpu: Option<String>,
    cores: usize,
    rounds: usize,
    concurrency: u32,
    arms: Vec<Arm>,
}

#[derive(Debug, Serialize)]
pub(in crate::bench) struct Arm {
    pub(in crate::bench) name: String,
    /// Device and precision.
    pub(in crate::bench) runs: String,
    pub(in crate::bench) workload: Workload,
    pub(in crate::bench) answered_per_second: Spread,
    /// Answers per second, divided by those of the first arm in the same round.
    pub(in crate::bench) of_first: Spread,
    pub(in crate::bench) p50_ms: Spread,
    /// Of the server.
    pub(in crate::bench) cpu_seconds_per_thousand: Spread,
    /// Requests without a good answer.
    pub(in crate::bench) failed: u64,
    /// To the first arm with the same requests; null for classifications.
    pub(in crate::bench) fidelity: Option<Fidelity>,
}

/// Cosines to what the first arm answered.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(in crate::bench) struct Fidelity {
    pub(in crate::bench) mean: f64,
    pub(in crate::bench) min: f64,
}

impl Comparison {
    pub(in crate::bench) fn new(
        title: String,
        rounds: usize,
        concurrency: u32,
        arms: Vec<Arm>,
    ) -> Comparison {
        let (cpu, cores) = (machine::cpu_model(), machine::cores().get());
        Comparison { title, cpu, cores, rounds, concurrency, arms }
    }

    pub(in crate::bench) fn text(&self) -> String {
        let header = [
            "arm",
            "runs",
            "sends",
            "OK/s",
            "of the first",
            "p50 ms",
            "CPU s/1000",
            "failed",
            "cosine mean",
            "min",
        ];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        rows.extend(self.arms.iter().map(|arm| {
            let cosine = |value: fn(&Fidelity) -> f64| {
                arm.fidelity.as_ref().map_or_else(dash, |fidelity| format!("{:.6}", value(fidelity)))
            };
            vec![
                arm.name.clone(),
                arm.runs.clone(),
                arm.workload.name().to_owned(),
                range(arm.answered_per_second, 1.0),
                range(arm.of_first, 1.0),
                number(arm.p50_ms.median),
                number(arm.cpu_seconds_per_thousand.median),
                arm.failed.to_string(),
                cosine(|fidelity| fidelity.mean),
                cosine(|fidelity| fidelity.min),
            ]
        }));
        let Comparison { title, cores, rounds, concurrency, .. } = self;
        let cpu = self.cpu.as_deref().unwrap_or("a CPU of unknown name");
        let arms = format!("{rounds} rounds in turns, closed x {concurrency}: median (min-max)");
        format!("{title}\n{cpu}, {cores} cores\n\n{}\n", titled(&arms, &rows))
    }
}
