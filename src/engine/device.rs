//! What a model can run on, and with which precision, on this machine.
//!
//! It says what there is; which of it to use is the caller's choice.

use std::fmt;

use ort::ep::{self, ExecutionProvider};

use super::EngineError;
use super::runtime::runtime;
use crate::model::graph::{Form, Operators, WeightType};

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// ONNX Runtime's own kernels. Workers share one copy of the weights.
    Cpu,
    /// Intel's OpenVINO on the same CPU. Each worker has its own copy of the weights.
    OpenVino,
    /// The NVIDIA GPU of this number. Each worker has its own copy of the weights.
    Cuda(u16),
}

/// As in flags, logs and metrics.
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::OpenVino => f.write_str("openvino"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl Device {
    /// How graphs are written that run here in `precision`.
    pub fn form(self, precision: Precision) -> Form {
        let weights = match precision {
            // OpenVINO rounds to bf16 itself, and knows better where.
            Precision::Fp32 | Precision::Bf16 => WeightType::Fp32,
            Precision::Fp16 => WeightType::Fp16,
            Precision::Int8 => WeightType::Int8,
        };
        let operators = match self {
            Device::Cpu | Device::OpenVino => Operators::Standard,
            Device::Cuda(_) => Operators::Fused,
        };
        Form { weights, operators }
    }
}

/// What it computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// The reference: the cosine between an embedding and open_clip's is 1 within 1e-6.
    Fp32,
    /// The cosine to the reference is about 0.99994. On [`Device::OpenVino`] only.
    Bf16,
    /// Weights in 8 bits, and what is multiplied with them too, in groups. How close it comes depends on the model:
    /// [`super::fidelity`] measures it. On [`Device::OpenVino`] only.
    Int8,
    /// Weights and activations in 16 bits, the last norm and the projection in fp32. The cosine to the reference is
    /// 0.999999. On [`Device::Cuda`] only.
    Fp16,
}

impl Precision {
    /// As in flags, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Precision::Fp32 => "fp32",
            Precision::Bf16 => "bf16",
            Precision::Int8 => "int8",
            Precision::Fp16 => "fp16",
        }
    }
}

/// The devices of this CPU that the ONNX Runtime found here was built for.
///
/// # Errors
/// [`EngineError::Library`] if there is no ONNX Runtime.
pub fn available_devices() -> Result<Vec<Device>, EngineError> {
    runtime()?;
    let mut devices = vec![Device::Cpu];
    if ep::OpenVINO::is_available()? {
        devices.push(Device::OpenVino);
    }
    Ok(devices)
}

/// Whether the ONNX Runtime found here was built for NVIDIA's GPUs. Whether there is one shows when it is opened.
///
/// # Errors
/// [`EngineError::Library`] if there is no ONNX Runtime.
pub fn cuda_built() -> Result<bool, EngineError> {
    runtime()?;
    Ok(ep::CUDA::is_available()?)
}

/// Whether this CPU has bf16 instructions, without which [`Precision::Bf16`] cannot be had. That they are there does
/// not make them fast: see [`super::choice`].
pub fn bf16_supported() -> bool {
    cpu_has(&["avx512_bf16", "amx_bf16"])
}

/// Whether this CPU multiplies 8-bit integers in vectors, without which [`Precision::Int8`] is slower than fp32.
pub fn int8_supported() -> bool {
    cpu_has(&["avx512_vnni", "avx_vnni"])
}

/// Whether the CPU has one of these. The standard library's detection does not know AMX yet. The file exists on Linux
/// only, like the builds of ONNX Runtime with OpenVINO that [`Device::OpenVino`] needs.
fn cpu_has(any: &[&str]) -> bool {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpus.lines()
        .find(|line| line.starts_with("flags"))
        .is_some_and(|flags| flags.split(' ').any(|word| any.contains(&word)))
}

/// # Errors
/// [`EngineError::Device`] names what is missing.
pub fn check_available(device: Device, precision: Precision) -> Result<(), EngineError> {
    let package = match device {
        Device::Cpu | Device::OpenVino => "onnxruntime-openvino",
        Device::Cuda(_) => "onnxruntime-gpu",
    };
    let built = match device {
        Device::Cuda(_) => cuda_built()?,
        Device::Cpu | Device::OpenVino => available_devices()?.contains(&device),
    };
    if !built {
        return Err(EngineError::Device(format!(
            "device {device}: this ONNX Runtime was built without the provider; set ORT_DYLIB_PATH to the library of \
             the Python package {package}, or use device cpu"
        )));
    }
    let problem = match (device, precision) {
        (Device::Cpu, Precision::Bf16 | Precision::Int8) => {
            "needs device openvino; device cpu computes in fp32"
        }
        (Device::OpenVino, Precision::Bf16) if !bf16_supported() => {
            "cannot be had: this CPU has neither AVX-512's nor AMX's bf16 instructions"
        }
        (Device::OpenVino, Precision::Int8) if !int8_supported() => {
            "cannot be had: this CPU has neither AVX-512's nor AVX's VNNI instructions"
        }
        (Device::Cuda(_), Precision::Bf16 | Precision::Int8) => "GPUs compute in fp16 or fp32",
        (Device::Cpu | Device::OpenVino, Precision::Fp16) => "needs a GPU, such as device cuda:0",
        _ => return Ok(()),
    };
    Err(EngineError::Device(format!("precision {} {problem}", precision.as_str())))
}
