//! The report as one page that needs nothing else: no script, no file, no network.

use maud::{DOCTYPE, Markup, html};

use super::chart::{self, Mark, Series};
use super::{Arrivals, BenchReport, LoadReport, Service, table};
use crate::bench::ceiling::Ceiling;
use crate::bench::recommend::Recommendation;
use crate::bench::text::number;

pub(in crate::bench) fn page(report: &BenchReport) -> String {
    let [model, machine] = report.environment.lines();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { "clipd bench: " (report.environment.model) }
                style { (chart::style()) }
            }
            body {
                h1 { "clipd bench" }
                p { strong { (model) } br; (machine) }
                @if !report.warnings.is_empty() {
                    h2 { "Bear in mind" }
                    ul { @for warning in &report.warnings { li { (warning) } } }
                }
                @for service in &report.services { (workload(service, report)) }
                @if let Some(ceiling) = &report.ceiling { (engine(ceiling)) }
                @if let Some(recommendation) = &report.recommendation { (recommended(recommendation)) }
            }
        }
    };
    page.into_string()
}

fn workload(service: &Service, report: &BenchReport) -> Markup {
    let ceiling = report.ceiling.as_ref().and_then(|ceiling| ceiling.of(service.workload));
    html! {
        h2 { (service.workload.name()) }
        @if let (Some(share), Some(ceiling)) = (service.of_ceiling, ceiling) {
            p {
                "The server's best, " strong { (number(service.best_per_second)) "/s" } ", is "
                strong { (format!("{share:.2}")) } " of the ceiling, " (number(ceiling.rows_per_second)) "/s: "
                (report.environment.cores) " cores / (" (millis(ceiling.engine_cpu_seconds_per_row.median))
                " engine + " (millis(ceiling.preprocess_cpu_seconds_per_row.median)) " preprocessing)."
                @if let Some(share) = service.of_cpu {
                    " Of the server's CPU time, " strong { (format!("{share:.2}")) } " is what these two need."
                }
            }
            (chart::gauge(share))
        }
        h3 { "Latency over throughput" }
        (latency(service, ceiling.map(|ceiling| ceiling.rows_per_second)))
        p {
            "Lines: open loops, over the rate offered, from when a request was meant to be sent. Circles: closed "
            "loops, over the rate answered."
        }
        .wide { (rows(&table::load_rows(service))) }
        @if service.loads.iter().any(|load| !load.batch_shares().is_empty()) {
            h3 { "Batches by their rows, in percent" }
            .figures {
                @for load in &service.loads {
                    figure {
                        (chart::bars(&load.batch_shares()))
                        figcaption { (load.arrivals) }
                    }
                }
            }
        }
    }
}

fn latency(service: &Service, ceiling: Option<f64>) -> Markup {
    let is_closed = |load: &&LoadReport| matches!(load.arrivals, Arrivals::Closed { .. });
    let (closed, mut open): (Vec<&LoadReport>, Vec<&LoadReport>) = service.loads.iter().partition(is_closed);
    let rate = |load: &LoadReport| load.offered_per_second.unwrap_or(load.answered_per_second);
    open.sort_by(|a, b| rate(a).total_cmp(&rate(b)));
    let points = |loads: &[&LoadReport], value: fn(&LoadReport) -> Option<f64>| {
        let point = |load: &&LoadReport| {
            let millis = value(load)?;
            Some((rate(load), millis, format!("{}: {} ms", load.arrivals, number(millis))))
        };
        loads.iter().filter_map(point).collect()
    };
    let median = |load: &LoadReport| load.counts.latency.p50;
    // Few requests have no 99th percentile.
    let has_p99 = open.iter().any(|load| load.counts.latency.p99.is_some());
    let (name, tail): (_, fn(&LoadReport) -> Option<f64>) = match has_p99 {
        true => ("p99", |load| load.counts.latency.p99),
        false => ("p90", |load| load.counts.latency.p90),
    };
    let series = [
        Series { name: "closed, p50", class: "closed", points: points(&closed, median) },
        Series { name: "p50", class: "median", points: points(&open, median) },
        Series { name, class: "tail", points: points(&open, tail) },
    ];
    let mark = ceiling.map(|x| Mark { x, name: "ceiling" });
    chart::curves(&series, mark.as_ref(), ["requests per second", "milliseconds"])
}

fn engine(ceiling: &Ceiling) -> Markup {
    html! {
        h2 { "Engine" }
        p {
            "Rows per second by batch size, without a server: median (min-max) of " (ceiling.rounds) " rounds."
        }
        .wide { (rows(&table::engine_rows(ceiling))) }
    }
}

fn recommended(recommendation: &Recommendation) -> Markup {
    html! {
        h2 { "Recommended" }
        p { code { "clipd serve " (recommendation.flags) } }
        ul { @for reason in &recommendation.reasons { li { (reason) } } }
    }
}

/// The first row is the header.
fn rows(rows: &[Vec<String>]) -> Markup {
    let (header, rows) = rows.split_at(rows.len().min(1));
    html! {
        table {
            thead { @for row in header { tr { @for cell in row { th { (cell) } } } } }
            tbody { @for row in rows { tr { @for cell in row { td { (cell) } } } } }
        }
    }
}

fn millis(seconds: f64) -> String {
    format!("{} ms", number(seconds * 1e3))
}
