//! The engine that serves: a model's encoders on ONNX Runtime.
//!
//! It does not choose a device; the caller does, with what [`super::device`]
//! says. An [`OnnxModel`] holds the weights and is shared by all workers; each worker opens an
//! [`OnnxEngine`] of its own, on its own thread.

use std::num::NonZeroUsize;

use ndarray::{Array2, Axis, concatenate};
use ort::session::builder::PrepackedWeights;
use ort::session::{Session, SessionInputValue};
use ort::value::TensorRef;

use super::binding::{BoundEncoder, Memory};
use super::buckets::Buckets;
use super::device::{Device, Precision, check_available};
use super::gpu::GpuEngine;
use super::input::Input;
use super::numa::pin_to_gpu;
use super::runtime::runtime;
use super::session::{Cuda, Encoder, GpuOptions, Provider};
use super::{Description, Engine, EngineError};
use crate::clip::spec::ClipSpec;
use crate::modality::{ByModality, Modality};
use crate::model::graph::Graph;

/// A model's encoders in memory, not yet on a device.
pub struct OnnxModel {
    embed_dim: usize,
    context_length: usize,
    /// Height, width, channels.
    image_shape: [usize; 3],
    image: Encoder,
    text: Encoder,
    sizes: FixedSizes,
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
            context_length: spec.text.context_length,
            image_shape: [spec.image.height as usize, spec.image.width as usize, 3],
            sizes: FixedSizes { image_rows: image.rows, text_rows: text.rows, text_length: text.length },
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
            Device::Cuda(_) => {
                return Err(EngineError::Device(format!("device {device} is opened with its buckets")));
            }
            Device::Cpu => (Provider::Cpu(&self.prepacked), format!("onnxruntime {}", runtime.version)),
            Device::OpenVino => {
                (Provider::OpenVino(precision), format!("onnxruntime {} (OpenVINO)", runtime.version))
            }
        };
        Ok(OnnxEngine {
            image: self.image.open(&provider, threads)?,
            text: self.text.open(&provider, threads)?,
            image_shape: self.image_shape,
            sizes: self.sizes,
            embed_dim: self.embed_dim,
            description: Description {
                device: device.to_string(),
                engine,
                precision: precision.as_str().to_owned(),
            },
        })
    }

    /// Opens both encoders on a GPU, on the thread that will run them, which moves to the cores beside it.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the GPU or the precision cannot be had here.
    pub fn open_gpu(
        &self,
        number: u16,
        precision: Precision,
        options: GpuOptions,
        max_batch_size: ByModality<NonZeroUsize>,
    ) -> Result<GpuEngine, EngineError> {
        let runtime = runtime()?;
        let device = Device::Cuda(number);
        check_available(device, precision)?;
        if self.sizes.fixed() {
            let refusal = format!("device {device}: this model's graphs are made for batches of one size");
            return Err(EngineError::Device(refusal));
        }
        pin_to_gpu(usize::from(number));
        let buckets = Buckets::up_to(max_batch_size, self.context_length);
        let description = Description {
            device: device.to_string(),
            engine: format!("onnxruntime {} (CUDA)", runtime.version),
            precision: precision.as_str().to_owned(),
        };
        let provider = Provider::Cuda(Cuda { number, options });
        self.open_bound(&provider, Memory::Cuda(i32::from(number)), buckets, description)
            .map_err(|error| EngineError::Device(format!("device {device} cannot be used: {error}")))
    }

    /// What [`GpuEngine`] does, on the CPU provider.
    #[cfg(test)]
    pub(super) fn open_bound_on_the_cpu(&self, buckets: Buckets) -> Result<GpuEngine, EngineError> {
        let word = || "cpu".to_owned();
        let description = Description { device: word(), engine: word(), precision: word() };
        self.open_bound(&Provider::Cpu(&self.prepacked), Memory::Host, buckets, description)
    }

    fn open_bound(
        &self,
        provider: &Provider<'_>,
        memory: Memory,
        buckets: Buckets,
        description: Description,
    ) -> Result<GpuEngine, EngineError> {
        let bound = |encoder: &Encoder| {
            Ok::<_, EngineError>(BoundEncoder::new(
                encoder.open(provider, NonZeroUsize::MIN)?,
                memory,
                self.embed_dim,
            ))
        };
        Ok(GpuEngine::new(bound(&self.image)?, bound(&self.text)?, self.image_shape, buckets, description))
    }
}

