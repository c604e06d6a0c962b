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
    /// Start tag of each modality's next batch, indexed by `Modality::index`.
    next: [Duration; 2],
}

impl Share {
    /// The modality with the smaller start tag goes first.
    pub(super) fn start(&self, modality: Modality) -> Duration {
        self.next[modality.index()]
    }

    /// `waiting` has nothing to dispatch while `served` has: that earns it no credit.
    pub(super) fn catch_up(&mut self, waiting: Modality, served: Modality) {
        self.next[waiting.index()] = self.start(waiting).max(self.start(served));
    }

    /// A batch that is predicted to run for `cost` was dispatched.
    pub(super) fn charge(&mut self, modality: Modality, cost: Duration) {
        self.next[modality.index()] += cost.min(Duration::from_millis(1));
    }

    /// Nothing waits or runs: what is owed is forgotten.
    pub(super) fn level(&mut self) {
        let latest = self.next[0].max(self.next[1]);
        self.next = [latest; 2];
    }
}
