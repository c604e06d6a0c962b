//! Figures in the shape of clip_benchmark's result files, which its `build` makes tables of, and lines in JSON.
//!
//! The suite's keys are at the top; what it has no key for is under `clipd`. That becomes one cell of the suite's
//! table, so what there is for each class is among the lines.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Serialize;

use super::{CLOSE, Report};
use crate::eval::about::About;
use crate::eval::compare::Comparison;
use crate::eval::measure::Figure;
use crate::eval::numbers::Interval;
use crate::eval::task::Query;
use crate::eval::zeroshot;

#[derive(Serialize)]
pub(super) struct Figures<'a> {
    dataset: &'a str,
    model: &'a str,
    /// Where the suite has the name of a checkpoint.
    pretrained: String,
    task: &'static str,
    /// What the suite has as NaN is null: JSON has none.
    metrics: BTreeMap<&'a str, Option<f64>>,
    language: &'static str,
    clipd: Details<'a>,
}

#[derive(Serialize)]
struct Details<'a> {
    server: &'a About,
    pictures: usize,
    captions: usize,
    figures: &'a [Figure],
    /// Queries whose best right and best wrong scores are nearer than `close_margin`.
    close: usize,
    close_margin: f32,
    truncated_texts: usize,
    left_out: LeftOut<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<&'a Comparison>,
}

/// The line of a class.
#[derive(Serialize)]
struct Class<'a> {
    class: &'a str,
    pictures: usize,
    /// The share that is right at first, which is the recall, and among the first five.
    acc1: Option<f64>,
    acc1_interval: Option<Interval>,
    acc5: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    average_precision: Option<f64>,
}

#[derive(Serialize)]
struct LeftOut<'a> {
    count: usize,
    /// Names and reasons.
    first: &'a [(String, String)],
}

pub(super) fn figures<'a>(report: &'a Report<'_>, figures: &'a [Figure]) -> Figures<'a> {
    let about = &report.run.about;
    let first = report.problems.first.as_slice();
    Figures {
        dataset: report.job.name(),
        model: &about.model,
        pretrained: format!("clipd {} {}", about.precision, about.fingerprint),
        task: report.job.task(),
        metrics: figures.iter().map(|figure| (figure.name.as_str(), figure.value)).collect(),
        language: "en",
        clipd: Details {
            server: about,
            pictures: report.kept.pictures.len(),
            captions: report.kept.texts.len(),
            figures,
            close: report.close(),
            close_margin: CLOSE,
            truncated_texts: report.run.texts.truncated.len(),
            left_out: LeftOut { count: report.problems.count, first: &first[..first.len().min(LEFT_OUT)] },
            against: report.comparison.as_ref(),
        },
    }
}

/// Inputs that are named among the figures; the lines have more.
const LEFT_OUT: usize = 100;

/// One query. What was left out has its name and its error alone.
#[derive(Serialize)]
struct Line {
    input: String,
    kind: &'static str,
    right: Vec<String>,
    prediction: String,
    /// Probability of a class; cosine of a caption or a picture.
    score: f32,
    /// Of the best right answer, from 1; 0: there is none.
    rank: usize,
    /// The best right score less the best wrong one; null: there is no right answer.
    margin: Option<f32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
}

pub(super) fn lines(report: &Report<'_>, file: &mut impl Write) -> std::io::Result<()> {
    let job = report.job;
    for line in &report.evaluated.lines {
        let (kind, truncated) = match line.query {
            Query::Picture(_) => ("picture", false),
            Query::Text(text) => ("caption", report.run.texts.truncated.contains(&text)),
        };
        let line = Line {
            input: job.query_name(line.query),
            kind,
            right: job.right_names(line.query),
            prediction: job.answer_name(line.query, line.first),
            score: line.score,
            rank: line.rank,
            margin: line.margin.is_finite().then_some(line.margin),
            truncated,
        };
        write_line(file, &line)?;
    }
    let share = |hits: usize, of: usize| (of > 0).then(|| hits as f64 / of as f64);
    for group in &report.evaluated.groups {
        let class = Class {
            class: &group.name,
            pictures: group.inputs,
            acc1: share(group.hits, group.inputs),
            acc1_interval: zeroshot::interval(group),
            acc5: share(group.hits_of_five, group.inputs),
            average_precision: group.average_precision,
        };
        write_line(file, &class)?;
    }
    for (name, reason) in &report.problems.first {
        write_line(file, &serde_json::json!({"input": name, "error": reason}))?;
    }
    Ok(())
}

fn write_line(file: &mut impl Write, line: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer(&mut *file, line)?;
    writeln!(file)
}
