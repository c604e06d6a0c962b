//! How an encoder becomes a session of ONNX Runtime: which provider, with which options, on whose weights.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use ort::ep::cuda::ConvAlgorithmSearch;
use ort::ep::{
    self, ArbitrarilyConfigurableExecutionProvider, ArenaExtendStrategy, ExecutionProviderDispatch,
};
use ort::session::Session;
use ort::session::builder::{PrepackedWeights, SessionBuilder};
use ort::value::{DynValue, Tensor};

use super::EngineError;
use super::device::Precision;
use super::runtime::{Runtime, runtime};
use crate::model::graph::{Graph, Values, int8};

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

/// What a session runs on.
pub(super) enum Provider<'a> {
    /// ONNX Runtime's own kernels, and what the sessions of a model have in common.
    Cpu(&'a PrepackedWeights),
    OpenVino(Precision),
    Cuda(Cuda),
}

/// How a GPU is used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cuda {
    pub(super) number: u16,
    pub(super) options: GpuOptions,
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

    /// A session that uses `threads` threads, the caller's among them.
    pub(super) fn open(
        &self,
        provider: &Provider<'_>,
        threads: NonZeroUsize,
    ) -> Result<Session, EngineError> {
        let runtime = runtime()?;
        let mut builder = Session::builder(&runtime.environment)?
            .with_inter_threads(1)?
            // Threads that spin between operators double the CPU time of a short text, and take the CPU
            // from preprocessing and from the other encoder.
            .with_intra_op_spinning(false)?;
        if let Some(directory) = &self.directory {
            builder = builder.with_config_entry(WEIGHTS_DIRECTORY, directory.to_string_lossy())?;
        }
        let mut builder = match provider {
            Provider::Cpu(prepacked) => {
                let builder =
                    builder.with_intra_threads(threads.get())?.with_execution_providers([cpu_provider()])?;
                if self.shareable && shares_weights(runtime) {
                    self.with_shared_weights(builder, prepacked)?
                } else {
                    self.with_own_weights(builder)?
                }
            }
            Provider::OpenVino(precision) => {
                let builder = builder
                    .with_intra_threads(1)?
                    .with_execution_providers([openvino_provider(*precision, threads)])?
                    // A node that OpenVINO cannot take is an error, not a slow detour.
                    .with_disable_cpu_fallback()?;
                self.with_own_weights(builder)?
            }
            Provider::Cuda(cuda) => {
                // Graphs that others exported may have operators without a CUDA kernel, which cannot be recorded.
                let graphs = if self.weights.is_empty() { CudaGraphs::Off } else { cuda.options.graphs };
                let cuda = Cuda { options: GpuOptions { graphs, ..cuda.options }, ..*cuda };
                // The host only launches kernels, and computes shapes.
                let builder =
                    builder.with_intra_threads(1)?.with_execution_providers([cuda_provider(cuda)])?;
                self.with_own_weights(builder)?
            }
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
/// weights when the graph is not a file itself, and refuse. OpenVINO ignores shared weights, silently.
fn shares_weights(runtime: &Runtime) -> bool {
    runtime.version.starts_with("1.24.")
}

/// The arena is ONNX Runtime's default, but not `ort`'s.
fn cpu_provider() -> ExecutionProviderDispatch {
    ep::CPU::default().with_arena_allocator(true).build().error_on_failure()
}

fn openvino_provider(precision: Precision, threads: NonZeroUsize) -> ExecutionProviderDispatch {
    // Group 0 switches OpenVINO's own quantisation off, whatever the weights are.
    let (hint, group) = match precision {
        Precision::Fp32 => ("f32", 0),
        Precision::Bf16 => ("bf16", 0),
        Precision::Int8 => ("f32", int8::GROUP),
        Precision::Fp16 => ("f16", 0),
    };
    let config = serde_json::json!({
        "CPU": {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": threads.to_string(),
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": group.to_string(),
            // Pinned, the threads of two sessions share a core while another is idle: two workers of one thread then
            // give 6.3 images/s instead of 12.8.
            "ENABLE_CPU_PINNING": "NO",
            // What OpenVINO keeps for each shape of a batch, 0.4 MB and some three entries of this cache: here for
            // some 170 of the thousand and more shapes that texts come in. A shape that is not there costs 2 ms.
            "CPU_RUNTIME_CACHE_CAPACITY": "512",
        }
    });
    ep::OpenVINO::default()
        .with_device_type("CPU")
        .with_arbitrary_config("load_config", config)
        .build()
        .error_on_failure()
}

fn cuda_provider(Cuda { number, options }: Cuda) -> ExecutionProviderDispatch {
    let provider = ep::CUDA::default()
        .with_device_id(i32::from(number))
        // All sizes are known after the warm-up: doubling would only leave holes.
        .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
        // Trying every algorithm would make each bucket's first run slow.
        .with_conv_algorithm_search(ConvAlgorithmSearch::Heuristic)
        // fp32 is the reference.
        .with_tf32(false)
        .with_cuda_graph(options.graphs == CudaGraphs::On);
    let provider = match options.memory_bytes {
        Some(bytes) => provider.with_memory_limit(bytes.get()),
        None => provider,
    };
    provider.build().error_on_failure()
}

impl<R> From<ort::Error<R>> for EngineError {
    fn from(error: ort::Error<R>) -> EngineError {
        EngineError::Runtime(error.message().to_owned())
    }
}
