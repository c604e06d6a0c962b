//! How an encoder becomes a session of ONNX Runtime: with which options, and on whose weights.

use std::path::PathBuf;
use std::sync::Arc;

use ort::session::Session;
use ort::session::builder::{PrepackedWeights, SessionBuilder};
use ort::value::{DynValue, Tensor};

use super::EngineError;
use super::device::{CudaGraphs, GpuOptions, Seat};
use super::runtime::{Runtime, runtime};
use crate::model::graph::{Graph, Values};

/// Where ONNX Runtime looks for files of weights when the graph is not a file itself.
const WEIGHTS_DIRECTORY: &str = "session.model_external_initializers_file_folder_path";

/// An encoder's graph and its weights, in memory that sessions may share.
pub(super) struct Encoder {
    proto: Vec<u8>,
    weights: Vec<(String, Arc<DynValue>)>,
    directory: Option<PathBuf>,
    /// Sessions on ONNX Runtime's own kernels may share the weights. In other types than fp32 they may not: a kernel
    /// converts them when it loads, before shared ones are known.
    shareable: bool,
}

impl Encoder {
    /// Takes the weights as they are; nothing is copied.
    pub(super) fn new(graph: Graph) -> Result<Encoder, EngineError> {
        let shareable = graph.weights.iter().all(|weight| matches!(weight.values, Values::F32(_)));
        let weights = graph
            .weights
            .into_iter()
            .map(|weight| {
                let tensor = match weight.values {
                    Values::F32(values) => Tensor::from_array((weight.shape, values))?.into_dyn(),
                    Values::F16(values) => Tensor::from_array((weight.shape, values))?.into_dyn(),
                    Values::I8(values) => Tensor::from_array((weight.shape, values))?.into_dyn(),
                };
                Ok((weight.name, Arc::new(tensor)))
            })
            .collect::<Result<_, EngineError>>()?;
        Ok(Encoder { proto: graph.proto, weights, directory: graph.directory, shareable })
    }

    /// A session for `seat`; those that may share weights have `prepacked` in common.
    pub(super) fn open(&self, seat: &Seat, prepacked: &PrepackedWeights) -> Result<Session, EngineError> {
        let runtime = runtime()?;
        let mut builder = Session::builder(&runtime.environment)?
            .with_inter_threads(1)?
            // Threads that spin between operators double the CPU time of a short text, and take the CPU
            // from preprocessing and from the other encoder.
            .with_intra_op_spinning(false)?;
        if let Some(directory) = &self.directory {
            builder = builder.with_config_entry(WEIGHTS_DIRECTORY, directory.to_string_lossy())?;
        }
        // Graphs that others exported may have operators without a CUDA kernel, which cannot be recorded.
        let graphs = if self.weights.is_empty() { CudaGraphs::Off } else { seat.gpu.graphs };
        let seat = Seat { gpu: GpuOptions { graphs, ..seat.gpu }, ..*seat };
        let kind = seat.device.kind;
        let builder = (kind.add)(builder, &seat)?;
        let mut builder = if kind.shares_weights && self.shareable && shares_weights(runtime) {
            self.with_shared_weights(builder, prepacked)?
        } else {
            self.with_own_weights(builder)?
        };
        Ok(builder.commit_from_memory(&self.proto)?)
    }

    /// Weights stay where they are, and what the kernels make of them is made once for all sessions.
    fn with_shared_weights(
        &self,
        builder: SessionBuilder,
        prepacked: &PrepackedWeights,
    ) -> Result<SessionBuilder, EngineError> {
        let mut builder = builder.with_prepacked_weights(prepacked)?;
        for (name, value) in &self.weights {
            builder = builder.with_initializer(name, Arc::clone(value))?;
        }
        Ok(builder)
    }

    /// The session copies the weights when it is made.
    fn with_own_weights(&self, mut builder: SessionBuilder) -> Result<SessionBuilder, EngineError> {
        for (name, value) in &self.weights {
            builder = builder.with_external_initializer(name, Arc::clone(value))?;
        }
        Ok(builder)
    }
}

/// ONNX Runtime 1.24 lets sessions on its own kernels share weights. Later releases look for a file of
/// weights when the graph is not a file itself, and refuse.
fn shares_weights(runtime: &Runtime) -> bool {
    runtime.version.starts_with("1.24.")
}

impl<R> From<ort::Error<R>> for EngineError {
    fn from(error: ort::Error<R>) -> EngineError {
        EngineError::Runtime(error.message().to_owned())
    }
}
