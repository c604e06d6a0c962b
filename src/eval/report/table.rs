//! The report for a terminal.

use super::Report;
use crate::bench::text::titled;
use crate::cli::output::printable;
use crate::eval::compare::{Comparison, Cosines};
use crate::eval::measure::Figure;
use crate::eval::numbers::Interval;

/// Changed inputs that are printed.
const CHANGED: usize = 10;

pub(super) fn text(report: &Report<'_>, figures: &[Figure]) -> String {
    let mut parts = vec![titled("FIGURES", &figure_rows(report, figures))];
    if let Some(comparison) = &report.comparison {
        let with = &comparison.with;
        let title = format!("AGAINST {} in {} on {}", with.model, with.precision, with.device);
        parts.push(titled(&title, &difference_rows(comparison)));
        parts.push(notes(comparison).join("\n  "));
    }
    let mut counts = vec![format!("{} pictures", report.kept.pictures.len())];
    if !report.kept.texts.is_empty() {
        counts.push(format!("{} captions", report.kept.texts.len()));
    }
    if report.problems.count > 0 {
        counts.push(format!("{} LEFT OUT", report.problems.count));
    }
    match report.close() {
        0 => {}
        close => counts.push(format!("{close} answers within rounding")),
    }
    parts.push(counts.join(", "));
    parts.join("\n\n") + "\n"
}

pub(super) fn figure_rows(report: &Report<'_>, figures: &[Figure]) -> Vec<Vec<String>> {
    let expected =
        |name: &str| report.expected.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
    let mut rows = vec![["figure", "value", "95 % interval"].map(str::to_owned).to_vec()];
    rows.extend(
        figures
            .iter()
            .map(|figure| vec![figure.name.clone(), share(figure.value), interval(figure.interval)]),
    );
    if !report.expected.is_empty() {
        rows[0].extend(["expected", "difference"].map(str::to_owned));
        for (row, figure) in rows[1..].iter_mut().zip(figures) {
            let expected = expected(&figure.name);
            let difference = figure.value.zip(expected).map(|(value, expected)| value - expected);
            row.extend([share(expected), signed(difference)]);
        }
    }
    rows
}

pub(super) fn difference_rows(comparison: &Comparison) -> Vec<Vec<String>> {
    let header = ["figure", "here", "there", "difference", "95 % interval", "McNemar's p"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(comparison.figures.iter().map(|figure| {
        vec![
            figure.name.clone(),
            share(figure.here),
            share(figure.there),
            signed(figure.difference),
            interval(figure.interval),
            figure.discordant.map_or_else(dash, |discordant| format!("{:.3}", discordant.p)),
        ]
    }));
    rows
}

/// Sentences under the differences.
pub(super) fn notes(comparison: &Comparison) -> Vec<String> {
    let share = comparison.changed as f64 / comparison.queries.max(1) as f64 * 100.0;
    let mut notes =
        vec![format!("{} of {} answers changed ({share:.2} %)", comparison.changed, comparison.queries)];
    let cosines = |of: &str, cosines: Option<Cosines>| {
        let Cosines { min, p001, p01, median } = cosines?;
        Some(format!("cosines of {of}: median {median:.6}, 1 % {p01:.6}, 0.1 % {p001:.6}, least {min:.6}"))
    };
    notes.extend(cosines("pictures", comparison.picture_cosines));
    notes.extend(cosines("classes or captions", comparison.text_cosines));
    notes.extend(comparison.most_changed.iter().take(CHANGED).map(|change| {
        let right = change.right.first().map_or("none", String::as_str);
        printable(&format!("{}: {} here, {} there; right: {right}", change.input, change.here, change.there))
    }));
    notes
}

/// Four digits: the suite's tables have as many.
pub(super) fn share(value: Option<f64>) -> String {
    value.map_or_else(dash, |value| format!("{value:.4}"))
}

fn signed(value: Option<f64>) -> String {
    value.map_or_else(dash, |value| format!("{value:+.4}"))
}

pub(super) fn interval(interval: Option<Interval>) -> String {
    interval.map_or_else(dash, |[low, high]| format!("{low:.4} to {high:.4}"))
}

fn dash() -> String {
    "-".to_owned()
}
