//! Intel's OpenVINO on the CPU. Each worker has its own copy of the weights: it ignores shared ones, silently. What it
//! maps from files all workers have in common.

use std::num::NonZeroUsize;

use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider, ExecutionProvider, ExecutionProviderDispatch};

use crate::engine::device::{Auto, KeptWeights, Kind, Precision};
use crate::model::graph::Operators;

/// Who pays with memory or accuracy must be faster by this factor: OpenVINO holds a copy of the weights for every
/// worker, bf16 has a cosine of 0.99995 to fp32. On the CPUs that were seen, OpenVINO's fp32 is at
/// most 1.2 times as fast as ONNX Runtime's, and its bf16 either twice and more, or slower: far from both lines.
const WORTH_MEMORY: f64 = 1.4;
const WORTH_ACCURACY: f64 = 1.1;

pub(super) const KIND: Kind = Kind {
    name: "openvino",
    numbered: false,
    provider: Some("OpenVINO"),
    package: "onnxruntime-openvino",
    built: ep::OpenVINO::is_available,
    precisions: &[Precision::Fp32, Precision::Bf16, Precision::Int8],
    refusal: |precision| match precision {
        Precision::Bf16 if !bf16_supported() => {
            Some("cannot be had: this CPU has neither AVX-512's nor AMX's bf16 instructions")
        }
        Precision::Int8 if !int8_supported() => {
            Some("cannot be had: this CPU has neither AVX-512's nor AVX's VNNI instructions")
        }
        Precision::Fp16 => Some("needs a GPU, such as device cuda:0"),
        Precision::Fp32 | Precision::Bf16 | Precision::Int8 => None,
    },
    auto: Auto::Fastest(|precision| match precision {
        Precision::Fp32 => Some(WORTH_MEMORY),
        Precision::Bf16 => Some(WORTH_MEMORY * WORTH_ACCURACY),
        Precision::Int8 | Precision::Fp16 => None,
    }),
    operators: Operators::Standard,
    weights: KeptWeights::Mapped,
    add: |builder, seat| {
        Ok(builder
            .with_intra_threads(1)?
            .with_execution_providers([provider(seat.precision, seat.threads)])?
            // A node that OpenVINO cannot take is an error, not a slow detour.
            .with_disable_cpu_fallback()?)
    },
    bound: None,
};

fn provider(precision: Precision, threads: NonZeroUsize) -> ExecutionProviderDispatch {
    let hint = match precision {
        Precision::Bf16 => "bf16",
        // What is left of it: attention's own products, and layers that a calibration keeps from being rounded.
        Precision::Int8 if bf16_supported() => "bf16",
        Precision::Fp32 | Precision::Int8 => "f32",
        Precision::Fp16 => "f16",
    };
    let config = serde_json::json!({
        "CPU": {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": threads.to_string(),
            // No rounding but what the graph says.
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
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

/// Whether this CPU has bf16 instructions, without which [`Precision::Bf16`] cannot be had. That they are there does
/// not make them fast: see [`crate::engine::choice`].
pub fn bf16_supported() -> bool {
    cpu_has(&["avx512_bf16", "amx_bf16"])
}

/// Whether this CPU multiplies 8-bit integers in vectors, without which [`Precision::Int8`] is slower than fp32.
pub fn int8_supported() -> bool {
    cpu_has(&["avx512_vnni", "avx_vnni"])
}

/// Whether the CPU has one of these. The standard library's detection does not know AMX yet. The file exists on Linux
/// only, like the builds of ONNX Runtime with OpenVINO.
fn cpu_has(any: &[&str]) -> bool {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpus.lines()
        .find(|line| line.starts_with("flags"))
        .is_some_and(|flags| flags.split(' ').any(|word| any.contains(&word)))
}
