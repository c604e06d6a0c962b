//! How each layer's input is rounded, from what enters it in fp32: once for how far it reaches, and once more for what
//! rounding it costs.

use std::collections::BTreeMap;

use super::errors::{Errors, candidates};
use super::extremes::Extremes;
use crate::cli::progress::Progress;
use crate::engine::single::Single;
use crate::engine::{Batch, EngineError};
use crate::model::calibration::Rounding;
use crate::model::graph::{Graph, Observed, Values};

/// Steps are chosen by so many inputs at most: each value is rounded in several ways.
const FOR_STEPS: usize = 64;

/// The layers of an encoder that may be rounded.
pub(super) struct Layers(Vec<Layer>);

struct Layer {
    name: String,
    /// A row of weights for each channel.
    matrix: Vec<Vec<f32>>,
}

impl Layers {
    /// Of a graph that is observed.
    pub(super) fn of(graph: &Graph) -> Layers {
        let layer =
            |observed: &Observed| Layer { name: observed.name.clone(), matrix: matrix(graph, observed) };
        Layers(graph.observed.iter().map(layer).collect())
    }

    /// By their names; one that sees a single token of each input is left out: it costs little to multiply.
    pub(super) fn roundings(
        self,
        encoder: &mut Single,
        seen: &[Batch],
    ) -> Result<BTreeMap<String, Rounding>, EngineError> {
        let for_steps = &seen[..seen.len().min(FOR_STEPS)];
        let mut progress = Progress::of(seen.len() + for_steps.len());
        let extremes = self.0.iter().map(|layer| Some(Extremes::new(layer.matrix.len())));
        let mut extremes: Vec<Option<Extremes>> = extremes.collect();
        for batch in seen {
            encoder.observe(batch, |number, tokens, values| match tokens {
                1 => extremes[number] = None,
                _ => extremes[number].iter_mut().for_each(|extremes| extremes.see(values)),
            })?;
            progress.advance();
        }
        let errors = |(layer, extremes): (&Layer, Option<Extremes>)| {
            let extremes = extremes?;
            let candidates = match extremes.are_bytes() {
                true => vec![Rounding { step: 1.0, zero: None, factors: vec![] }],
                false => {
                    let factors = extremes.factors(&layer.matrix);
                    candidates(extremes.reach(&factors), &factors)
                }
            };
            Some(Errors::new(candidates, &layer.matrix))
        };
        let mut errors: Vec<Option<Errors>> = self.0.iter().zip(extremes).map(errors).collect();
        for batch in for_steps {
            encoder.observe(batch, |number, _, values| {
                errors[number].iter_mut().for_each(|errors| errors.see(values));
            })?;
            progress.advance();
        }
        progress.end();
        let best = |(layer, errors): (Layer, Option<Errors>)| Some((layer.name, errors?.best()));
        Ok(self.0.into_iter().zip(errors).filter_map(best).collect())
    }
}

/// The matrices that something is multiplied with, side by side: a row for each channel.
fn matrix(graph: &Graph, observed: &Observed) -> Vec<Vec<f32>> {
    let mut rows: Vec<Vec<f32>> = Vec::new();
    for name in &observed.weights {
        let weight = graph.weights.iter().find(|weight| weight.name == *name);
        let Some((Values::F32(values), [channels, outputs])) =
            weight.map(|weight| (&weight.values, weight.shape.as_slice()))
        else {
            unreachable!("{name} is a matrix in fp32");
        };
        rows.resize(*channels, Vec::new());
        rows.iter_mut().zip(values.chunks_exact(*outputs)).for_each(|(row, more)| row.extend(more));
    }
    rows
}
