//! The calibration of one encoder.

use std::collections::BTreeMap;
use std::error::Error;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tracing::subscriber::{NoSubscriber, with_default};

use super::floor::{Cosine, Floor, Kept, Unmet};
use super::inputs::Rows;
use super::layers::Layers;
use crate::app::load::Origin;
use crate::cli::complain;
use crate::cli::progress::Progress;
use crate::clip::embedding::{dot, normalize};
use crate::clip::spec::ClipSpec;
use crate::clock::Clock;
use crate::engine::Batch;
use crate::engine::device::{Device, Precision, Seat};
use crate::engine::kinds::bf16_supported;
use crate::engine::single::Single;
use crate::modality::Modality;
use crate::model::calibration::{Calibration, Reached, Rounding};
use crate::model::graph::{Form, Graph, Products};

/// What a layer costs alone is measured with so many inputs: it orders layers, and promises nothing.
const FOR_ORDER: usize = 16;

/// Runs of each engine in turn, of which the fastest counts.
const ROUNDS: usize = 8;

/// What an encoder is calibrated for.
pub(super) struct Task<'a> {
    pub(super) origin: &'a Origin,
    pub(super) spec: &'a ClipSpec,
    pub(super) fingerprint: &'a str,
    pub(super) threads: NonZeroUsize,
    pub(super) floor: Floor,
}

pub(super) struct Calibrated {
    pub(super) tensors: BTreeMap<String, Rounding>,
    pub(super) reached: Reached,
}

impl Task<'_> {
    /// `graph` is [`Products::Observed`].
    pub(super) fn calibrate(&self, graph: Graph, rows: Rows) -> Result<Calibrated, Box<dyn Error>> {
        let Rows { modality, seen, held_out } = rows;
        let layers = Layers::of(&graph);
        let mut reference = Single::open(self.spec, graph, &self.seat(Device::CPU, Precision::Fp32))?;
        let tensors = layers.roundings(&mut reference, &seen)?;
        if tensors.is_empty() {
            return Err("precision int8 cannot be had: this model has no layers that can be rounded".into());
        }
        let expected = embeddings(&mut reference, &held_out)?;
        drop(reference);
        self.keep(modality, tensors, &held_out, &expected, seen.len())
    }

    /// Leaves out of `tensors` what the floor asks for.
    fn keep(
        &self,
        modality: Modality,
        mut tensors: BTreeMap<String, Rounding>,
        held_out: &[Batch],
        expected: &[Vec<f32>],
        inputs: usize,
    ) -> Result<Calibrated, Box<dyn Error>> {
        let layers: Vec<String> = tensors.keys().cloned().collect();
        let open = |rounded: &[String]| {
            let some = rounded.iter().map(|name| (name.clone(), tensors[name].clone())).collect();
            self.open(modality, some)
        };
        let measure = |rounded: &[String], count: usize| -> Result<Cosine, Box<dyn Error>> {
            let actual = embeddings(&mut open(rounded)?, &held_out[..count])?;
            Ok(cosine(expected, &actual))
        };
        let few = held_out.len().min(FOR_ORDER);
        let mut progress = None;
        let kept = self.floor.keep(&layers, &mut |rounded| measure(rounded, held_out.len()), &mut |layer| {
            let progress = progress.get_or_insert_with(|| {
                complain("the cosine is too small with all layers in 8 bits; what each of them costs:");
                Progress::of(layers.len())
            });
            let cosine = measure(std::slice::from_ref(layer), few);
            progress.advance();
            cosine
        });
        progress.iter().for_each(Progress::end);
        let Kept { layers: kept, cosine, all_rounded } = kept.map_err(|unmet| match unmet {
            Unmet::Float(Cosine { mean, min }) => Box::<dyn Error>::from(format!(
                "--int8-cosine cannot be met: with all layers in floating point it is {mean:.6}, and {min:.6} at least"
            )),
            Unmet::Measuring(error) => error,
        })?;
        let rounded: Vec<String> = layers.iter().filter(|layer| !kept.contains(layer)).cloned().collect();
        let mut engines = vec![self.open_float(modality)?, open(&rounded)?];
        if !kept.is_empty() {
            engines.push(open(&layers)?);
        }
        let times = times(&mut engines, held_out)?;
        let speed =
            |engine: usize| (times[0].as_secs_f64() / times[engine].as_secs_f64() * 100.0).round() / 100.0;
        let reached = Reached {
            inputs,
            held_out: held_out.len(),
            mean_cosine: cosine.mean,
            min_cosine: cosine.min,
            kept,
            speed: speed(1),
            speed_with_none_kept: speed(engines.len() - 1),
        };
        complain(&told(modality, &reached, layers.len(), all_rounded));
        tensors.retain(|name, _| !reached.kept.contains(name));
        Ok(Calibrated { tensors, reached })
    }

    /// With these tensors rounded.
    fn open(
        &self,
        modality: Modality,
        tensors: BTreeMap<String, Rounding>,
    ) -> Result<Single, Box<dyn Error>> {
        let model = self.fingerprint.to_owned();
        let calibration = Calibration { model, image: None, text: None, tensors };
        let form = Device::OPENVINO.form(Precision::Int8);
        self.open_form(
            modality,
            Form { products: Products::Int8(Arc::new(calibration)), ..form },
            Precision::Int8,
        )
    }

    fn open_float(&self, modality: Modality) -> Result<Single, Box<dyn Error>> {
        self.open_form(modality, Device::OPENVINO.form(float()), float())
    }

    fn open_form(
        &self,
        modality: Modality,
        form: Form,
        precision: Precision,
    ) -> Result<Single, Box<dyn Error>> {
        // What it tells was told when it was read first.
        let model = with_default(NoSubscriber::new(), || self.origin.model(form))?;
        let graph = match modality {
            Modality::Image => model.image,
            Modality::Text => model.text.ok_or("the model has no text encoder")?,
        };
        Ok(Single::open(self.spec, graph, &self.seat(Device::OPENVINO, precision))?)
    }

    fn seat(&self, device: Device, precision: Precision) -> Seat {
        Seat { threads: self.threads, ..Seat::new(device, precision) }
    }
}

