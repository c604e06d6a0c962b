//! From a configuration to a model and the engines that run it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Served, StartError};
use crate::batcher::OpenEngine;
use crate::cli::download::Download;
use crate::clip::PREPROCESSING_VERSION;
use crate::config::{Config, ModelSource};
use crate::engine::choice::{Choice, DeviceChoice, choose};
use crate::engine::device::{Device, Precision, Seat};
use crate::engine::onnx::OnnxModel;
use crate::model::calibration::{CALIBRATION_FILE, Calibration, Reached};
use crate::model::graph::{Form, Products};
use crate::model::variant::Variant;
use crate::model::{Model, ModelError, hub};

/// Reads the model and prepares one engine per worker. Takes seconds; call it off the async runtime.
pub fn load(config: &Config) -> Result<Served, StartError> {
    let Choice { devices, precision, why } = choose(&config.device, config.precision)?;
    let (workers_per_device, threads) = (config.workers_per_device, config.threads);
    tracing::info!(?devices, ?precision, workers_per_device, threads, why, "engine chosen");
    let device = devices[0];
    device.check(precision)?;
    let origin = Origin::of(&config.model)?;
    let calibration = match precision {
        Precision::Int8 => Some(Arc::new(origin.calibration(config.calibration.as_deref())?)),
        _ => None,
    };
    if let Some(Calibration { image, text, .. }) = calibration.as_deref() {
        let told = |reached: &Option<Reached>| {
            reached.as_ref().map_or_else(|| "not rounded".to_owned(), Reached::to_string)
        };
        let (images, texts) = (told(image), told(text));
        tracing::info!(images, texts, "cosine of int8 to fp32, when the model was calibrated");
    }
    let products = calibration.clone().map_or(Products::Float, Products::Int8);
    let model = origin.model(Form { products, ..device.form(precision) })?;
    let fingerprint = fingerprint(&model.fingerprint, precision, calibration.as_deref());
    tracing::info!(name = model.name, fingerprint, "model loaded");
    let onnx = Arc::new(OnnxModel::new(device, &model.spec, model.image, model.text)?);
    let (gpu, max_batch_size) = (config.gpu, config.scheduling.max_batch_size);
    let open = |device: Device| {
        let (onnx, seat) = (onnx.clone(), Seat { device, precision, threads, gpu, max_batch_size });
        OpenEngine::boxed(device.to_string(), move || onnx.open(&seat))
    };
    // Device by device, so that every device gets work before the second worker of any.
    let workers = (0..workers_per_device.get()).flat_map(|_| &devices);
    Ok(Served {
        name: model.name,
        fingerprint,
        spec: model.spec,
        tokenizer_json: model.tokenizer_json,
        engines: workers.map(|device| open(*device)).collect(),
    })
}

/// `config` with what `auto` leaves open decided, for those who load it several times.
pub fn settled(config: &Config) -> Result<Config, StartError> {
    let Choice { devices, precision, .. } = choose(&config.device, config.precision)?;
    Ok(Config { device: DeviceChoice::Devices(devices), precision: Some(precision), ..config.clone() })
}

/// The same model on the CPU in 8 bits. `None`: it is not calibrated, not on the CPU, or in 8 bits already; or this
/// machine cannot. `config` is [`settled`].
pub fn in_8_bits(config: &Config) -> Option<Config> {
    let DeviceChoice::Devices(devices) = &config.device else { return None };
    let beside = Origin::of(&config.model).ok()?.calibration_file();
    let calibrated = config.calibration.is_some() || beside.is_none_or(|file| file.exists());
    let possible = [Device::CPU, Device::OPENVINO].contains(&devices[0])
        && config.precision != Some(Precision::Int8)
        && Device::OPENVINO.check(Precision::Int8).is_ok();
    let device = DeviceChoice::Devices(vec![Device::OPENVINO]);
    (calibrated && possible).then(|| Config { device, precision: Some(Precision::Int8), ..config.clone() })
}

/// Where a model's files are, on this machine.
pub enum Origin {
    Builtin,
    Directory(PathBuf, Variant),
    /// A repository of the hub, in its cache.
    Cached(String, PathBuf, Variant),
}

impl Origin {
    /// Downloads what is to be had from the hub only.
    pub fn of(source: &ModelSource) -> Result<Origin, StartError> {
        Ok(match source {
            ModelSource::Builtin => Origin::Builtin,
            ModelSource::Directory(directory, variant) => {
                Origin::Directory(directory.clone(), variant.clone())
            }
            ModelSource::Hub(repository, access, variant) => {
                let mut shown = Download::shown();
                let directory = hub::fetch(repository, variant, access, &mut |event| shown.on(event))?;
                tracing::info!(%repository, directory = %directory.display(), "model of the hub");
                Origin::Cached(repository.to_string(), directory, variant.clone())
            }
        })
    }

    /// Where `clipd calibrate` puts its file, and a server looks for it. `None`: the model is in no directory.
    pub fn calibration_file(&self) -> Option<PathBuf> {
        match self {
            Origin::Builtin => None,
            Origin::Directory(directory, _) | Origin::Cached(_, directory, _) => {
                Some(directory.join(CALIBRATION_FILE))
            }
        }
    }

    /// How it is rounded to 8 bits: what is `asked` for, or what comes with the model.
    pub fn calibration(&self, asked: Option<&Path>) -> Result<Calibration, StartError> {
        match (asked, self.calibration_file()) {
            (Some(path), _) => Ok(Calibration::read(path)?),
            (None, Some(beside)) if beside.exists() => Ok(Calibration::read(&beside)?),
            (None, Some(beside)) => Err(StartError::NotCalibrated(beside)),
            (None, None) => Ok(Calibration::builtin()?),
        }
    }

    /// Reads it.
    pub fn model(&self, form: Form) -> Result<Model, ModelError> {
        match self {
            Origin::Builtin => Model::builtin(form),
            Origin::Directory(directory, variant) => Model::from_dir(directory, variant, form),
            Origin::Cached(name, directory, variant) => {
                Ok(Model { name: name.clone(), ..Model::from_dir(directory, variant, form)? })
            }
        }
    }
}

/// What an embedding depends on, in ASCII: the model's files (64 of their 256 bits tell models apart), how
/// inputs become rows, the precision, and how the model was rounded to that (32 bits).
pub fn fingerprint(model: &str, precision: Precision, calibration: Option<&Calibration>) -> String {
    let rounding = calibration.map_or_else(String::new, |each| format!("-{}", &each.hash()[..8]));
    format!("{}-{PREPROCESSING_VERSION}-{}{rounding}", &model[..16], precision.as_str())
}
