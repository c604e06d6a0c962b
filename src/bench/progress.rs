//! What the bench is doing, on standard error: a line that moves on a terminal, otherwise a line per step.

use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often a line on a terminal is drawn again.
const TICK: Duration = Duration::from_millis(250);

/// Clones are the same line.
#[derive(Clone)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn begin() -> Progress {
        if !stderr().is_terminal() {
            return Progress(ProgressBar::hidden());
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}  {elapsed}  {human_pos}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        Progress(bar)
    }

    /// The next step, from now on.
    pub(super) fn step(&self, what: &str) {
        if self.0.is_hidden() {
            // If nobody can read it, there is nobody to tell.
            let _ = writeln!(stderr().lock(), "{what}");
        }
        self.0.reset();
        self.0.set_message(what.to_owned());
    }

    /// One answer, or one batch, more.
    pub(super) fn advance(&self) {
        self.0.inc(1);
    }

    pub(super) fn end(&self) {
        self.0.finish_and_clear();
    }
}
