//! Which device and precision serve, where the operator leaves it open: the fastest, by a measurement.
//!
//! Instruction sets do not tell. bf16 through OpenVINO is twice as fast as fp32 on AMD's Zen 4 and nearly four times on
//! an Intel CPU with AMX, but takes 1.6 times as long on an Intel CPU with AVX-512's bf16 alone. So a block of a
//! transformer is run on every candidate, which takes a fraction of a second. Int8 is never chosen, only asked for.
//!
//! The same machine must choose the same at every start: servers with different precisions have embeddings that do not
//! mix. So what counts is CPU time, of one thread, which other work on the machine hardly changes, and who is to be
//! chosen must be ahead by more than that.

use std::str::FromStr;
use std::time::Duration;

use ort::session::Session;
use ort::session::builder::PrepackedWeights;
use ort::value::TensorRef;

use super::EngineError;
use super::device::{Auto, Device, Precision, Seat};
use super::kinds::{available_devices, firsts};
use super::session::Encoder;
use crate::cpu_time::process_cpu;
use crate::model::graph::probe;

/// What the operator says of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A GPU if there is one, otherwise what is fastest.
    Auto,
    /// At least one, each once, all of one kind.
    Devices(Vec<Device>),
}

/// As in the flag: `auto`, or devices such as `cpu`, `openvino` or `cuda:0,cuda:1`. Devices of several kinds are not
/// mixed: what they compute differs, and one fingerprint stands for all embeddings of a server.
impl FromStr for DeviceChoice {
    type Err = ();

