//! NVIDIA's GPUs, by their numbers. Each worker has its own copy of the weights.

use ort::ep::cuda::ConvAlgorithmSearch;
use ort::ep::{self, ArenaExtendStrategy, ExecutionProvider, ExecutionProviderDispatch};
use ort::memory::AllocationDevice;

use crate::engine::binding::Memory;
use crate::engine::device::{Auto, Bound, CudaGraphs, KeptWeights, Kind, Precision, Seat};
use crate::engine::numa::pin_to_gpu;
use crate::model::graph::Operators;

pub(super) const KIND: Kind = Kind {
    name: "cuda",
    numbered: true,
    provider: Some("CUDA"),
    package: "onnxruntime-gpu",
    built: ep::CUDA::is_available,
    precisions: &[Precision::Fp16, Precision::Fp32],
    refusal: |precision| match precision {
        Precision::Fp16 | Precision::Fp32 => None,
        Precision::Bf16 | Precision::Int8 => Some("GPUs compute in fp16 or fp32"),
    },
    auto: Auto::Gpu,
    operators: Operators::Fused,
    weights: KeptWeights::Copied,
    // The host only launches kernels, and computes shapes.
    add: |builder, seat| Ok(builder.with_intra_threads(1)?.with_execution_providers([provider(seat)])?),
    bound: Some(Bound {
        memory: |number| Memory::Device {
            device: AllocationDevice::CUDA,
            pinned: AllocationDevice::CUDA_PINNED,
            id: i32::from(number),
        },
        pin: |number| pin_to_gpu(usize::from(number)),
    }),
};

fn provider(seat: &Seat) -> ExecutionProviderDispatch {
    let provider = ep::CUDA::default()
        .with_device_id(i32::from(seat.device.number))
        // All sizes are known after the warm-up: doubling would only leave holes.
        .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
        // Trying every algorithm would make each bucket's first run slow.
        .with_conv_algorithm_search(ConvAlgorithmSearch::Heuristic)
        // fp32 is the reference.
        .with_tf32(false)
        .with_cuda_graph(seat.gpu.graphs == CudaGraphs::On);
    let provider = match seat.gpu.memory_bytes {
        Some(bytes) => provider.with_memory_limit(bytes.get()),
        None => provider,
    };
    provider.build().error_on_failure()
}
