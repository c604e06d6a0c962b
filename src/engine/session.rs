//! How an encoder becomes a session of ONNX Runtime: with which options, and on whose weights.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, io};

use ort::session::Session;
use ort::session::builder::{PrepackedWeights, SessionBuilder};
use ort::value::{DynValue, Tensor};
use tempfile::TempDir;

use super::EngineError;
use super::device::{CudaGraphs, GpuOptions, KeptWeights, Kind, Seat};
use super::runtime::{Runtime, runtime};
use crate::model::graph::{Graph, Values, Weight};

/// Where ONNX Runtime looks for files of weights when the graph is not a file itself.
const WEIGHTS_DIRECTORY: &str = "session.model_external_initializers_file_folder_path";

/// Whether it is an error that a provider leaves nodes to the CPU's kernels.
const NO_FALLBACK: &str = "session.disable_cpu_ep_fallback";

/// The graph among the files of an encoder.
const GRAPH: &str = "graph.onnx";

/// An encoder's graph and its weights.
pub(super) enum Encoder {
    InMemory {
        proto: Vec<u8>,
        weights: Weights,
        /// Where a ready-made graph has files of weights.
        directory: Option<PathBuf>,
    },
    /// Both in a directory that is removed with this: what sessions mapped stays theirs.
    InFiles(TempDir),
}

pub(super) enum Weights {
    /// Sessions use them where they are.
    Shared(Vec<(String, Arc<DynValue>)>),
    /// Files in memory, of which each session has a copy of its own once it is made. Not as values: a session keeps
    /// those that it was made of.
    Copied(Vec<(String, Arc<[u8]>)>),
}

impl Encoder {
    /// For sessions with weights of their own. At no time is more in memory than the weights and a copy of the largest.
    pub(super) fn new(graph: Graph) -> Encoder {
        let weights =
            graph.weights.into_iter().map(|Weight { name, values, .. }| (name, values.bytes().into()));
        let weights = Weights::Copied(weights.collect());
        Encoder::InMemory { proto: graph.proto, weights, directory: graph.directory }
    }

    /// For sessions on devices of this kind, as these keep weights.
    pub(super) fn of_kind(kind: &Kind, graph: Graph) -> Result<Encoder, EngineError> {
        match kind.weights {
            KeptWeights::Shared => Encoder::shared(graph),
            KeptWeights::Copied => Ok(Encoder::new(graph)),
            KeptWeights::Mapped => Ok(Encoder::in_files(graph, &env::temp_dir())),
        }
    }

    /// Sessions on ONNX Runtime's own kernels can share weights; but in other types than fp32 not: a kernel converts
    /// them when it loads, before shared ones are known, as it rearranges those of convolutions.
    fn shared(mut graph: Graph) -> Result<Encoder, EngineError> {
        let mut weights = Vec::new();
        let fp32 = graph.weights.iter().all(|weight| matches!(weight.values, Values::F32(_)));
        if !(fp32 && !graph.is_rearranged && shares_weights(runtime()?)) {
            return Ok(Encoder::new(graph));
        }
        for Weight { name, shape, values } in std::mem::take(&mut graph.weights) {
            if let Values::F32(values) = values {
                weights.push((name, Arc::new(Tensor::from_array((shape, values))?.into_dyn())));
            }
        }
        Ok(Encoder::InMemory {
            proto: graph.proto,
            weights: Weights::Shared(weights),
            directory: graph.directory,
        })
    }

    /// In a directory below `parent`, unless it cannot be written, or others exported the graph, with its weights in it
    /// or in files.
    fn in_files(graph: Graph, parent: &Path) -> Encoder {
        if graph.weights.is_empty() {
            return Encoder::new(graph);
        }
        let write = || -> io::Result<TempDir> {
            let files = tempfile::Builder::new().prefix("clipd-").tempdir_in(parent)?;
            graph.write(files.path(), GRAPH)?;
            Ok(files)
        };
        write().map(Encoder::InFiles).unwrap_or_else(|error| {
            let directory = parent.display();
            tracing::warn!(%directory, %error, "weights cannot be written to files, so more memory is kept for them");
            Encoder::new(graph)
        })
    }

    /// A session for `seat`; those that may share weights have `prepacked` in common.
    pub(super) fn open(&self, seat: &Seat, prepacked: &PrepackedWeights) -> Result<Session, EngineError> {
        let runtime = runtime()?;
        let builder = Session::builder(&runtime.environment)?
            .with_inter_threads(1)?
            // Threads that spin between operators double the CPU time of a short text, and take the CPU
            // from preprocessing and from the other encoder.
            .with_intra_op_spinning(false)?;
        match self {
            Encoder::InMemory { proto, weights, directory } => {
                // Graphs that others exported may have operators without a CUDA kernel, which cannot be recorded.
                let is_ours = weights.are_apart();
                let graphs = if is_ours { seat.gpu.graphs } else { CudaGraphs::Off };
                let seat = Seat { gpu: GpuOptions { graphs, ..seat.gpu }, ..*seat };
                let mut builder = weights.add((seat.device.kind.add)(builder, &seat)?, prepacked)?;
                if !is_ours {
                    // Nor need another provider take all of them.
                    builder = builder.with_config_entry(NO_FALLBACK, "0")?;
                }
                if let Some(directory) = directory {
                    builder = builder.with_config_entry(WEIGHTS_DIRECTORY, directory.to_string_lossy())?;
                }
                Ok(builder.commit_from_memory(proto)?)
            }
            Encoder::InFiles(files) => {
                Ok((seat.device.kind.add)(builder, seat)?.commit_from_file(files.path().join(GRAPH))?)
            }
        }
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::engine::device::{Device, Precision};
    use crate::engine::kinds::available_devices;
    use crate::model::Model;

    fn image_encoder() -> Graph {
        Model::builtin(Device::OPENVINO.form(Precision::Fp32)).unwrap().image
    }

    #[test]
    fn weights_in_files_are_mapped_and_the_files_go_with_the_encoder() {
        if !available_devices().unwrap().contains(&Device::OPENVINO) {
            eprintln!("skipped: this ONNX Runtime has no device that maps weights");
            return;
        }
        let home = tempfile::tempdir().unwrap();
        let encoder = Encoder::in_files(image_encoder(), home.path());
        let session = encoder.open(&Seat::new(Device::OPENVINO, Precision::Fp32), &PrepackedWeights::new());
        let session = session.unwrap();
        drop(encoder);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
        let mapped = fs::read_to_string("/proc/self/maps").unwrap();
        assert!(mapped.contains(home.path().to_str().unwrap()), "{mapped}");
        drop(session);
    }

    #[test]
    fn without_a_place_for_files_weights_stay_in_memory() {
        let home = tempfile::tempdir().unwrap();
        let encoder = Encoder::in_files(image_encoder(), &home.path().join("missing"));
        assert!(matches!(encoder, Encoder::InMemory { .. }));
    }
}
