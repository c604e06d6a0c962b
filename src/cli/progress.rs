//! How far a long run is, on standard error: a bar on a terminal, otherwise ten lines.

use std::fmt::Write;
use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::complain;
use super::output::printable;

pub(crate) enum Progress {
    /// The results themselves are on the screen.
    Silent,
    Bar(ProgressBar),
    Lines {
        done: usize,
        total: usize,
    },
}

/// Fewer inputs are done before anyone looks.
const WORTH_LINES: usize = 100;

impl Progress {
    pub(crate) fn of(total: usize) -> Progress {
        if !stderr().is_terminal() {
            return Progress::Lines { done: 0, total };
        }
        let bar = ProgressBar::new(total as u64);
        let template = "{wide_bar} {human_pos}/{human_len}  {rate}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            let rate = |state: &ProgressState, text: &mut dyn Write| {
                let _ = write!(text, "{:.0}/s", state.per_sec());
            };
            bar.set_style(style.with_key("rate", rate));
        }
        Progress::Bar(bar)
    }

    /// One input more has its result.
    pub(crate) fn advance(&mut self) {
        match self {
            Progress::Silent => {}
            Progress::Bar(bar) => bar.inc(1),
            Progress::Lines { done, total } => {
                let tenth = |done: usize| done * 10 / *total;
                *done += 1;
                if tenth(*done) > tenth(*done - 1) && *total >= WORTH_LINES {
                    complain(&format!("{done} of {total}"));
                }
            }
        }
    }

    /// An input without a result, and why.
    pub(crate) fn failed(&self, name: &str, reason: &str) {
        let line = printable(&format!("{name}: {reason}"));
        match self {
            Progress::Bar(bar) => bar.suspend(|| complain(&line)),
            Progress::Silent | Progress::Lines { .. } => complain(&line),
        }
    }

    pub(crate) fn end(&self) {
        if let Progress::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
