//! What makes a measurement less than it seems.

use super::{LoadReport, Service};
use crate::bench::plan::name;

/// A generator that is later than this share of the median latency measures itself.
const LATE: f64 = 0.01;

/// Other programs that take more of the machine than this have slowed the server.
const OTHERS: f64 = 0.05;

pub(super) fn of(cores: usize, services: &[Service]) -> Vec<String> {
    let mut warnings = Vec::new();
    for service in services {
        for load in &service.loads {
            let found = [late(load), unsent(load), failed(load), others(load, cores)];
            let found = found.into_iter().flatten();
            warnings.extend(
                found.map(|warning| format!("{}, {}: {warning}", name(service.workload), load.arrivals)),
            );
        }
    }
    warnings
}

fn late(load: &LoadReport) -> Option<String> {
    let (late, median) = load.counts.lateness.mean.zip(load.counts.latency.p50)?;
    (late > median * LATE).then(|| {
        format!(
            "the generator sent {late:.2} ms late on average, {:.0} % of the median latency, which includes it",
            100.0 * late / median
        )
    })
}

fn unsent(load: &LoadReport) -> Option<String> {
    let unsent = load.counts.unsent;
    (unsent > 0).then(|| {
        format!("{unsent} requests were not sent, as too many were without an answer; try more --connections")
    })
}

fn failed(load: &LoadReport) -> Option<String> {
    let failed: Vec<String> =
        load.counts.failed.iter().map(|(code, count)| format!("{count} {code}")).collect();
    (!failed.is_empty()).then(|| format!("failed: {}", failed.join(", ")))
}

fn others(load: &LoadReport, cores: usize) -> Option<String> {
    let share = load.other_cpu_seconds? / (load.seconds * cores as f64);
    (share > OTHERS).then(|| format!("other programs took {:.0} % of the machine", share * 100.0))
}
