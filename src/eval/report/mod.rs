//! What a run gives: a table on standard output, and on demand JSON in the suite's shape, a line for each input, and a
//! page.

mod html;
mod insight;
mod json;
mod table;
mod thumbnail;

use std::io::Write;
use std::path::Path;

use super::compare::Comparison;
use super::data::Problems;
use super::job::{Job, Kept};
use super::measure::Figure;
use super::run::Run;
use super::task::Evaluated;
use super::{Error, Verdict};
use crate::cli;
use crate::cli::complain;
use crate::cli::output::PartialFile;
use crate::config::eval::EvalFlags;

pub(super) struct Report<'a> {
    pub(super) flags: &'a EvalFlags,
    /// Figures and what they are elsewhere.
    pub(super) expected: &'a [(String, f64)],
    pub(super) job: &'a Job,
    pub(super) run: &'a Run,
    pub(super) kept: &'a Kept,
    pub(super) evaluated: &'a Evaluated<'a>,
    /// What was left out.
    pub(super) problems: &'a Problems,
    pub(super) comparison: Option<Comparison>,
}

/// Margins within this may be rounding: open_clip and this model differ by as much.
const CLOSE: f32 = 1e-5;

impl Report<'_> {
    pub(super) fn publish(&self) -> Result<(), Error> {
        let flags = self.flags;
        let figures: Vec<Figure> = self.evaluated.measures.iter().map(|measure| measure.figure()).collect();
        for (name, _) in
            self.expected.iter().filter(|(name, _)| figures.iter().all(|figure| figure.name != *name))
        {
            let there: Vec<&str> = figures.iter().map(|figure| figure.name.as_str()).collect();
            complain(&format!("--expect: there is no figure {name}, only {}", there.join(", ")));
        }
        // A reader that has seen enough is none to complain to.
        let _ = std::io::stdout().lock().write_all(table::text(self, &figures).as_bytes());
        if let Some(path) = &flags.json {
            let json = serde_json::to_string_pretty(&json::figures(self, &figures));
            write(path, |file| writeln!(file, "{}", json.map_err(std::io::Error::other)?))?;
        }
        if let Some(path) = &flags.lines {
            write(path, |file| json::lines(self, file))?;
        }
        if let Some(path) = &flags.html {
            write(path, |file| file.write_all(html::page(self, &figures).as_bytes()))?;
        }
        Ok(())
    }

    /// Of the first figure; of captions, of both ways.
    pub(super) fn verdict(&self) -> Verdict {
        let firsts = match self.job {
            Job::Zeroshot(_) => 1,
            Job::Retrieval { .. } => 2,
        };
        let lost =
            |comparison: &Comparison, points: f64| {
                // What has no figure is no loss that can be told; rounding is none.
                comparison.figures.iter().take(firsts).any(|figure| {
                    figure.difference.is_some_and(|difference| -100.0 * difference > points + 1e-9)
                })
            };
        match (&self.comparison, self.flags.max_loss) {
            (Some(comparison), Some(points)) if lost(comparison, points) => Verdict::Lost,
            _ => Verdict::Kept,
        }
    }

    /// Queries whose rank may be chance.
    fn close(&self) -> usize {
        self.evaluated.lines.iter().filter(|line| line.margin.abs() < CLOSE).count()
    }
}

fn write(path: &Path, content: impl FnOnce(&mut PartialFile) -> std::io::Result<()>) -> Result<(), Error> {
    let failed = |error| cli::Error::File { path: path.to_owned(), error };
    let mut file = PartialFile::create(path)?;
    content(&mut file).map_err(failed)?;
    Ok(file.complete().map_err(failed)?)
}
