//! Two runs of the same inputs: how far their figures, their answers and their embeddings are apart.

use serde::Serialize;

use super::about::About;
use super::job::{Job, Kept};
use super::measure::Difference;
use super::numbers::quantile;
use super::run::Run;
use super::task::{Evaluated, Line};
use super::{matrix::Matrix, task::Query};

/// Inputs that are listed.
const LISTED: usize = 50;

#[derive(Clone, Debug, Serialize)]
pub(super) struct Comparison {
    /// The other server.
    pub(super) with: About,
    pub(super) figures: Vec<Difference>,
    /// Queries whose first answer is another one.
    pub(super) changed: usize,
    pub(super) queries: usize,
    /// Between the two embeddings of each picture, and of each class or caption.
    pub(super) picture_cosines: Option<Cosines>,
    pub(super) text_cosines: Option<Cosines>,
    /// Those whose margin changed most.
    pub(super) most_changed: Vec<Change>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Cosines {
    pub(super) min: f64,
    pub(super) p001: f64,
    pub(super) p01: f64,
    pub(super) median: f64,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Change {
    pub(super) input: String,
    pub(super) right: Vec<String>,
    pub(super) here: String,
    pub(super) there: String,
    /// The best right score less the best wrong one.
    pub(super) margin_here: f32,
    pub(super) margin_there: f32,
}

/// Each run with what it was evaluated to, of the same inputs.
pub(super) fn compare(
    job: &Job,
    (here, run): (&Evaluated<'_>, &Run),
    (there, other): (&Evaluated<'_>, &Run),
    kept: &Kept,
) -> Comparison {
    let figures =
        here.measures.iter().zip(&there.measures).map(|(here, there)| here.against(there)).collect();
    let mut changed: Vec<(&Line, &Line)> =
        here.lines.iter().zip(&there.lines).filter(|(here, there)| here.first != there.first).collect();
    let moved = |(here, there): &(&Line, &Line)| (here.margin - there.margin).abs();
    changed.sort_by(|a, b| moved(b).total_cmp(&moved(a)));
    let change = |(here, there): &(&Line, &Line)| Change {
        input: job.query_name(here.query),
        right: job.right_names(here.query),
        here: job.answer_name(here.query, here.first),
        there: job.answer_name(there.query, there.first),
        margin_here: here.margin,
        margin_there: there.margin,
    };
    let texts: Vec<usize> = match here.lines.iter().any(|line| matches!(line.query, Query::Text(_))) {
        true => kept.texts.clone(),
        false => (0..run.texts.matrix.rows()).collect(),
    };
    Comparison {
        with: other.about.clone(),
        figures,
        changed: changed.len(),
        queries: here.lines.len(),
        picture_cosines: cosines(&run.images.matrix, &other.images.matrix, &kept.pictures),
        text_cosines: cosines(&run.texts.matrix, &other.texts.matrix, &texts),
        most_changed: changed.iter().take(LISTED).map(change).collect(),
    }
}

/// `None` where the two have no space in common.
fn cosines(here: &Matrix, there: &Matrix, rows: &[usize]) -> Option<Cosines> {
    if here.columns != there.columns || here.columns == 0 || rows.is_empty() {
        return None;
    }
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    let cosine = |row: &usize| {
        let (a, b) = (here.row(*row), there.row(*row));
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    let mut cosines: Vec<f64> = rows.iter().map(cosine).collect();
    cosines.sort_by(f64::total_cmp);
    let at = |share: f64| quantile(&cosines, share);
    Some(Cosines { min: at(0.0), p001: at(0.001), p01: at(0.01), median: at(0.5) })
}
