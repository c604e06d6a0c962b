//! The report as one page that needs nothing else: no script, no file, no network.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::insight::{self, Bin};
use super::{Report, table, thumbnail};
use crate::eval::data::{Truth, Zeroshot};
use crate::eval::job::Job;
use crate::eval::measure::Figure;
use crate::eval::task::{Group, Line, Query};

/// Rows and pictures of each part.
const ROWS: usize = 40;
const PICTURES: usize = 24;

pub(super) fn page(report: &Report<'_>, figures: &[Figure]) -> String {
    let about = &report.run.about;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { "clipd eval: " (report.job.name()) }
                style { (PreEscaped(include_str!("page.css"))) }
            }
            body {
                h1 { "clipd eval: " (report.job.name()) }
                p {
                    strong { (about.model) " in " (about.precision) " on " (about.device) } br;
                    (about.engine) ", clipd " (about.server_version) ", fingerprint " (about.fingerprint) br;
                    (report.kept.pictures.len()) " pictures"
                    @if !report.kept.texts.is_empty() { ", " (report.kept.texts.len()) " captions" }
                }
                (rows(&table::figure_rows(report, figures)))
                @if let Some(comparison) = &report.comparison {
                    h2 {
                        "Against " (comparison.with.model) " in " (comparison.with.precision) " on "
                        (comparison.with.device)
                    }
                    .wide { (rows(&table::difference_rows(comparison))) }
                    ul { @for note in table::notes(comparison) { li { (note) } } }
                }
                @match report.job {
                    Job::Zeroshot(data) => (classes(report, data)),
                    Job::Retrieval { .. } => (queries(report)),
                }
                @if report.problems.count > 0 {
                    h2 { (report.problems.count) " inputs were left out" }
                    ul {
                        @for (name, reason) in report.problems.first.iter().take(ROWS) {
                            li { (name) ": " (reason) }
                        }
                    }
                }
            }
        }
    };
    page.into_string()
}

fn classes(report: &Report<'_>, data: &Zeroshot) -> Markup {
    let lines = &report.evaluated.lines;
    let mut wrong: Vec<&Line> = lines.iter().filter(|line| line.rank != 1).collect();
    wrong.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut uncertain: Vec<&Line> = lines.iter().collect();
    uncertain.sort_by(|a, b| a.margin.abs().total_cmp(&b.margin.abs()));
    let bins = insight::calibration(lines);
    let templates = match &report.run.prompts {
        Some(prompts) => {
            insight::templates(report.job, prompts, &report.run.images.matrix, &report.kept.pictures)
        }
        None => Vec::new(),
    };
    html! {
        @if let Truth::One(truth) = &data.truth {
            h2 { "Classes that are taken for others" }
            (confused(truth, data, lines))
        }
        h2 { "Wrong, and sure of it" }
        (strip(report, &wrong))
        h2 { "Uncertain" }
        p { "The best right class and the best wrong one are nearest here." }
        (strip(report, &uncertain))
        h2 { "Calibration" }
        p {
            "How often an answer is right, by its probability. The mean distance of the two is "
            (format!("{:.3}", insight::calibration_error(&bins))) "."
        }
        (calibration(&bins))
        h2 { "Classes, the worst first" }
        (worst(&report.evaluated.groups))
        @if !templates.is_empty() {
            h2 { "Templates, each alone" }
            p { "acc1 on " (report.kept.pictures.len().min(insight::SAMPLE)) " pictures or fewer." }
            table {
                @for (template, share) in templates {
                    tr { td { (template) } td { (bar(share)) } td { (table::share(Some(share))) } }
                }
            }
        }
    }
}

fn confused(truth: &[u32], data: &Zeroshot, lines: &[Line]) -> Markup {
    let name = |class: usize| &data.classes[class];
    let confusions = insight::confusions(truth, lines);
    html! {
        table {
            thead { tr { th { "class" } th { "taken for" } th { "pictures" } } }
            @for confusion in confusions.iter().take(ROWS) {
                tr { td { (name(confusion.right)) } td { (name(confusion.taken_for)) } td { (confusion.count) } }
            }
        }
    }
}

