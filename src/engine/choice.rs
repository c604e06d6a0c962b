//! Which device and precision serve, where the operator leaves it open: the fastest, by a measurement.
//!
//! Instruction sets do not tell. bf16 through OpenVINO is twice as fast as fp32 on AMD's Zen 4 and nearly four times on
//! an Intel CPU with AMX, but takes 1.6 times as long on an Intel CPU with AVX-512's bf16 alone. So a block of a
//! transformer is run on every candidate, which takes a fraction of a second. Int8 is never chosen, only asked for.
//!
//! The same machine must choose the same at every start: servers with different precisions have embeddings that do not
//! mix. So what counts is CPU time, of one thread, which other work on the machine hardly changes, and who is to be
//! chosen must be ahead by more than that.

use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use ort::session::Session;
use ort::session::builder::PrepackedWeights;
use ort::value::TensorRef;

use super::EngineError;
use super::device::{Device, Precision, available_devices, bf16_supported, cuda_built};
use super::session::{Cuda, CudaGraphs, Encoder, GpuOptions, Provider};
use crate::cpu_time::process_cpu;
use crate::model::graph::probe;

/// What the operator says of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A GPU if there is one, otherwise what is fastest.
    Auto,
    Cpu,
    OpenVino,
    /// GPUs by number; at least one, each once.
    Cuda(Vec<u16>),
}

/// As in the flag: `auto`, `cpu`, `openvino`, or GPUs such as `cuda:0,cuda:1`. Devices of several kinds are not mixed:
/// what they compute differs, and one fingerprint stands for all embeddings of a server.
impl FromStr for DeviceChoice {
    type Err = ();

    fn from_str(text: &str) -> Result<DeviceChoice, ()> {
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "openvino" => Ok(DeviceChoice::OpenVino),
            _ => {
                let number = |gpu: &str| gpu.strip_prefix("cuda:")?.parse().ok();
                let gpus: Option<Vec<u16>> = text.split(',').map(number).collect();
                let gpus = gpus.ok_or(())?;
                let twice = gpus.iter().enumerate().any(|(place, gpu)| gpus[..place].contains(gpu));
                if twice { Err(()) } else { Ok(DeviceChoice::Cuda(gpus)) }
            }
        }
    }
}

/// What the operator says of the precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrecisionChoice {
    /// fp16 on GPUs; bf16 where it is faster, otherwise fp32.
    Auto,
    Fp32,
    Bf16,
    Int8,
    Fp16,
}

impl From<Device> for DeviceChoice {
    fn from(device: Device) -> DeviceChoice {
        match device {
            Device::Cpu => DeviceChoice::Cpu,
            Device::OpenVino => DeviceChoice::OpenVino,
            Device::Cuda(number) => DeviceChoice::Cuda(vec![number]),
        }
    }
}

impl From<Precision> for PrecisionChoice {
    fn from(precision: Precision) -> PrecisionChoice {
        match precision {
            Precision::Fp32 => PrecisionChoice::Fp32,
            Precision::Bf16 => PrecisionChoice::Bf16,
            Precision::Int8 => PrecisionChoice::Int8,
            Precision::Fp16 => PrecisionChoice::Fp16,
        }
    }
}

/// What serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Of one kind.
    pub devices: Vec<Device>,
    pub precision: Precision,
    /// For the log.
    pub why: String,
}

/// Who pays with memory or accuracy must be faster by this factor: OpenVINO holds a copy of the weights for every
/// worker, bf16 has a cosine of 0.99995 to fp32. On the CPUs that were seen, OpenVINO's fp32 is at
/// most 1.2 times as fast as ONNX Runtime's, and its bf16 either twice and more, or slower: far from both lines.
const WORTH_MEMORY: f64 = 1.4;
const WORTH_ACCURACY: f64 = 1.1;

/// Runs of every candidate in turn, of which the one with the least CPU time counts: other work on the machine only
/// adds to it.
const ROUNDS: usize = 6;

/// # Errors
/// [`EngineError::Library`] if there is no ONNX Runtime. A device that is asked for and cannot be had is an error when
/// it is opened.
pub fn choose(device: &DeviceChoice, precision: PrecisionChoice) -> Result<Choice, EngineError> {
    if let Some((gpus, why)) = gpus(device, precision) {
        let devices = gpus.into_iter().map(Device::Cuda).collect();
        return Ok(Choice { devices, precision: on_gpus(precision), why });
    }
    let openvino = available_devices()?.contains(&Device::OpenVino);
    let candidates = candidates(device, precision, openvino, bf16_supported());
    let [first, others @ ..] = candidates.as_slice() else { unreachable!("there is always a candidate") };
    if others.is_empty() {
        let (device, precision) = *first;
        return Ok(Choice {
            devices: vec![device],
            precision,
            why: "asked for, or all that this machine has".to_owned(),
        });
    }
    let times = measure(&candidates)?;
    let (device, precision) = candidates[best(&candidates, &times)];
    let timed = candidates.iter().zip(&times).map(|((device, precision), time)| {
        format!("{device} {} {:.1} ms", precision.as_str(), time.as_secs_f64() * 1e3)
    });
    let why = format!("a block of ViT-B/16 takes CPU time: {}", timed.collect::<Vec<_>>().join(", "));
    Ok(Choice { devices: vec![device], precision, why })
}

