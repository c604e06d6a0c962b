//! Even shares of device time between the modalities: start-time fair queueing
//! (Goyal, Vin, Cheng, SIGCOMM 1996), with a batch as the packet and its predicted run time as the length.
//!
//! Without it, earliest-deadline order between modalities would be first come, first served, and a text
//! would wait behind the whole backlog of images.

use std::time::Duration;

use crate::modality::Modality;

/// Times are virtual: device time handed out, not time of day.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// Start tag of the batch dispatched last.
    now: Duration,
    /// Start tag of each modality's next batch, indexed by `Modality::index`.
    next: [Duration; 2],
}

impl Share {
    /// A queue that was empty has a job again: being idle earned it no credit.
    pub(super) fn activate(&mut self, modality: Modality) {
        let next = &mut self.next[modality.index()];
        *next = self.now.max(*next);
    }

    /// The modality with the smaller start tag goes first.
    pub(super) fn start(&self, modality: Modality) -> Duration {
        self.next[modality.index()]
    }

    /// A batch that is predicted to run for `cost` was dispatched.
    pub(super) fn charge(&mut self, modality: Modality, cost: Duration) {
        let next = &mut self.next[modality.index()];
        self.now = *next;
        *next += cost;
    }
}
