//! The engine that serves: a model's encoders on ONNX Runtime.
//!
//! It does not choose a device; the caller does, with what [`available_devices`] and [`bf16_preferred`]
//! say. An [`OnnxModel`] holds the weights and is shared by all workers; each worker opens an
//! [`OnnxEngine`] of its own, on its own thread.

use std::num::NonZeroUsize;

use ndarray::Array2;
use ort::ep::{self, ExecutionProvider};
use ort::session::builder::PrepackedWeights;
use ort::session::{Session, SessionInputValue};
use ort::value::TensorRef;

use super::runtime::runtime;
use super::session::{Encoder, Provider};
use super::{Batch, Description, Engine, EngineError};
use crate::clip::row::{ImageRow, TokenRow};
use crate::clip::spec::ClipSpec;
use crate::model::graph::{Graph, IMAGE_INPUT, OUTPUT, TEXT_INPUT};

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// ONNX Runtime's own kernels. Workers share one copy of the weights.
    Cpu,
    /// Intel's OpenVINO on the same CPU. Each worker has its own copy of the weights.
    OpenVino,
}

impl Device {
    /// As in flags, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Device::Cpu => "cpu",
            Device::OpenVino => "openvino",
        }
    }
}

/// What it computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// The reference: the cosine between an embedding and open_clip's is 1 within 1e-6.
    Fp32,
    /// The cosine to the reference is about 0.99995. On [`Device::OpenVino`] only; faster where
    /// [`bf16_preferred`] says so.
    Bf16,
}

impl Precision {
    /// As in flags, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Precision::Fp32 => "fp32",
            Precision::Bf16 => "bf16",
        }
    }
}

/// The devices that the ONNX Runtime found here was built for; the CPU is always one.
///
/// # Errors
/// [`EngineError::Library`] if there is no ONNX Runtime.
pub fn available_devices() -> Result<Vec<Device>, EngineError> {
    runtime()?;
    let mut devices = vec![Device::Cpu];
    if ep::OpenVINO::is_available()? {
        devices.push(Device::OpenVino);
    }
    Ok(devices)
}

/// Whether this CPU has bf16 instructions, without which [`Precision::Bf16`] cannot be had.
pub fn bf16_supported() -> bool {
    cpu_has("avx512_bf16") || cpu_has("amx_bf16")
}

/// Whether bf16 is faster than fp32 here. That takes AMX, with which it is four to five times as fast:
/// with AVX-512's bf16 instructions alone, OpenVINO needs 1.7 times the CPU time of fp32 for an image.
pub fn bf16_preferred() -> bool {
    cpu_has("amx_bf16")
}

/// The standard library's detection does not know AMX yet. The file exists on Linux only, like the
/// builds of ONNX Runtime with OpenVINO that [`Device::OpenVino`] needs.
fn cpu_has(flag: &str) -> bool {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpus.lines()
        .find(|line| line.starts_with("flags"))
        .is_some_and(|flags| flags.split(' ').any(|word| word == flag))
}

/// A model's encoders in memory, not yet on a device.
pub struct OnnxModel {
    embed_dim: usize,
    /// Height, width, channels.
    image_shape: [usize; 3],
    image: Encoder,
    text: Encoder,
    /// Weights in the layout of the CPU kernels, made by the first session, used by all.
    prepacked: PrepackedWeights,
}

impl OnnxModel {
    /// Loads ONNX Runtime and hands it the weights; they are not copied.
    ///
    /// # Errors
    /// [`EngineError::Library`] if there is no ONNX Runtime.
    pub fn new(spec: &ClipSpec, image: Graph, text: Graph) -> Result<OnnxModel, EngineError> {
        runtime()?;
        Ok(OnnxModel {
            embed_dim: spec.embed_dim,
            image_shape: [spec.image.height as usize, spec.image.width as usize, 3],
            image: Encoder::new(image)?,
            text: Encoder::new(text)?,
            prepacked: PrepackedWeights::new(),
        })
    }