/// For people.
fn told(modality: Modality, reached: &Reached, layers: usize, all_rounded: Cosine) -> String {
    let Reached { inputs, held_out, mean_cosine, min_cosine, kept, speed, speed_with_none_kept } = reached;
    let (inputs_are, float) = (modality.as_str(), float().as_str());
    let mut told = format!(
        "{inputs_are}s: cosine to fp32 {mean_cosine:.6}, at least {min_cosine:.6} ({inputs} seen, {held_out} others \
         compared); {speed:.2} times as fast as {float}"
    );
    if !kept.is_empty() {
        let Cosine { mean, min } = all_rounded;
        told += &format!(
            "; {} of {layers} layers stay in floating point (with none: {mean:.6}, {min:.6}, \
             {speed_with_none_kept:.2} times): {}",
            kept.len(),
            kept.join(", ")
        );
    }
    told
}

/// What a server would run instead.
fn float() -> Precision {
    if bf16_supported() { Precision::Bf16 } else { Precision::Fp32 }
}

/// Unit vectors; one without a direction stays as it is, and its cosine shows it.
fn embeddings(engine: &mut Single, batches: &[Batch]) -> Result<Vec<Vec<f32>>, Box<dyn Error>> {
    let mut embeddings = Vec::new();
    for batch in batches {
        for row in engine.embed(batch)?.outer_iter() {
            let mut row = row.to_vec();
            let _ = normalize(&mut row);
            embeddings.push(row);
        }
    }
    Ok(embeddings)
}

/// Of the first of `expected`.
fn cosine(expected: &[Vec<f32>], actual: &[Vec<f32>]) -> Cosine {
    let cosines: Vec<f64> = expected.iter().zip(actual).map(|(a, b)| f64::from(dot(a, b))).collect();
    Cosine {
        mean: cosines.iter().sum::<f64>() / cosines.len() as f64,
        min: cosines.into_iter().fold(f64::INFINITY, f64::min),
    }
}

/// What the first batches take each engine, in turns.
fn times(engines: &mut [Single], batches: &[Batch]) -> Result<Vec<Duration>, Box<dyn Error>> {
    let clock = Clock::start();
    let mut fastest = vec![Duration::MAX; engines.len()];
    for _ in 0..ROUNDS {
        for (engine, fastest) in engines.iter_mut().zip(&mut fastest) {
            let start = clock.now();
            embeddings(engine, &batches[..batches.len().min(4)])?;
            *fastest = clock.now().since(start).min(*fastest);
        }
    }
    Ok(fastest)
}
