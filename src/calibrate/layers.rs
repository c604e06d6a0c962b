//! How each layer's input is rounded, from what enters it in fp32: once for how far it reaches, and once more for what
//! rounding it costs.

use std::collections::BTreeMap;

use super::errors::Errors;
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
        let choice = |(layer, extremes): (&Layer, Option<Extremes>)| {
            let extremes = extremes?;
            if extremes.are_bytes() {
                return Some(Choice::Made(Rounding { step: 1.0, zero: None, factors: vec![] }));
            }
            let factors = extremes.factors(&layer.matrix);
            Some(Choice::Open(Errors::new(extremes.reach(&factors), factors, &layer.matrix)))
        };
        let mut choices: Vec<Option<Choice>> = self.0.iter().zip(extremes).map(choice).collect();
        for batch in for_steps {
            encoder.observe(batch, |number, _, values| {
                if let Some(Choice::Open(errors)) = &mut choices[number] {
                    errors.see(values);
                }
            })?;
            progress.advance();
        }
        progress.end();
        let made = |(layer, choice): (Layer, Option<Choice>)| {
            Some((
                layer.name,
                match choice? {
                    Choice::Made(rounding) => rounding,
                    Choice::Open(errors) => errors.best(),
                },
            ))
        };
        Ok(self.0.into_iter().zip(choices).filter_map(made).collect())
    }
}

/// Of a rounding.
enum Choice {
    Made(Rounding),
    Open(Errors),
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