fn calibration(bins: &[Bin]) -> Markup {
    html! {
        table {
            thead { tr { th { "probability" } th { "right" } th {} th { "answers" } } }
            @for bin in bins.iter().filter(|bin| bin.answers > 0) {
                tr {
                    td { (table::share(Some(bin.mean_probability))) }
                    td { (bar(bin.share_right)) }
                    td { (table::share(Some(bin.share_right))) }
                    td { (bin.answers) }
                }
            }
        }
    }
}

fn worst(groups: &[Group]) -> Markup {
    let share = |group: &Group| match group.average_precision {
        Some(precision) => precision,
        None => group.hits as f64 / group.inputs as f64,
    };
    let mut groups: Vec<&Group> = groups.iter().filter(|group| group.inputs > 0).collect();
    groups.sort_by(|a, b| share(a).total_cmp(&share(b)));
    html! {
        table {
            thead { tr { th { "class" } th { "right, or average precision" } th {} th { "pictures" } } }
            @for group in groups.iter().take(ROWS) {
                tr {
                    td { (group.name) }
                    td { (bar(share(group))) }
                    td { (table::share(Some(share(group)))) }
                    td { (group.inputs) }
                }
            }
        }
    }
}

/// The queries whose right answer came last, with what came first.
fn queries(report: &Report<'_>) -> Markup {
    let worst = |of: fn(&Query) -> bool| {
        let mut lines: Vec<&Line> = report.evaluated.lines.iter().filter(|line| of(&line.query)).collect();
        lines.sort_by_key(|line| std::cmp::Reverse(line.rank));
        lines.truncate(PICTURES);
        lines
    };
    let pictures = report.job.pictures();
    let captions = worst(|query| matches!(query, Query::Text(_)));
    let picture_of = |line: &Line| match report.job {
        Job::Retrieval { data, .. } => data.picture_of[line.query.position()] as usize,
        Job::Zeroshot(_) => line.first,
    };
    html! {
        h2 { "Captions whose picture came last" }
        table {
            thead { tr { th { "caption" } th { "its picture" } th { "rank" } th { "what came first" } } }
            @for line in captions {
                tr {
                    td { (report.job.query_name(line.query)) }
                    td { (picture(&pictures[picture_of(line)])) }
                    td { (line.rank) }
                    td { (picture(&pictures[line.first])) }
                }
            }
        }
        h2 { "Pictures whose captions came last" }
        (strip(report, &worst(|query| matches!(query, Query::Picture(_)))))
    }
}

fn strip(report: &Report<'_>, lines: &[&Line]) -> Markup {
    let pictures = report.job.pictures();
    html! {
        .strip {
            @for line in lines.iter().take(PICTURES) {
                @let right = report.job.right_names(line.query);
                figure {
                    (picture(&pictures[line.query.position()]))
                    figcaption {
                        @if line.rank != 1 {
                            span { (report.job.answer_name(line.query, line.first)) }
                            (format!(" {:.3}", line.score)) br;
                            (right.first().map_or("no class", String::as_str)) ", rank " (line.rank)
                        } @else {
                            (report.job.answer_name(line.query, line.first)) (format!(" {:.3}", line.score))
                        }
                    }
                }
            }
        }
    }
}

fn picture(input: &crate::cli::inputs::Input) -> Markup {
    let name = input.name();
    html! {
        @match thumbnail::data(input) {
            Some(data) => img src=(data) width=(thumbnail::SIDE) height=(thumbnail::SIDE) alt=(name) title=(name);,
            None => (name),
        }
    }
}

fn bar(share: f64) -> Markup {
    html! { span.bar { i style=(format!("width: {:.1}%", share.clamp(0.0, 1.0) * 100.0)) {} } }
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
