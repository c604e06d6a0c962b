//! From a configuration to a model and the engines that run it.

use std::num::NonZeroUsize;
use std::sync::Arc;

use super::{Served, StartError};
use crate::batcher::OpenEngine;
use crate::cli::download::Download;
use crate::clip::PREPROCESSING_VERSION;
use crate::clip::spec::ClipSpec;
use crate::config::{Config, ModelSource};
use crate::engine::EngineError;
use crate::engine::choice::{Choice, choose};
use crate::engine::device::{Device, Precision};
use crate::engine::fidelity::{Fidelity, fidelity};
use crate::engine::onnx::OnnxModel;
use crate::model::Model;
use crate::model::graph::Graph;
use crate::model::hub;

/// Reads the model and prepares one engine per worker. Takes seconds; call it off the async runtime.
pub fn load(config: &Config) -> Result<Served, StartError> {
    let model = load_model(&config.model)?;
    let Choice { devices, precision, why } = choose(&config.device, config.precision, config.threads)?;
    let (workers_per_device, threads) = (config.workers_per_device, config.threads);
    tracing::info!(?devices, ?precision, workers_per_device, threads, why, "engine chosen");
    let fingerprint = fingerprint(&model.fingerprint, precision);
    tracing::info!(name = model.name, fingerprint, "model loaded");
    let onnx = Arc::new(match precision {
        Precision::Fp32 | Precision::Bf16 => OnnxModel::new(&model.spec, model.image, model.text)?,
        Precision::Int8 => quantised(devices[0], &model.spec, (model.image, model.text), threads)?,
        Precision::Fp16 => halved(&model.spec, &model.image, &model.text)?,
    });
    let (gpu, max_batch_size) = (config.gpu, config.scheduling.max_batch_size);
    let open = |device: Device| {
        let onnx = onnx.clone();
        match device {
            Device::Cuda(number) => OpenEngine::new(device.to_string(), move || {
                onnx.open_gpu(number, precision, gpu, max_batch_size)
            }),
            Device::Cpu | Device::OpenVino => {
                OpenEngine::new(device.to_string(), move || onnx.open(device, precision, threads))
            }
        }
    };
    // Device by device, so that every device gets work before the second worker of any.
    let seats = (0..workers_per_device.get()).flat_map(|_| &devices);
    Ok(Served {
        name: model.name,
        fingerprint,
        spec: model.spec,
        tokenizer_json: model.tokenizer_json,
        engines: seats.map(|device| open(*device)).collect(),
    })
}

/// `config` with what `auto` leaves open decided, for those who load it several times.
pub fn settled(config: &Config) -> Result<Config, StartError> {
    let Choice { devices, precision, .. } = choose(&config.device, config.precision, config.threads)?;
    let device = match devices.as_slice() {
        [device] => (*device).into(),
        _ => config.device.clone(),
    };
    Ok(Config { device, precision: precision.into(), ..config.clone() })
}

/// The model in 8 bits. What that costs is measured and logged, since it depends on the model; a device that does not
/// compute so is refused before.
fn quantised(
    device: Device,
    spec: &ClipSpec,
    (image, text): (Graph, Graph),
    threads: NonZeroUsize,
) -> Result<OnnxModel, EngineError> {
    let (Some(image8), Some(text8)) = (image.with_int8_weights(), text.with_int8_weights()) else {
        let refusal = "precision int8 cannot be had: this model has no matrix that can be quantised: its widths are \
                       no multiples of 128, or its graphs are ready-made and served as they are";
        return Err(EngineError::Device(refusal.to_owned()));
    };
    let quantised = OnnxModel::new(spec, image8, text8)?;
    let mut engine = quantised.open(device, Precision::Int8, threads)?;
    let reference = OnnxModel::new(spec, image, text)?;
    let mut reference = reference.open(Device::Cpu, Precision::Fp32, threads)?;
    let Fidelity { images, texts } = fidelity(spec, &mut reference, &mut engine)?;
    tracing::info!(%images, %texts, "cosine of int8 to fp32, over made-up inputs");
    Ok(quantised)
}

/// The model in fp16.
fn halved(spec: &ClipSpec, image: &Graph, text: &Graph) -> Result<OnnxModel, EngineError> {
    let (Some(image), Some(text)) = (image.with_fp16_weights(), text.with_fp16_weights()) else {
        let refusal = "precision fp16: ready-made graphs are served as they are; take precision fp32";
        return Err(EngineError::Device(refusal.to_owned()));
    };
    OnnxModel::new(spec, image, text)
}

/// Reads a model from where the user says it is.
pub fn load_model(source: &ModelSource) -> Result<Model, StartError> {
    Ok(match source {
        ModelSource::Builtin => Model::builtin()?,
        ModelSource::Directory(directory) => Model::from_dir(directory)?,
        ModelSource::Hub(repository, access) => {
            let mut shown = Download::shown();
            let directory = hub::fetch(repository, access, &mut |event| shown.on(event))?;
            Model { name: repository.to_string(), ..Model::from_dir(&directory)? }
        }
    })
}

/// What an embedding depends on, in ASCII: the model's files (64 of their 256 bits tell models apart), how
/// inputs become rows, and the precision.
pub fn fingerprint(model: &str, precision: Precision) -> String {
    format!("{}-{PREPROCESSING_VERSION}-{}", &model[..16], precision.as_str())
}
