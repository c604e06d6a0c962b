//! What a model can run on, and with which precision.
//!
//! These are the words; which kinds of devices there are says the table in [`super::kinds`], and which to use is the
//! caller's choice.

use std::fmt;
use std::num::NonZeroUsize;

use ort::session::builder::SessionBuilder;

use super::EngineError;
use super::binding::Memory;
use super::runtime::runtime;
use crate::modality::ByModality;
use crate::model::graph::{Form, Operators, Products, WeightType};

/// What computes: one of the [`super::kinds`], and which of them where there may be several.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Device {
    pub(super) kind: &'static Kind,
    /// 0 where it is the only one.
    pub(super) number: u16,
}

/// A kind of device: all that the rest of the engine knows of an execution provider of ONNX Runtime.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    /// As in flags, logs and metrics. No two kinds have the same.
    pub(super) name: &'static str,
    /// Whether there may be several, which have a number behind their name, and of which several can serve.
    pub(super) numbered: bool,
    /// In the description of an engine, behind ONNX Runtime's version.
    pub(super) provider: Option<&'static str>,
    /// The Python package whose ONNX Runtime has it.
    pub(super) package: &'static str,
    /// Whether the ONNX Runtime that was loaded was built for it. Whether there is one shows when it is opened.
    pub(super) built: fn() -> ort::Result<bool>,
    /// What it computes with; first what it takes if nobody says.
    pub(super) precisions: &'static [Precision],
    /// What is wrong with a precision here, as the end of a sentence that begins with it.
    pub(super) refusal: fn(Precision) -> Option<&'static str>,
    pub(super) auto: Auto,
    /// What graphs for it are made of.
    pub(super) operators: Operators,
    pub(super) weights: KeptWeights,
    /// Adds the provider to a session.
    pub(super) add: fn(SessionBuilder, &Seat) -> Result<SessionBuilder, EngineError>,
    /// For a device with memory of its own, where batches have certain sizes; otherwise they have any.
    pub(super) bound: Option<Bound>,
}

/// What sessions keep of the weights that they are made of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum KeptWeights {
    /// They can all use those that are there.
    Shared,
    /// Each has a copy of its own.
    Copied,
    /// Each has a copy in its own form, and keeps the original besides, which it hardly reads. It maps that from a
    /// file if there is one, so that the system can take the memory back.
    Mapped,
}

/// Names are unique.
impl PartialEq for Kind {
    fn eq(&self, other: &Kind) -> bool {
        self.name == other.name
    }
}

impl Eq for Kind {}

/// When a kind of device is taken if nobody asks for one.
#[derive(Clone, Copy)]
pub(super) enum Auto {
    /// A GPU: the first one that answers goes before all that compute on the CPU.
    Gpu,
    /// If it is the fastest on the CPU by so many times as each precision says; where none is said, never.
    Fastest(fn(Precision) -> Option<f64>),
}

/// How a device with memory of its own is used, by its number.
#[derive(Clone, Copy)]
pub(super) struct Bound {
    pub(super) memory: fn(u16) -> Memory,
    /// Called first, on the thread that is going to run it: moves the thread to the cores beside the device.
    pub(super) pin: fn(u16),
}

/// As in flags, logs and metrics.
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind.numbered {
            true => write!(f, "{}:{}", self.kind.name, self.number),
            false => f.write_str(self.kind.name),
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Device {
    /// How graphs are written that run here in `precision`; for int8, before there is a calibration.
    pub fn form(self, precision: Precision) -> Form {
        let weights = match precision {
            // OpenVINO rounds to bf16 itself, and knows better where.
            Precision::Fp32 | Precision::Bf16 | Precision::Int8 => WeightType::Fp32,
            Precision::Fp16 => WeightType::Fp16,
        };
        Form { weights, products: Products::Float, operators: self.kind.operators }
    }

    /// Whether the ONNX Runtime found here was built for it.
    ///
    /// # Errors
    /// [`EngineError::Library`] if there is no ONNX Runtime.
    pub(super) fn built(self) -> Result<bool, EngineError> {
        runtime()?;
        Ok((self.kind.built)()?)
    }

    /// Whether it can be opened here to compute in `precision`.
    ///
    /// # Errors
    /// [`EngineError::Device`] names what is missing.
    pub fn check(self, precision: Precision) -> Result<(), EngineError> {
        if !self.built()? {
            return Err(EngineError::Device(format!(
                "device {self}: this ONNX Runtime was built without the provider; set ORT_DYLIB_PATH to the library \
                 of the Python package {}, or use device cpu",
                self.kind.package
            )));
        }
        match (self.kind.refusal)(precision) {
            Some(problem) => Err(EngineError::Device(format!("precision {} {problem}", precision.as_str()))),
            None => Ok(()),
        }
    }
}

/// What it computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// The reference: the cosine between an embedding and open_clip's is 1 within 1e-6.
    Fp32,
    /// The cosine to the reference is about 0.99994. On OpenVINO only.
    Bf16,
    /// Products of linear layers in 8 bits, where a calibration of the model says how; it says too how close that
    /// comes. On OpenVINO only.
    Int8,
    /// Weights and activations in 16 bits, the last norm and the projection in fp32. The cosine to the reference is
    /// 0.999999. On GPUs only.
    Fp16,
}

impl Precision {
    /// As in flags, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Precision::Fp32 => "fp32",
            Precision::Bf16 => "bf16",
            Precision::Int8 => "int8",
            Precision::Fp16 => "fp16",
        }
    }
}

/// Where an engine runs, and how. Each kind of device takes of it what concerns it.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    pub device: Device,
    pub precision: Precision,
    /// Of one session, the caller's among them.
    pub threads: NonZeroUsize,
    pub gpu: GpuOptions,
    pub max_batch_size: ByModality<NonZeroUsize>,
}

impl Seat {
    /// With one of each.
    pub fn new(device: Device, precision: Precision) -> Seat {
        let one = NonZeroUsize::MIN;
        let gpu = GpuOptions { memory_bytes: None, graphs: CudaGraphs::Off };
        Seat { device, precision, threads: one, gpu, max_batch_size: ByModality::both(one) }
    }
}

/// What an operator may say of GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuOptions {
    /// Most memory of the GPU for one session's weights and results; `None`: all of it.
    pub memory_bytes: Option<NonZeroUsize>,
    pub graphs: CudaGraphs,
}

/// Whether the kernels of a batch are launched as one recorded graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CudaGraphs {
    On,
    Off,
}
