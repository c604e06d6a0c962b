//! Inputs without a place in the figures, of the data and of all runs: each is named once, when it is found, and
//! counted.

use std::collections::BTreeSet;

use super::Error;
use super::data::Problems;
use super::job::Job;
use super::task::Query;
use crate::cli::complain;
use crate::cli::output::printable;
use crate::cli::progress::Progress;

/// Inputs that are named on standard error, of the data and of the runs; all are in the report.
const SHOWN: usize = 20;

#[derive(Debug, Default)]
pub(super) struct Faults {
    problems: Problems,
    failed: BTreeSet<Query>,
    /// Before the reasons of the run that goes on.
    side: &'static str,
}

impl Faults {
    /// Those of the data.
    pub(super) fn of(job: &Job) -> Faults {
        let problems = job.problems().clone();
        for (name, reason) in problems.first.iter().take(SHOWN) {
            complain(&printable(&format!("{name}: {reason}")));
        }
        if problems.count > SHOWN {
            complain(&format!("and {} more", problems.count - SHOWN));
        }
        Faults { problems, ..Faults::default() }
    }

    /// What follows is of the run that is compared with.
    pub(super) fn in_the_other_run(&mut self) {
        self.side = "in the other run: ";
    }

    /// One without an embedding or an answer.
    pub(super) fn add(&mut self, query: Query, name: &str, reason: &str, progress: &Progress) {
        if self.failed.insert(query) {
            let reason = format!("{}{reason}", self.side);
            if self.failed.len() <= SHOWN {
                progress.failed(name, &reason);
            }
            self.problems.add(name, reason);
        }
    }

    pub(super) fn failed(&self, query: Query) -> bool {
        self.failed.contains(&query)
    }

    pub(super) fn problems(&self) -> &Problems {
        &self.problems
    }

    /// An error unless they may be left out.
    pub(super) fn allow(&self, skip_errors: bool) -> Result<(), Error> {
        match self.problems.count {
            0 => Ok(()),
            _ if skip_errors => Ok(()),
            count => Err(Error::Other(format!(
                "{count} inputs have no place in the figures; --skip-errors leaves them out and counts them"
            ))),
        }
    }
}
