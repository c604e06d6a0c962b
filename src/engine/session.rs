//! How an encoder becomes a session of ONNX Runtime: with which options, and on whose weights.

use std::path::PathBuf;
use std::sync::Arc;

use half::slice::HalfFloatSliceExt;
use ort::session::Session;
use ort::session::builder::{PrepackedWeights, SessionBuilder};
use ort::value::{DynValue, Tensor};

use super::EngineError;
use super::device::{CudaGraphs, GpuOptions, Kind, Seat};
use super::runtime::{Runtime, runtime};
use crate::model::graph::{Graph, Values, Weight};

/// Where ONNX Runtime looks for files of weights when the graph is not a file itself.
const WEIGHTS_DIRECTORY: &str = "session.model_external_initializers_file_folder_path";

/// Whether it is an error that a provider leaves nodes to the CPU's kernels.
const NO_FALLBACK: &str = "session.disable_cpu_ep_fallback";

/// An encoder's graph and its weights, in memory.
pub(super) struct Encoder {
    proto: Vec<u8>,
    weights: Weights,
    directory: Option<PathBuf>,
}

enum Weights {
    /// Sessions use them where they are.
    Shared(Vec<(String, Arc<DynValue>)>),
    /// Files in memory, of which each session has a copy of its own once it is made. Not as values: a session keeps
    /// those that it was made of.
    Copied(Vec<(String, Arc<[u8]>)>),
}

impl Encoder {
    /// For sessions with weights of their own. At no time is more in memory than the weights and a copy of the largest.
    pub(super) fn new(graph: Graph) -> Encoder {
        let weights = graph.weights.into_iter().map(|Weight { name, values, .. }| {
            let bytes: &[u8] = match &values {
                Values::F32(values) => bytemuck::cast_slice(values),
                Values::F16(values) => bytemuck::cast_slice(values.reinterpret_cast()),
                Values::I8(values) => bytemuck::cast_slice(values),
            };
            (name, bytes.into())
        });
        let weights = Weights::Copied(weights.collect());
        Encoder { proto: graph.proto, weights, directory: graph.directory }
    }

    /// For sessions on devices of this kind, which share the weights if they can. Sessions on ONNX Runtime's own
    /// kernels can; but in other types than fp32 not: a kernel converts them when it loads, before shared ones are
    /// known, as it rearranges those of convolutions.
    pub(super) fn of_kind(kind: &Kind, mut graph: Graph) -> Result<Encoder, EngineError> {
        let mut weights = Vec::new();
        let fp32 = graph.weights.iter().all(|weight| matches!(weight.values, Values::F32(_)));
        let shares = kind.shares_weights && fp32 && !graph.is_rearranged;
        if !(shares && shares_weights(runtime()?)) {
            return Ok(Encoder::new(graph));
        }
        for Weight { name, shape, values } in std::mem::take(&mut graph.weights) {
            if let Values::F32(values) = values {
                weights.push((name, Arc::new(Tensor::from_array((shape, values))?.into_dyn())));
            }
        }
        Ok(Encoder { proto: graph.proto, weights: Weights::Shared(weights), directory: graph.directory })
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
        let is_ours = self.weights.are_apart();
        let graphs = if is_ours { seat.gpu.graphs } else { CudaGraphs::Off };
        let seat = Seat { gpu: GpuOptions { graphs, ..seat.gpu }, ..*seat };
        builder = (seat.device.kind.add)(builder, &seat)?;
        if !is_ours {
            // Nor need another provider take all of them.
            builder = builder.with_config_entry(NO_FALLBACK, "0")?;
        }
        let mut builder = self.weights.add(builder, prepacked)?;
        Ok(builder.commit_from_memory(&self.proto)?)
    }
}

impl Weights {
    /// Whether there are any beside the protobuf.
    fn are_apart(&self) -> bool {
        match self {
            Weights::Shared(weights) => !weights.is_empty(),
            Weights::Copied(weights) => !weights.is_empty(),
        }
    }

    fn add(
        &self,
        mut builder: SessionBuilder,
        prepacked: &PrepackedWeights,
    ) -> Result<SessionBuilder, EngineError> {
        match self {
            // What the kernels make of them is made once for all sessions, too.
            Weights::Shared(weights) => {
                builder = builder.with_prepacked_weights(prepacked)?;
                for (name, value) in weights {
                    builder = builder.with_initializer(name, Arc::clone(value))?;
                }
            }
            Weights::Copied(weights) => {
                for (name, bytes) in weights {
                    builder = builder.with_external_initializer_file_in_memory(name, Arc::clone(bytes))?;
                }
            }
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