    fn from_str(text: &str) -> Result<DeviceChoice, ()> {
        if text == "auto" {
            return Ok(DeviceChoice::Auto);
        }
        let devices: Vec<Device> = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
        let mixed = devices.iter().any(|device| device.kind != devices[0].kind);
        let twice = devices.iter().enumerate().any(|(place, device)| devices[..place].contains(device));
        if mixed || twice { Err(()) } else { Ok(DeviceChoice::Devices(devices)) }
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

/// Runs of every candidate in turn, of which the one with the least CPU time counts: other work on the machine only
/// adds to it.
const ROUNDS: usize = 6;

/// `precision`: `None` is `auto`, which is fp16 on GPUs, and bf16 where that is faster, otherwise fp32.
///
/// # Errors
/// [`EngineError::Library`] if there is no ONNX Runtime. A device that is asked for and cannot be had is an error when
/// it is opened.
pub fn choose(device: &DeviceChoice, precision: Option<Precision>) -> Result<Choice, EngineError> {
    if let Some((devices, why)) = at_once(device, precision) {
        let precision = precision.unwrap_or(devices[0].kind.precisions[0]);
        return Ok(Choice { devices, precision, why });
    }
    let there = available_devices()?;
    let candidates = candidates(device, precision, |device, precision| {
        there.contains(&device) && (device.kind.refusal)(precision).is_none()
    });
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

/// What is taken without a measurement, if anything, and why: devices that were asked for by number, or a GPU.
fn at_once(device: &DeviceChoice, precision: Option<Precision>) -> Option<(Vec<Device>, String)> {
    if let DeviceChoice::Devices(devices) = device {
        return devices[0].kind.numbered.then(|| (devices.clone(), "asked for".to_owned()));
    }
    let fits = |device: &Device| precision.is_none_or(|asked| device.kind.precisions.contains(&asked));
    let (gpus, others): (Vec<Device>, Vec<Device>) =
        firsts().filter(fits).partition(|device| matches!(device.kind.auto, Auto::Gpu));
    let mut gpus = gpus.into_iter();
    let (gpu, why) = match precision {
        // Refused when it is opened, with the reason.
        Some(precision) if others.is_empty() => {
            (gpus.next()?, format!("only GPUs compute in {}", precision.as_str()))
        }
        _ => (gpus.find(|gpu| answers(*gpu))?, "there is a GPU".to_owned()),
    };
    Some((vec![gpu], why))
}

/// Whether ONNX Runtime was built for this GPU, and the GPU runs a block.
fn answers(gpu: Device) -> bool {
    let run = || -> Result<bool, EngineError> {
        if !gpu.built()? {
            return Ok(false);
        }
        let seat = Seat::new(gpu, gpu.kind.precisions[0]);
        Encoder::new(probe::mlp()).open(&seat, &PrepackedWeights::new())?;
        Ok(true)
    };
    run().unwrap_or_else(|error| {
        tracing::warn!(%error, "this ONNX Runtime is for GPUs, but none answers");
        false
    })
}

/// What of the CPU's devices fits the flags, and what this machine `has` of it; the first is preferred where others are
/// not worth their price.
fn candidates(
    device: &DeviceChoice,
    precision: Option<Precision>,
    has: impl Fn(Device, Precision) -> bool,
) -> Vec<(Device, Precision)> {
    let devices = match device {
        DeviceChoice::Auto => firsts().filter(|device| !device.kind.numbered).collect(),
        DeviceChoice::Devices(devices) => devices.clone(),
    };
    let all = devices.iter().flat_map(|device| device.kind.precisions.iter().map(|each| (*device, *each)));
    let fitting: Vec<(Device, Precision)> = all
        .filter(|(device, each)| match precision {
            Some(asked) => *each == asked,
            None => price(*device, *each).is_some(),
        })
        .collect();
    let there: Vec<_> = fitting.iter().copied().filter(|(device, each)| has(*device, *each)).collect();
    if there.is_empty() {
        // Refused when it is opened, with the reason.
        let asked = (devices[0], precision.unwrap_or(devices[0].kind.precisions[0]));
        return vec![fitting.first().copied().unwrap_or(asked)];
    }
    there
}

/// By how many times it must be faster than what costs nothing.
fn price(device: Device, precision: Precision) -> Option<f64> {
    match device.kind.auto {
        Auto::Gpu => None,
        Auto::Fastest(price) => price(precision),
    }
}

/// The index of the candidate that is the fastest after its price.
fn best(candidates: &[(Device, Precision)], times: &[Duration]) -> usize {
    let priced = |index: &usize| {
        let (device, precision) = candidates[*index];
        times[*index].mul_f64(price(device, precision).unwrap_or(1.0))
    };
    (0..candidates.len()).min_by_key(priced).unwrap_or(0)
}

/// The CPU time of the block on each.
fn measure(candidates: &[(Device, Precision)]) -> Result<Vec<Duration>, EngineError> {
    let input = vec![0.5_f32; probe::TOKENS * probe::WIDTH];
    let mut times = vec![Duration::MAX; candidates.len()];
    let block = Encoder::new(probe::mlp());
    let prepacked = PrepackedWeights::new();
    let mut sessions: Vec<Session> = candidates
        .iter()
        .map(|(device, precision)| block.open(&Seat::new(*device, *precision), &prepacked))
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

    const CPU: (Device, Precision) = (Device::CPU, Precision::Fp32);
    const OPENVINO: (Device, Precision) = (Device::OPENVINO, Precision::Fp32);
    const BF16: (Device, Precision) = (Device::OPENVINO, Precision::Bf16);

    fn devices(text: &str) -> DeviceChoice {
        text.parse().unwrap()
    }

    #[test]
    fn flags_and_machine_leave_candidates() {
        use Precision::{Bf16, Fp32, Int8};
        let check = |device: &str, precision, openvino, bf16, expected: &[_]| {
            let has = |device: Device, precision: Precision| {
                device == Device::CPU || openvino && (precision != Bf16 || bf16)
            };
            assert_eq!(candidates(&devices(device), precision, has), expected, "{device} {precision:?}");
        };
        check("auto", None, true, true, &[CPU, OPENVINO, BF16]);
        check("auto", None, true, false, &[CPU, OPENVINO]);
        check("auto", None, false, true, &[CPU]);
        check("auto", Some(Fp32), true, true, &[CPU, OPENVINO]);
        check("openvino", None, true, true, &[OPENVINO, BF16]);
        check("openvino", None, false, false, &[OPENVINO]);
        check("cpu", None, true, true, &[CPU]);
        check("auto", Some(Bf16), true, true, &[BF16]);
        check("auto", Some(Int8), true, true, &[(Device::OPENVINO, Int8)]);
        check("auto", Some(Int8), false, false, &[(Device::OPENVINO, Int8)]);
        check("cpu", Some(Int8), true, true, &[(Device::CPU, Int8)]);
    }

    #[test]
    fn gpus_are_named_each_once() {
        let check = |text: &str, expected: Option<&[&str]>| {
            let parsed = text.parse().ok().map(|choice| match choice {
                DeviceChoice::Auto => vec!["auto".to_owned()],
                DeviceChoice::Devices(devices) => devices.iter().map(ToString::to_string).collect(),
            });
            let expected: Option<Vec<String>> =
                expected.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
            assert_eq!(parsed, expected, "{text}");
        };
        check("auto", Some(&["auto"]));
        check("cpu", Some(&["cpu"]));
        check("cuda:0", Some(&["cuda:0"]));
        check("cuda:1,cuda:0", Some(&["cuda:1", "cuda:0"]));
        for wrong in [
            "",
            "gpu",
            "cuda",
            "cuda:",
            "cuda:x",
            "cuda:0,",
            "cuda:0,cuda:0",
            "cpu:0",
            "cpu,cpu",
            "cpu,cuda:0",
            "cpu,openvino",
            "auto,cpu",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn gpus_compute_in_fp16_unless_told_otherwise() {
        let check = |precision, expected| {
            let asked = devices("cuda:2,cuda:0");
            let choice = choose(&asked, precision).unwrap();
            assert_eq!((DeviceChoice::Devices(choice.devices), choice.precision), (asked, expected));
        };
        check(None, Precision::Fp16);
        check(Some(Precision::Fp32), Precision::Fp32);
        let choice = choose(&DeviceChoice::Auto, Some(Precision::Fp16)).unwrap();
        assert_eq!(DeviceChoice::Devices(choice.devices), devices("cuda:0"));
        assert_eq!(choice.why, "only GPUs compute in fp16");
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
        let choice = choose(&devices("cpu"), None).unwrap();
        assert_eq!(choice.devices, [Device::CPU]);
        let choice = choose(&DeviceChoice::Auto, Some(Precision::Fp32)).unwrap();
        assert_eq!(choice.precision, Precision::Fp32);
        let measured = available_devices().unwrap().len() > 1;
        assert_eq!(choice.why.contains("ms"), measured, "{}", choice.why);
    }
}
