//! `clipd calibrate`: finds out how a model is rounded to 8 bits, from pictures and texts like those it will see.
//!
//! ```text
//!  inputs      pictures and texts become rows; every fourth is held out
//!  layers      the model runs in fp32, and what enters its layers is seen: for how far it reaches ([`extremes`]), and
//!              for what rounding it costs ([`errors`])
//!  floor       as many layers stay in floating point as the promised cosine asks for, on what was held out
//!  file        a [`Calibration`], beside the model
//! ```
//!
//! The same model and inputs give the same roundings on the same kind of CPU: speed is told, and decides nothing.

mod encoder;
mod errors;
mod extremes;
mod floor;
mod inputs;
mod layers;

use std::error::Error;
use std::io::Write;

use crate::app::load::Origin;
use crate::cli::output::PartialFile;
use crate::config::calibrate::Plan;
use crate::engine::device::{Device, Precision};
use crate::model::calibration::Calibration;
use crate::model::graph::{Form, Products};
use encoder::{Calibrated, Task};
use floor::Floor;
use inputs::{pictures, texts};

/// Writes the file, and tells its path on standard output.
pub fn run(plan: &Plan) -> Result<(), Box<dyn Error>> {
    Device::OPENVINO.check(Precision::Int8)?;
    let origin = &Origin::of(&plan.model)?;
    let out = plan.out.clone().or_else(|| origin.calibration_file());
    let out = out.ok_or("the embedded model has no directory for its calibration; name a file with --out")?;
    // Before the work of minutes.
    if out.exists() {
        return Err(
            format!("{}: it is there already; remove it, or name another with --out", out.display()).into()
        );
    }
    let model = origin.model(Form { products: Products::Observed, ..Form::PORTABLE })?;
    let (most, [mean, min]) = (plan.inputs.get(), plan.cosine);
    let images = pictures(&plan.images, &model.spec.image, most)?;
    let texts = plan.texts.as_deref().map(|file| texts(file, &model, most)).transpose()?;
    let task = Task {
        origin,
        spec: &model.spec,
        fingerprint: &model.fingerprint,
        threads: plan.threads,
        floor: Floor { mean, min },
    };
    let mut image = task.calibrate(model.image, images)?;
    let text = texts.zip(model.text).map(|(rows, graph)| task.calibrate(graph, rows)).transpose()?;
    let text = text.map(|text| {
        image.tensors.extend(text.tensors);
        text.reached
    });
    let Calibrated { tensors, reached } = image;
    let calibration = Calibration { model: model.fingerprint.clone(), image: Some(reached), text, tensors };
    let mut file = PartialFile::create(&out)?;
    let written = file.write_all(calibration.to_json().as_bytes()).and_then(|()| file.complete());
    written.map_err(|error| format!("{}: {error}", out.display()))?;
    writeln!(std::io::stdout(), "{}", out.display())?;
    Ok(())
}
