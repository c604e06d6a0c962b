//! One encoder by itself, for those who look into it: its embeddings, and what enters its layers.
//!
//! What serves is [`super::onnx`]; this has neither workers nor memory of a device.

use ndarray::Array2;
use ort::session::builder::PrepackedWeights;
use ort::session::{Session, SessionOutputs};
use ort::value::TensorRef;

use super::device::Seat;
use super::input::Input;
use super::session::Encoder;
use super::{Batch, EngineError};
use crate::clip::spec::ClipSpec;
use crate::modality::Modality;
use crate::model::graph::Graph;

pub struct Single {
    session: Session,
    input: Input,
    /// Height and width.
    image: [usize; 2],
    observed: usize,
}

impl Single {
    /// Opens an encoder of the model `spec`, on a device that runs batches of any size.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the device or the precision cannot be had here.
    pub fn open(spec: &ClipSpec, graph: Graph, seat: &Seat) -> Result<Single, EngineError> {
        seat.device.check(seat.precision)?;
        let pad = spec.text.as_ref().map_or(0, |text| text.padding.id);
        let (input, observed) = (Input::new(graph.length, pad), graph.observed.len());
        let encoder = Encoder::of_kind(seat.device.kind, graph)?;
        let session = encoder.open(seat, &PrepackedWeights::new())?;
        Ok(Single {
            session,
            input,
            image: [spec.image.height as usize, spec.image.width as usize],
            observed,
        })
    }

    /// `[rows, embed_dim]`, not normalised.
    pub fn embed(&mut self, batch: &Batch) -> Result<Array2<f32>, EngineError> {
        self.observe(batch, |_, _, _| {})
    }

    /// The same, and to `see` what enters layers: the number of the graph's [`Graph::observed`], how many tokens a row
    /// has of it, and the values, channels last.
    pub fn observe(
        &mut self,
        batch: &Batch,
        mut see: impl FnMut(usize, usize, &[f32]),
    ) -> Result<Array2<f32>, EngineError> {
        self.input.fill(batch)?;
        let rows = batch.rows();
        let outputs: SessionOutputs<'_> = match batch.modality() {
            Modality::Image => {
                let [height, width] = self.image;
                let pixels = ([rows, height, width, 3], self.input.pixels());
                self.session.run([TensorRef::from_array_view(pixels)?.into()])?
            }
            Modality::Text => {
                let length = self.input.ids().len() / rows;
                let ids = ([rows, length], self.input.ids());
                self.session.run([TensorRef::from_array_view(ids)?.into()])?
            }
        };
        for number in 0..self.observed {
            let (shape, values) = outputs[number + 1].try_extract_tensor::<f32>()?;
            see(number, shape[1] as usize, values);
        }
        let (_, values) = outputs[0].try_extract_tensor::<f32>()?;
        Ok(Array2::from_shape_vec([rows, values.len() / rows], values.to_vec()).expect("rows have one width"))
    }
}
