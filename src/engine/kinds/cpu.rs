//! ONNX Runtime's own kernels. Workers share one copy of the weights.

use ort::ep;

use crate::engine::device::{Auto, KeptWeights, Kind, Precision};
use crate::model::graph::Operators;

pub(super) const KIND: Kind = Kind {
    name: "cpu",
    numbered: false,
    provider: None,
    package: "onnxruntime",
    built: || Ok(true),
    precisions: &[Precision::Fp32],
    refusal: |precision| match precision {
        Precision::Fp32 => None,
        Precision::Bf16 | Precision::Int8 => Some("needs device openvino; device cpu computes in fp32"),
        Precision::Fp16 => Some("needs a GPU, such as device cuda:0"),
    },
    auto: Auto::Fastest(|precision| (precision == Precision::Fp32).then_some(1.0)),
    operators: Operators::Standard,
    weights: KeptWeights::Shared,
    add: |builder, seat| {
        // The arena is ONNX Runtime's default, but not `ort`'s.
        let provider = ep::CPU::default().with_arena_allocator(true).build().error_on_failure();
        Ok(builder.with_intra_threads(seat.threads.get())?.with_execution_providers([provider])?)
    },
    bound: None,
};
