//! `clipd calibrate`: finds out how a model is rounded to 8 bits, from pictures and texts like those it will see.
//!
//! ```text
//!  inputs      pictures and texts become rows; every fourth is held out
//!  observed    the model runs in fp32, and what enters its layers is seen: twice, for how far it reaches
//!              [`Extremes`], and for what rounding it costs [`Errors`]
//!  floor       as many layers stay in floating point as the promised cosine asks for, on what was held out
//!  file        a [`Calibration`], beside the model
//! ```
//!
//! The same model and inputs give the same file on the same kind of CPU: speed is told, and decides nothing.

mod encoder;
mod errors;
mod extremes;
mod floor;
mod inputs;

use std::error::Error;
use std::fs::File;
use std::io::Write;

use crate::app::load::Origin;
use crate::cli::complain;
use crate::config::calibrate::Plan;
use crate::engine::device::{Device, Precision};
use crate::modality::Modality;
use crate::model::calibration::Calibration;
use crate::model::graph::{Form, Products};
use encoder::Calibrated;
use floor::Floor;
use inputs::{Rows, pictures, texts};

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
    let rows: Vec<Rows> = [Some(pictures(&plan.images, &model.spec.image, plan.inputs.get())?)]
        .into_iter()
        .chain([plan.texts.as_deref().map(|file| texts(file, &model, plan.inputs.get())).transpose()?])
        .flatten()
        .collect();
    let [mean, min] = plan.cosine;
    let floor = Floor { mean, min };
    let graphs = [Some(model.image), model.text];
    let mut calibration =
        Calibration { model: model.fingerprint, image: None, text: None, tensors: Default::default() };
    for (rows, graph) in rows.into_iter().zip(graphs.into_iter().flatten()) {
        let modality = rows.modality;
        let task = encoder::Task {
            origin,
            spec: &model.spec,
            fingerprint: &calibration.model,
            threads: plan.threads,
        };
        let Calibrated { tensors, reached, told } = task.calibrate(graph, rows, floor)?;
        complain(&format!("{}s: {told}", modality.as_str()));
        calibration.tensors.extend(tensors);
        *match modality {
            Modality::Image => &mut calibration.image,
            Modality::Text => &mut calibration.text,
        } = Some(reached);
    }
    File::create_new(&out)
        .and_then(|mut file| file.write_all(calibration.to_json().as_bytes()))
        .map_err(|error| format!("{}: {error}", out.display()))?;
    writeln!(std::io::stdout(), "{}", out.display())?;
    Ok(())
}
