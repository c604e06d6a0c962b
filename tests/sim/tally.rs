//! Counts what the schedules contained, so that a simulation which no longer reaches something says so.

use std::collections::BTreeMap;
use std::fmt;

/// Every name that `count` is called with. The seeds together must reach each.
const REACHED: [&str; 27] = [
    "events",
    "admitted jobs",
    "rejected: queue full",
    "rejected: too late",
    "rejected: starting",
    "rejected: draining",
    "rejected: no worker",
    "cancelled: queued",
    "cancelled: started",
    "cancelled: unknown",
    "dropped: expired",
    "dropped: no worker",
    "batches",
    "closed: best size",
    "closed: idle",
    "closed: deadline",
    "closed: delay",
    "closed: drain",
    "contest: alone",
    "contest: even",
    "contest: urgent",
    "abandoned batches",
    "staged batches",
    "workers lost idle",
    "workers lost busy",
    "wake-ups by timer",
    "overdue jobs",
];

#[derive(Default)]
pub(crate) struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    pub(crate) fn count(&mut self, name: &'static str) {
        self.add(name, 1);
    }

    pub(crate) fn add(&mut self, name: &'static str, count: usize) {
        debug_assert!(REACHED.contains(&name), "{name} is not listed");
        *self.0.entry(name).or_default() += count as u64;
    }

    pub(crate) fn merge(&mut self, other: &Tally) {
        for (name, count) in &other.0 {
            *self.0.entry(name).or_default() += count;
        }
    }

    pub(crate) fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    pub(crate) fn missing(&self) -> Vec<&'static str> {
        REACHED.into_iter().filter(|name| self.get(name) == 0).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        REACHED.iter().try_for_each(|name| writeln!(f, "{:>10} {name}", self.get(name)))
    }
}
