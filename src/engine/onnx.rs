//! The engine that serves: a model's graphs on ONNX Runtime.
//!
//! This module and [`runtime`](super::runtime) are the only users of `ort`. An [`OnnxModel`] holds the
//! weights and is shared by all workers; each worker opens an [`OnnxEngine`] of its own, on its own thread.

use std::num::NonZeroUsize;
use std::sync::Arc;

use ndarray::Array2;
use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider, ExecutionProvider, ExecutionProviderDispatch};
use ort::session::builder::{PrepackedWeights, SessionBuilder};
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Tensor, TensorRef};

use super::runtime::runtime;
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
    /// The reference: embeddings agree with open_clip's to about 1e-6.
    Fp32,
    /// Cosine to the reference about 0.9999. On [`Device::OpenVino`] only; see [`bf16_preferred`].
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

/// The devices that the loaded ONNX Runtime was built for; the CPU is always one.
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

/// Whether bf16 is faster than fp32 here, as it is with AMX: four to five times.
///
/// With AVX-512's bf16 instructions alone OpenVINO needs 1.7 times the CPU time of fp32 for an image.
pub fn bf16_preferred() -> bool {
    cpu_has("amx_bf16")
}

/// The standard library's detection does not know AMX yet. There is no such file but on Linux.
fn cpu_has(flag: &str) -> bool {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|cpus| {
        cpus.lines().find(|line| line.starts_with("flags")).is_some_and(|flags| flags.split(' ').any(|word| word == flag))
    })
}

/// A model's encoders in ONNX Runtime's memory, not yet on a device.
pub struct OnnxModel {
    embed_dim: usize,
    image_shape: [usize; 3],
    image: Encoder,
    text: Encoder,
    /// Weights in the layout of the CPU provider's kernels, made by the first session, used by all.
    prepacked: PrepackedWeights,
}

struct Encoder {
    proto: Vec<u8>,
    weights: Vec<(String, Arc<DynValue>)>,
}

impl OnnxModel {
    /// Loads ONNX Runtime and hands it the weights; they are not copied.
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

    /// Opens both encoders on `device`. Called on the thread that will run them, which may use `threads`
    /// threads, itself included.
    pub fn open(
        &self,
        device: Device,
        precision: Precision,
        threads: NonZeroUsize,
    ) -> Result<OnnxEngine, EngineError> {
        let runtime = runtime()?;
        check_available(device, precision)?;
        let session = |encoder: &Encoder| -> Result<Session, EngineError> {
            let builder = Session::builder(&runtime.environment)?
                .with_inter_threads(1)?
                // Spinning threads would take the CPU from preprocessing and from the other encoder.
                .with_intra_op_spinning(false)?;
            let mut builder = match device {
                Device::Cpu => self.cpu(builder, encoder, threads)?,
                Device::OpenVino => openvino(builder, encoder, precision, threads)?,
            };
            Ok(builder.commit_from_memory(&encoder.proto)?)
        };
        let provider = match device {
            Device::Cpu => String::new(),
            Device::OpenVino => " (OpenVINO)".to_owned(),
        };
        Ok(OnnxEngine {
            image: session(&self.image)?,
            text: session(&self.text)?,
            image_shape: self.image_shape,
            embed_dim: self.embed_dim,
            pixels: Vec::new(),
            tokens: Vec::new(),
            description: Description {
                device: device.as_str().to_owned(),
                engine: format!("onnxruntime {}{provider}", runtime.version),
                precision: precision.as_str().to_owned(),
            },
        })
    }

    /// With ONNX Runtime 1.24 weights stay where they are, and what the kernels make of them is kept once
    /// for all sessions. Later releases refuse that for a graph that is not a file: each session copies.
    fn cpu(
        &self,
        builder: SessionBuilder,
        encoder: &Encoder,
        threads: NonZeroUsize,
    ) -> Result<SessionBuilder, EngineError> {
        let builder = builder
            .with_intra_threads(threads.get())?
            .with_execution_providers([ep::CPU::default().with_arena_allocator(true).build().error_on_failure()])?;
        if !runtime()?.version.starts_with("1.24.") {
            return with_own_weights(builder, encoder);
        }
        let mut builder = builder.with_prepacked_weights(&self.prepacked)?;
        for (name, value) in &encoder.weights {
            builder = builder.with_initializer(name, Arc::clone(value))?;
        }
        Ok(builder)
    }
}

fn openvino(
    builder: SessionBuilder,
    encoder: &Encoder,
    precision: Precision,
    threads: NonZeroUsize,
) -> Result<SessionBuilder, EngineError> {
    let builder = builder
        .with_intra_threads(1)?
        .with_execution_providers([openvino_provider(precision, threads)])?
        // A node that OpenVINO cannot take is an error, not a slow detour.
        .with_disable_cpu_fallback()?;
    // It ignores shared weights without an error.
    with_own_weights(builder, encoder)
}

/// The session copies the weights when it is made.
fn with_own_weights(mut builder: SessionBuilder, encoder: &Encoder) -> Result<SessionBuilder, EngineError> {
    for (name, value) in &encoder.weights {
        builder = builder.with_external_initializer(name, Arc::clone(value))?;
    }
    Ok(builder)
}

fn openvino_provider(precision: Precision, threads: NonZeroUsize) -> ExecutionProviderDispatch {
    let hint = match precision {
        Precision::Fp32 => "f32",
        Precision::Bf16 => "bf16",
    };
    let config = serde_json::json!({
        "CPU": { "INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads.to_string() }
    });
    ep::OpenVINO::default()
        .with_device_type("CPU")
        .with_arbitrary_config("load_config", config)
        .build()
        .error_on_failure()
}

fn check_available(device: Device, precision: Precision) -> Result<(), EngineError> {
    if !available_devices()?.contains(&device) {
        return Err(EngineError::Device(format!(
            "device {}: this ONNX Runtime was built without the provider; use the one of the Python package \
             onnxruntime-openvino, or device cpu",
            device.as_str()
        )));
    }
    match (device, precision) {
        (Device::Cpu, Precision::Bf16) => {
            Err(EngineError::Device("precision bf16 needs device openvino; device cpu computes in fp32".to_owned()))
        }
        (Device::OpenVino, Precision::Bf16) if !bf16_supported() => {
            Err(EngineError::Device("precision bf16: this CPU has neither AVX-512's nor AMX's bf16 instructions".to_owned()))
        }
        _ => Ok(()),
    }
}

impl Encoder {
    fn new(graph: Graph) -> Result<Encoder, EngineError> {
        let weights = graph
            .weights
            .into_iter()
            .map(|weight| {
                let tensor = Tensor::from_array((weight.shape, weight.values))?;
                Ok((weight.name, Arc::new(tensor.into_dyn())))
            })
            .collect::<Result<_, EngineError>>()?;
        Ok(Encoder { proto: graph.proto, weights })
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
            assert_eq!(pixels.len(), height * width * channels, "preprocessing makes rows of the model's size");
            self.pixels.extend_from_slice(pixels);
        }
        let input = TensorRef::from_array_view(([rows.len(), height, width, channels], self.pixels.as_slice()))?;
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
    Array2::from_shape_vec(expected, values.to_vec())
        .map_err(|_| EngineError::Runtime(format!("the output has shape {shape}, not {expected:?}")))
}

impl<R> From<ort::Error<R>> for EngineError {
    fn from(error: ort::Error<R>) -> EngineError {
        EngineError::Runtime(error.message().to_owned())
    }
}
