//! How far a download from the hub is, on standard error: a bar on a terminal, otherwise a line per file.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressStyle};

use crate::model::hub::Event;

/// Shows what happens.
pub struct Download {
    bar: Option<ProgressBar>,
}

impl Download {
    pub fn shown() -> Download {
        Download { bar: stderr().is_terminal().then(ProgressBar::hidden) }
    }

    pub fn on(&mut self, event: Event) {
        match (event, &mut self.bar) {
            (Event::Start { file, bytes }, None) => tracing::info!(file, bytes, "downloading"),
            (Event::Start { file, bytes }, Some(bar)) => {
                bar.finish();
                *bar = ProgressBar::new(bytes as u64).with_message(file);
                if let Ok(style) =
                    ProgressStyle::with_template("{msg}  {wide_bar} {bytes}/{total_bytes}  {eta} left")
                {
                    bar.set_style(style);
                }
            }
            (Event::Bytes(_), None) => {}
            (Event::Bytes(bytes), Some(bar)) => bar.inc(bytes as u64),
            (Event::Cached { reason }, _) => {
                tracing::warn!(reason, "the hub cannot be reached; serving the copy in the cache");
            }
        }
    }
}
