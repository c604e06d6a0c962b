//! The engine that serves: a model's encoders on ONNX Runtime.
//!
//! It does not choose a device; the caller does, by a [`Seat`]. An [`OnnxModel`] holds the weights and is shared by
//! all workers; each worker opens an engine of its own, on its own thread: an [`OnnxEngine`], or a [`BoundEngine`]
//! where the device has memory of its own.

use ndarray::{Array2, Axis, concatenate};
use ort::session::builder::PrepackedWeights;
use ort::session::{Session, SessionInputValue};
use ort::value::TensorRef;

use super::binding::{BoundEncoder, Memory};
use super::bound::BoundEngine;
use super::buckets::{Buckets, bucket_lengths};
use super::device::{Bound, Device, Seat};
use super::input::Input;
use super::runtime::runtime;
use super::session::Encoder;
use super::{Description, Engine, EngineError};
use crate::clip::spec::{ClipSpec, TextSpec};
use crate::modality::Modality;
use crate::model::graph::Graph;

/// A model's encoders in memory, not yet on a device.
pub struct OnnxModel {
    embed_dim: usize,
    /// Height, width, channels.
    image_shape: [usize; 3],
    image: Encoder,
    text: Option<Encoder>,
    texts: Option<TextSpec>,
    sizes: FixedSizes,
    /// Weights in the layout of the CPU kernels, made by the first session, used by all.
    prepacked: PrepackedWeights,
}

impl OnnxModel {
    /// Loads ONNX Runtime, for engines on devices of the kind of `device`.
    ///
    /// # Errors
    /// [`EngineError::Library`] if there is no ONNX Runtime.
    pub fn new(
        device: Device,
        spec: &ClipSpec,
        image: Graph,
        text: Option<Graph>,
    ) -> Result<OnnxModel, EngineError> {
        runtime()?;
        let text_sizes = text.as_ref().map(|text| (text.rows, text.length));
        let (text_rows, text_length) = text_sizes.unwrap_or_default();
        Ok(OnnxModel {
            embed_dim: spec.embed_dim,
            image_shape: [spec.image.height as usize, spec.image.width as usize, 3],
            sizes: FixedSizes { image_rows: image.rows, text_rows, text_length },
            image: Encoder::of_kind(device.kind, image)?,
            text: text.map(|text| Encoder::of_kind(device.kind, text)).transpose()?,
            texts: spec.text.clone(),
            prepacked: PrepackedWeights::new(),
        })
    }

    /// Opens the encoders, on the thread that will run them.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the device or the precision cannot be had here.
    pub fn open(&self, seat: &Seat) -> Result<Box<dyn Engine>, EngineError> {
        let Seat { device, precision, .. } = *seat;
        let version = &runtime()?.version;
        device.check(precision)?;
        let description = Description {
            device: device.to_string(),
            engine: match device.kind.provider {
                Some(provider) => format!("onnxruntime {version} ({provider})"),
                None => format!("onnxruntime {version}"),
            },
            precision: precision.as_str().to_owned(),
        };
        match &device.kind.bound {
            None => Ok(Box::new(self.open_free(seat, description)?)),
            Some(_) if self.sizes.rows_are_fixed() => Err(EngineError::Device(format!(
                "device {device}: this model's graphs are made for batches of one size"
            ))),
            Some(Bound { memory, pin }) => {
                pin(device.number);
                match self.open_bound(seat, &memory(device.number), description) {
                    Ok(engine) => Ok(Box::new(engine)),
                    Err(error) => {
                        Err(EngineError::Device(format!("device {device} cannot be used: {error}")))
                    }
                }
            }
        }
    }

    fn open_free(&self, seat: &Seat, description: Description) -> Result<OnnxEngine, EngineError> {
        Ok(OnnxEngine {
            image: self.image.open(seat, &self.prepacked)?,
            text: self.text.as_ref().map(|text| text.open(seat, &self.prepacked)).transpose()?,
            image_shape: self.image_shape,
            sizes: self.sizes,
            pad: self.pad(),
            embed_dim: self.embed_dim,
            description,
        })
    }

    fn open_bound(
        &self,
        seat: &Seat,
        memory: &Memory,
        description: Description,
    ) -> Result<BoundEngine, EngineError> {
        let bound = |encoder: &Encoder| {
            let session = encoder.open(seat, &self.prepacked)?;
            Ok::<_, EngineError>(BoundEncoder::new(session, memory.clone(), self.embed_dim))
        };
        let lengths = self.texts.as_ref().map_or_else(Vec::new, |texts| match self.sizes.text_length {
            Some(length) => vec![length],
            None => bucket_lengths(texts),
        });
        let buckets = Buckets::up_to(seat.max_batch_size, lengths);
        let encoders = (bound(&self.image)?, self.text.as_ref().map(bound).transpose()?);
        Ok(BoundEngine::new(encoders, self.image_shape, self.pad(), buckets, description))
    }

    /// Id of the token that pads.
    fn pad(&self) -> u32 {
        self.texts.as_ref().map_or(0, |texts| texts.padding.id)
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
    fn rows_are_fixed(&self) -> bool {
        self.image_rows.or(self.text_rows).is_some()
    }
}

/// The encoders of a model, opened on a device that runs batches of any size.
pub struct OnnxEngine {
    image: Session,
    text: Option<Session>,
    /// Height, width, channels.
    image_shape: [usize; 3],
    sizes: FixedSizes,
    /// Id of the token that pads.
    pad: u32,
    embed_dim: usize,
    description: Description,
}

impl Engine for OnnxEngine {
    fn input(&mut self) -> Result<Input, EngineError> {
        Ok(Input::new(self.sizes.text_length, self.pad))
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
        let text = self.text.as_mut().ok_or_else(EngineError::no_text_encoder)?;
        let length = input.ids().len() / input.rows();
        in_runs(input.ids(), length, self.sizes.text_rows, |rows| {
            let count = rows.len() / length;
            let rows = TensorRef::from_array_view(([count, length], rows))?;
            run(text, rows.into(), [count, self.embed_dim])
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