/// The GPUs to use, if any, and why. `auto` takes the first one if it answers.
fn gpus(device: &DeviceChoice, precision: PrecisionChoice) -> Option<(Vec<u16>, String)> {
    match (device, precision) {
        (DeviceChoice::Cuda(gpus), _) => Some((gpus.clone(), "asked for".to_owned())),
        // Refused when it is opened, with the reason.
        (DeviceChoice::Auto, PrecisionChoice::Fp16) => {
            Some((vec![0], "only GPUs compute in fp16".to_owned()))
        }
        (DeviceChoice::Auto, PrecisionChoice::Auto | PrecisionChoice::Fp32) => match answers(0) {
            Ok(answers) => answers.then(|| (vec![0], "there is a GPU".to_owned())),
            Err(error) => {
                tracing::warn!(%error, "this ONNX Runtime is for GPUs, but none answers");
                None
            }
        },
        _ => None,
    }
}

/// Whether ONNX Runtime was built for GPUs; an error if it was, and the GPU does not run a block.
fn answers(number: u16) -> Result<bool, EngineError> {
    if !cuda_built()? {
        return Ok(false);
    }
    let options = GpuOptions { memory_bytes: None, graphs: CudaGraphs::Off };
    Encoder::new(probe::mlp())?.open(&Provider::Cuda(Cuda { number, options }), NonZeroUsize::MIN)?;
    Ok(true)
}

fn on_gpus(precision: PrecisionChoice) -> Precision {
    match precision {
        PrecisionChoice::Auto | PrecisionChoice::Fp16 => Precision::Fp16,
        PrecisionChoice::Fp32 => Precision::Fp32,
        PrecisionChoice::Bf16 => Precision::Bf16,
        PrecisionChoice::Int8 => Precision::Int8,
    }
}

/// What of the CPU's devices fits the flags and the machine; the first is preferred where others are not worth their
/// price.
fn candidates(
    device: &DeviceChoice,
    precision: PrecisionChoice,
    openvino: bool,
    bf16: bool,
) -> Vec<(Device, Precision)> {
    match (device, precision) {
        (DeviceChoice::Cpu, PrecisionChoice::Auto | PrecisionChoice::Fp32) => {
            vec![(Device::Cpu, Precision::Fp32)]
        }
        // Refused when it is opened, with the reason.
        (DeviceChoice::Cpu, PrecisionChoice::Bf16) => vec![(Device::Cpu, Precision::Bf16)],
        (_, PrecisionChoice::Fp16) => vec![(Device::Cpu, Precision::Fp16)],
        (DeviceChoice::Cpu, PrecisionChoice::Int8) => vec![(Device::Cpu, Precision::Int8)],
        (_, PrecisionChoice::Bf16) => vec![(Device::OpenVino, Precision::Bf16)],
        (_, PrecisionChoice::Int8) => vec![(Device::OpenVino, Precision::Int8)],
        (_, PrecisionChoice::Auto | PrecisionChoice::Fp32) => {
            let mut candidates = Vec::new();
            if *device == DeviceChoice::Auto {
                candidates.push((Device::Cpu, Precision::Fp32));
            }
            if *device == DeviceChoice::OpenVino || openvino {
                candidates.push((Device::OpenVino, Precision::Fp32));
                if precision == PrecisionChoice::Auto && bf16 {
                    candidates.push((Device::OpenVino, Precision::Bf16));
                }
            }
            candidates
        }
    }
}

/// The index of the candidate that is the fastest after its price.
fn best(candidates: &[(Device, Precision)], times: &[Duration]) -> usize {
    let priced = |index: &usize| {
        let price = match candidates[*index] {
            (Device::Cpu | Device::Cuda(_), _) => 1.0,
            (Device::OpenVino, Precision::Fp32) => WORTH_MEMORY,
            (Device::OpenVino, _) => WORTH_MEMORY * WORTH_ACCURACY,
        };
        times[*index].mul_f64(price)
    };
    (0..candidates.len()).min_by_key(priced).unwrap_or(0)
}

