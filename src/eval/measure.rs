//! A figure with what it takes to say how sure it is, alone and against the same figure of another run.

use serde::Serialize;

use super::cores;
use super::numbers::{self, Interval, RESAMPLES};

/// A figure of one run.
pub(super) struct Measure<'a> {
    /// As the suite calls it.
    pub(super) name: String,
    /// From 0 to 1; NaN where the suite has none.
    pub(super) value: f64,
    pub(super) basis: Basis<'a>,
}

/// What a figure is made of.
pub(super) enum Basis<'a> {
    /// The share of the inputs that are hits.
    Hits(Vec<bool>),
    /// What it is in a resample.
    Resampled(Box<dyn Fn(u32) -> f64 + Send + Sync + 'a>),
}

/// A figure as it is reported.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) value: Option<f64>,
    pub(super) interval: Option<Interval>,
    /// Whose formula the interval is by.
    pub(super) method: &'static str,
}

/// This run's figure less the other's.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Difference {
    pub(super) name: String,
    pub(super) here: Option<f64>,
    pub(super) there: Option<f64>,
    pub(super) difference: Option<f64>,
    pub(super) interval: Option<Interval>,
    pub(super) method: &'static str,
    /// Inputs that are hits in one run only, and McNemar's exact test of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) discordant: Option<Discordant>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Discordant {
    pub(super) only_here: usize,
    pub(super) only_there: usize,
    pub(super) p: f64,
}

impl Measure<'_> {
    pub(super) fn figure(&self) -> Figure {
        let (interval, method) = match &self.basis {
            Basis::Hits(hits) => {
                (numbers::wilson(hits.iter().filter(|hit| **hit).count(), hits.len()), "Wilson 1927")
            }
            Basis::Resampled(of) => (resampled(of), "bootstrap percentiles, Poisson weights"),
        };
        let value = known(self.value);
        Figure { name: self.name.clone(), value, interval: value.and(interval), method }
    }

    /// Of the same inputs.
    pub(super) fn against(&self, other: &Measure<'_>) -> Difference {
        let (interval, method, discordant) = match (&self.basis, &other.basis) {
            (Basis::Hits(here), Basis::Hits(there)) => {
                let only =
                    |one: &[bool], other: &[bool]| one.iter().zip(other).filter(|(a, b)| **a && !**b).count();
                let (only_here, only_there) = (only(here, there), only(there, here));
                let p = numbers::mcnemar(only_here, only_there);
                let interval = numbers::matched(only_here, only_there, here.len());
                (interval, "Agresti and Min 2005", Some(Discordant { only_here, only_there, p }))
            }
            (Basis::Resampled(here), Basis::Resampled(there)) => {
                let difference = |resample| here(resample) - there(resample);
                (resampled(difference), "paired bootstrap percentiles, Poisson weights", None)
            }
            _ => (None, "none", None),
        };
        Difference {
            name: self.name.clone(),
            here: known(self.value),
            there: known(other.value),
            difference: known(self.value - other.value),
            interval,
            method,
            discordant,
        }
    }
}

fn resampled(of: impl Fn(u32) -> f64 + Sync) -> Option<Interval> {
    numbers::percentiles(cores::on_all(RESAMPLES as usize, |part| {
        part.map(|number| of(number as u32)).collect()
    }))
}

fn known(value: f64) -> Option<f64> {
    (!value.is_nan()).then_some(value)
}