/// What a ready-made graph may leave no choice about.
#[derive(Clone, Copy)]
struct FixedSizes {
    /// Rows of a run.
    image_rows: Option<usize>,
    /// Rows of a run.
    text_rows: Option<usize>,
    /// Tokens of a row.
    text_length: Option<usize>,
}

impl FixedSizes {
    fn fixed(&self) -> bool {
        self.image_rows.or(self.text_rows).or(self.text_length).is_some()
    }
}

/// Both encoders of a model, opened on a device.
pub struct OnnxEngine {
    image: Session,
    text: Session,
    /// Height, width, channels.
    image_shape: [usize; 3],
    sizes: FixedSizes,
    embed_dim: usize,
    description: Description,
}

impl Engine for OnnxEngine {
    fn input(&mut self) -> Result<Input, EngineError> {
        Ok(Input::new(self.sizes.text_length))
    }

    fn run(&mut self, input: &Input) -> Result<Array2<f32>, EngineError> {
        match input.modality() {
            Modality::Image => self.run_images(input),
            Modality::Text => self.run_texts(input),
        }
    }

    fn buckets(&self) -> Option<&Buckets> {
        None
    }

    fn stages(&self) -> bool {
        true
    }

    fn description(&self) -> &Description {
        &self.description
    }
}

impl OnnxEngine {
    fn run_images(&mut self, input: &Input) -> Result<Array2<f32>, EngineError> {
        let [height, width, channels] = self.image_shape;
        let row = height * width * channels;
        assert_eq!(input.pixels().len(), input.rows() * row, "preprocessing makes rows of the model's size");
        in_runs(input.pixels(), row, self.sizes.image_rows, |rows| {
            let count = rows.len() / row;
            let rows = TensorRef::from_array_view(([count, height, width, channels], rows))?;
            run(&mut self.image, rows.into(), [count, self.embed_dim])
        })
    }

    fn run_texts(&mut self, input: &Input) -> Result<Array2<f32>, EngineError> {
        let length = input.ids().len() / input.rows();
        in_runs(input.ids(), length, self.sizes.text_rows, |rows| {
            let count = rows.len() / length;
            let rows = TensorRef::from_array_view(([count, length], rows))?;
            run(&mut self.text, rows.into(), [count, self.embed_dim])
        })
    }
}

/// Where a graph takes only so many rows, each of `row` values, a batch is several runs.
fn in_runs<T>(
    rows: &[T],
    row: usize,
    limit: Option<usize>,
    mut run: impl FnMut(&[T]) -> Result<Array2<f32>, EngineError>,
) -> Result<Array2<f32>, EngineError> {
    let Some(limit) = limit else { return run(rows) };
    let runs = rows.chunks(limit * row).map(run).collect::<Result<Vec<_>, _>>()?;
    let runs: Vec<_> = runs.iter().map(|run| run.view()).collect();
    Ok(concatenate(Axis(0), &runs).expect("embeddings have one width"))
}

/// Every graph has one input and one output.
fn run(
    session: &mut Session,
    input: SessionInputValue<'_>,
    expected: [usize; 2],
) -> Result<Array2<f32>, EngineError> {
    let outputs = session.run([input])?;
    let (shape, values) = outputs[0].try_extract_tensor::<f32>()?;
    if !shape.iter().copied().eq(expected.map(|size| size as i64)) {
        return Err(EngineError::Runtime(format!("the output has shape {shape}, not {expected:?}")));
    }
    Ok(Array2::from_shape_vec(expected, values.to_vec()).expect("the shape was checked"))
}
