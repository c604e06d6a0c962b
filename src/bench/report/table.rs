//! The report as text, for a terminal.

use super::{BenchReport, LoadReport, Service};
use crate::bench::ceiling::{Ceiling, Point};
use crate::bench::text::{dash, number, range, titled};

pub(in crate::bench) fn text(report: &BenchReport) -> String {
    let mut sections = vec![report.environment.lines().join("\n")];
    if let Some(ceiling) = &report.ceiling {
        let title = format!("ENGINE by batch size, rows/s: median (min-max) of {} rounds", ceiling.rounds);
        sections.extend([titled(&title, &engine_rows(ceiling)), ceilings(ceiling)]);
    }
    for service in &report.services {
        sections.push(loads(service, report.environment.slo_seconds));
        sections.extend(batches(service));
    }
    if let Some(recommendation) = &report.recommendation {
        let reasons = recommendation.reasons.iter().map(|reason| format!("  {reason}\n"));
        let reasons: String = reasons.collect();
        sections.push(format!("RECOMMENDED  clipd serve {}\n{}", recommendation.flags, reasons.trim_end()));
    }
    if !report.warnings.is_empty() {
        let warnings: String = report.warnings.iter().map(|warning| format!("  {warning}\n")).collect();
        sections.push(format!("BEAR IN MIND\n{}", warnings.trim_end()));
    }
    sections.join("\n\n") + "\n"
}

/// A row per layout and modality, a column per batch size.
pub(super) fn engine_rows(ceiling: &Ceiling) -> Vec<Vec<String>> {
    let mut sizes: Vec<usize> = ceiling.engine.iter().map(|point| point.batch_size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let mut rows = vec![vec!["workers x threads".to_owned(), "rows".to_owned()]];
    rows[0].extend(sizes.iter().map(ToString::to_string));
    let same = |a: &Point, b: &Point| a.layout == b.layout && a.modality == b.modality;
    for line in ceiling.engine.chunk_by(same) {
        let layout = line[0].layout;
        let mut row =
            vec![format!("{} x {}", layout.workers, layout.threads), format!("{}s", line[0].modality)];
        row.extend(sizes.iter().map(|size| {
            let point = line.iter().find(|point| point.batch_size == *size);
            point.map_or_else(dash, |point| range(point.rows_per_second, 1.0))
        }));
        rows.push(row);
    }
    rows
}

fn ceilings(ceiling: &Ceiling) -> String {
    let header = ["workload", "best batch", "engine ms", "preprocess ms", "ceiling/s"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for workload in &ceiling.workloads {
        rows.push(vec![
            workload.workload.name().to_owned(),
            workload.best_batch_size.to_string(),
            range(workload.engine_cpu_seconds_per_row, 1e3),
            range(workload.preprocess_cpu_seconds_per_row, 1e3),
            number(workload.rows_per_second),
        ]);
    }
    let cores = ceiling.cores;
    titled(&format!("CEILING = {cores} cores / (engine + preprocess), CPU milliseconds per row"), &rows)
}

fn loads(service: &Service, slo_seconds: f64) -> String {
    let workload = service.workload.name().to_uppercase();
    let best = number(service.best_per_second);
    let share = service.of_ceiling.map_or_else(String::new, |share| format!(" = {share:.2} of the ceiling"));
    let cpu = service.of_cpu.map_or_else(String::new, |share| {
        format!("; of the server's CPU time, {share:.2} is what engine + preprocess need")
    });
    let notes = format!("  latency in ms; good: OK within {:.0} ms", slo_seconds * 1e3);
    format!("{workload}  best {best}/s{share}{cpu}\n{}", titled(&notes, &load_rows(service)))
}

/// A row per load.
pub(super) fn load_rows(service: &Service) -> Vec<Vec<String>> {
    let header = [
        "load",
        "offered/s",
        "OK/s",
        "good/s",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "shed",
        "expired",
        "failed",
        "CPU s/1000",
        "generator",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(service.loads.iter().map(load));
    rows
}

fn load(load: &LoadReport) -> Vec<String> {
    let counts = &load.counts;
    let optional = |value: Option<f64>| value.map_or_else(dash, number);
    let server = load.server.as_ref().and_then(|server| load.per_thousand(server.cpu_seconds));
    let generator = load.per_thousand(load.generator_cpu_seconds);
    let latency = &counts.latency;
    vec![
        load.arrivals.to_string(),
        optional(load.offered_per_second),
        number(load.answered_per_second),
        number(load.good_per_second),
        optional(latency.p50),
        optional(latency.p90),
        optional(latency.p99),
        optional(latency.p999),
        counts.shed.to_string(),
        counts.expired.to_string(),
        counts.failed.values().sum::<u64>().to_string(),
        optional(server),
        optional(generator),
    ]
}

/// Shares of batch sizes; none where the server's metrics are not known.
fn batches(service: &Service) -> Option<String> {
    let shares: Vec<_> = service.loads.iter().map(LoadReport::batch_shares).collect();
    let longest = shares.iter().max_by_key(|shares| shares.len()).filter(|shares| !shares.is_empty())?;
    let mut rows = vec![vec!["load".to_owned(), "mean".to_owned()]];
    rows[0].extend(longest.iter().map(|(bucket, _)| bucket.clone()));
    for (load, shares) in service.loads.iter().zip(&shares) {
        let mean = load.mean_batch().map_or_else(dash, |mean| format!("{mean:.1}"));
        let mut row = vec![load.arrivals.to_string(), mean];
        row.extend(shares.iter().map(|(_, share)| format!("{:.0} %", share * 100.0)));
        row.resize(rows[0].len(), "0 %".to_owned());
        rows.push(row);
    }
    Some(titled("batches by their rows", &rows))
}