/// The CPU time of the block on each.
fn measure(candidates: &[(Device, Precision)]) -> Result<Vec<Duration>, EngineError> {
    let input = vec![0.5_f32; probe::TOKENS * probe::WIDTH];
    let mut times = vec![Duration::MAX; candidates.len()];
    let block = Encoder::new(probe::mlp())?;
    let prepacked = PrepackedWeights::new();
    let mut sessions: Vec<Session> = candidates
        .iter()
        .map(|(device, precision)| {
            let provider = match device {
                Device::OpenVino => Provider::OpenVino(*precision),
                Device::Cpu | Device::Cuda(_) => Provider::Cpu(&prepacked),
            };
            block.open(&provider, NonZeroUsize::MIN)
        })
        .collect::<Result<_, _>>()?;
    for _ in 0..ROUNDS {
        for (session, time) in sessions.iter_mut().zip(&mut times) {
            let input = TensorRef::from_array_view(([1, probe::TOKENS, probe::WIDTH], input.as_slice()))?;
            let start = process_cpu();
            session.run([input.into()])?;
            *time = (*time).min(process_cpu().saturating_sub(start));
        }
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: (Device, Precision) = (Device::Cpu, Precision::Fp32);
    const OPENVINO: (Device, Precision) = (Device::OpenVino, Precision::Fp32);
    const BF16: (Device, Precision) = (Device::OpenVino, Precision::Bf16);

    #[test]
    fn flags_and_machine_leave_candidates() {
        use {DeviceChoice as D, PrecisionChoice as P};
        let check = |device, precision, openvino, bf16, expected: &[_]| {
            assert_eq!(candidates(&device, precision, openvino, bf16), expected, "{device:?} {precision:?}");
        };
        check(D::Auto, P::Auto, true, true, &[CPU, OPENVINO, BF16]);
        check(D::Auto, P::Auto, true, false, &[CPU, OPENVINO]);
        check(D::Auto, P::Auto, false, true, &[CPU]);
        check(D::Auto, P::Fp32, true, true, &[CPU, OPENVINO]);
        check(D::OpenVino, P::Auto, true, true, &[OPENVINO, BF16]);
        check(D::OpenVino, P::Auto, false, false, &[OPENVINO]);
        check(D::Cpu, P::Auto, true, true, &[CPU]);
        check(D::Auto, P::Bf16, true, true, &[BF16]);
        check(D::Auto, P::Int8, true, true, &[(Device::OpenVino, Precision::Int8)]);
        check(D::Cpu, P::Int8, true, true, &[(Device::Cpu, Precision::Int8)]);
    }

    #[test]
    fn gpus_are_named_each_once() {
        let check = |text: &str, expected: Option<DeviceChoice>| {
            assert_eq!(text.parse().ok(), expected, "{text}");
        };
        check("auto", Some(DeviceChoice::Auto));
        check("cuda:0", Some(DeviceChoice::Cuda(vec![0])));
        check("cuda:1,cuda:0", Some(DeviceChoice::Cuda(vec![1, 0])));
        for wrong in
            ["", "gpu", "cuda", "cuda:", "cuda:x", "cuda:0,", "cuda:0,cuda:0", "cpu,cuda:0", "cpu,openvino"]
        {
            check(wrong, None);
        }
    }

    #[test]
    fn gpus_compute_in_fp16_unless_told_otherwise() {
        let check = |precision, expected| {
            let choice = choose(&DeviceChoice::Cuda(vec![2, 0]), precision).unwrap();
            assert_eq!(
                (choice.devices, choice.precision),
                (vec![Device::Cuda(2), Device::Cuda(0)], expected)
            );
        };
        check(PrecisionChoice::Auto, Precision::Fp16);
        check(PrecisionChoice::Fp32, Precision::Fp32);
    }

    #[test]
    fn what_costs_memory_or_accuracy_must_be_worth_it() {
        let check = |milliseconds: [u64; 3], expected| {
            let times = milliseconds.map(Duration::from_millis);
            assert_eq!([CPU, OPENVINO, BF16][best(&[CPU, OPENVINO, BF16], &times)], expected);
        };
        check([100, 100, 100], CPU);
        check([100, 80, 80], CPU);
        check([100, 65, 60], OPENVINO);
        check([100, 80, 50], BF16);
        check([100, 80, 160], CPU);
    }

    #[test]
    fn the_candidates_of_this_machine_can_be_measured() {
        let choice = choose(&DeviceChoice::Cpu, PrecisionChoice::Auto).unwrap();
        assert_eq!(choice.devices, [Device::Cpu]);
        let choice = choose(&DeviceChoice::Auto, PrecisionChoice::Fp32).unwrap();
        assert_eq!(choice.precision, Precision::Fp32);
        let measured = available_devices().unwrap().len() > 1;
        assert_eq!(choice.why.contains("ms"), measured, "{}", choice.why);
    }
}