    /// Opens both encoders on `device`. Called on the thread that will run them; `threads` counts that one.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the device or the precision cannot be had here.
    pub fn open(
        &self,
        device: Device,
        precision: Precision,
        threads: NonZeroUsize,
    ) -> Result<OnnxEngine, EngineError> {
        let runtime = runtime()?;
        check_available(device, precision)?;
        let (provider, engine) = match device {
            Device::Cpu => (Provider::Cpu(&self.prepacked), format!("onnxruntime {}", runtime.version)),
            Device::OpenVino => {
                (Provider::OpenVino(precision), format!("onnxruntime {} (OpenVINO)", runtime.version))
            }
        };
        Ok(OnnxEngine {
            image: self.image.open(&provider, threads)?,
            text: self.text.open(&provider, threads)?,
            image_shape: self.image_shape,
            embed_dim: self.embed_dim,
            pixels: Vec::new(),
            tokens: Vec::new(),
            description: Description {
                device: device.as_str().to_owned(),
                engine,
                precision: precision.as_str().to_owned(),
            },
        })
    }
}

fn check_available(device: Device, precision: Precision) -> Result<(), EngineError> {
    if !available_devices()?.contains(&device) {
        return Err(EngineError::Device(format!(
            "device {}: this ONNX Runtime was built without the provider; use the library of the Python \
             package onnxruntime-openvino, or device cpu",
            device.as_str()
        )));
    }
    match (device, precision) {
        (Device::Cpu, Precision::Bf16) => Err(EngineError::Device(
            "precision bf16 needs device openvino; device cpu computes in fp32".to_owned(),
        )),
        (Device::OpenVino, Precision::Bf16) if !bf16_supported() => Err(EngineError::Device(
            "precision bf16: this CPU has neither AVX-512's nor AMX's bf16 instructions".to_owned(),
        )),
        _ => Ok(()),
    }
}

/// Both encoders of a model, opened on a device.
pub struct OnnxEngine {
    image: Session,
    text: Session,
    /// Height, width, channels.
    image_shape: [usize; 3],
    embed_dim: usize,
    /// Inputs are put together here, so that a batch allocates nothing once the largest one was seen.
    pixels: Vec<u8>,
    tokens: Vec<i64>,
    description: Description,
}

impl Engine for OnnxEngine {
    fn run(&mut self, batch: &Batch) -> Result<Array2<f32>, EngineError> {
        match batch {
            Batch::Images(rows) => self.run_images(rows),
            Batch::Texts(rows) => self.run_texts(rows),
        }
    }

    fn description(&self) -> &Description {
        &self.description
    }
}

impl OnnxEngine {
    fn run_images(&mut self, rows: &[ImageRow]) -> Result<Array2<f32>, EngineError> {
        let [height, width, channels] = self.image_shape;
        self.pixels.clear();
        for ImageRow(pixels) in rows {
            assert_eq!(
                pixels.len(),
                height * width * channels,
                "preprocessing makes rows of the model's size"
            );
            self.pixels.extend_from_slice(pixels);
        }
        let input = ([rows.len(), height, width, channels], self.pixels.as_slice());
        let input = TensorRef::from_array_view(input)?;
        run(&mut self.image, IMAGE_INPUT, input.into(), [rows.len(), self.embed_dim])
    }

    /// Rows are padded with 0 to the longest; the encoder does not look beyond a row's end token.
    fn run_texts(&mut self, rows: &[TokenRow]) -> Result<Array2<f32>, EngineError> {
        let longest = rows.iter().map(|TokenRow(tokens)| tokens.len()).max().unwrap_or(0);
        self.tokens.clear();
        for (index, TokenRow(tokens)) in rows.iter().enumerate() {
            self.tokens.extend(tokens.iter().map(|&token| i64::from(token)));
            self.tokens.resize((index + 1) * longest, 0);
        }
        let input = TensorRef::from_array_view(([rows.len(), longest], self.tokens.as_slice()))?;
        run(&mut self.text, TEXT_INPUT, input.into(), [rows.len(), self.embed_dim])
    }
}

fn run(
    session: &mut Session,
    name: &str,
    input: SessionInputValue<'_>,
    expected: [usize; 2],
) -> Result<Array2<f32>, EngineError> {
    let outputs = session.run(vec![(name, input)])?;
    let (shape, values) = outputs[OUTPUT].try_extract_tensor::<f32>()?;
    if !shape.iter().copied().eq(expected.map(|size| size as i64)) {
        return Err(EngineError::Runtime(format!("the output has shape {shape}, not {expected:?}")));
    }
    Ok(Array2::from_shape_vec(expected, values.to_vec()).expect("the shape was checked"))
}
