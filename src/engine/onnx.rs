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

use super::device::{Device, Precision, check_available};
use super::runtime::runtime;
use super::session::{Encoder, Provider};
use super::{Batch, Description, Engine, EngineError};
use crate::clip::row::{ImageRow, TokenRow};
use crate::clip::spec::ClipSpec;
use crate::model::graph::Graph;

/// A model's encoders in memory, not yet on a device.
pub struct OnnxModel {
    embed_dim: usize,
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

/// Both encoders of a model, opened on a device.
pub struct OnnxEngine {
    image: Session,
    text: Session,
    /// Height, width, channels.
    image_shape: [usize; 3],
    sizes: FixedSizes,
    embed_dim: usize,
    /// Inputs are put together here, so that a batch allocates nothing once the largest one was seen.
    pixels: Vec<u8>,
    tokens: Vec<i64>,
    description: Description,
}

impl Engine for OnnxEngine {
    fn run(&mut self, batch: &Batch) -> Result<Array2<f32>, EngineError> {
        match batch {
            Batch::Images(rows) => in_runs(rows, self.sizes.image_rows, |rows| self.run_images(rows)),
            Batch::Texts(rows) => in_runs(rows, self.sizes.text_rows, |rows| self.run_texts(rows)),
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
        run(&mut self.image, input.into(), [rows.len(), self.embed_dim])
    }

    /// Rows are padded with 0 to the longest; the encoder does not look beyond a row's end token.
    fn run_texts(&mut self, rows: &[TokenRow]) -> Result<Array2<f32>, EngineError> {
        let longest = rows.iter().map(|TokenRow(tokens)| tokens.len()).max().unwrap_or(0);
        let longest = self.sizes.text_length.unwrap_or(longest);
        self.tokens.clear();
        for (index, TokenRow(tokens)) in rows.iter().enumerate() {
            self.tokens.extend(tokens.iter().map(|&token| i64::from(token)));
            self.tokens.resize((index + 1) * longest, 0);
        }
        let input = TensorRef::from_array_view(([rows.len(), longest], self.tokens.as_slice()))?;
        run(&mut self.text, input.into(), [rows.len(), self.embed_dim])
    }
}

/// Where a graph takes only so many rows, a batch is several runs.
fn in_runs<R>(
    rows: &[R],
    limit: Option<usize>,
    mut run: impl FnMut(&[R]) -> Result<Array2<f32>, EngineError>,
) -> Result<Array2<f32>, EngineError> {
    let Some(limit) = limit else { return run(rows) };
    let runs = rows.chunks(limit).map(run).collect::<Result<Vec<_>, _>>()?;
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
