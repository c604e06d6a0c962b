//! The kinds of devices, one table. A new execution provider is a file beside this one, and its row.

mod cpu;
mod cuda;
mod openvino;
#[cfg(test)]
mod stand_in;
#[cfg(test)]
mod tests;

use std::str::FromStr;

use super::EngineError;
use super::device::{Device, Kind};
pub use openvino::{bf16_supported, int8_supported};

/// Of two GPUs, and of two that are equally fast, `auto` takes the first.
pub(super) const KINDS: &[&Kind] = &[
    &cpu::KIND,
    &openvino::KIND,
    &cuda::KIND,
    #[cfg(test)]
    &stand_in::KIND,
];

impl Device {
    /// ONNX Runtime's own kernels.
    pub const CPU: Device = Device { kind: &cpu::KIND, number: 0 };
    /// Intel's OpenVINO on the same CPU.
    pub const OPENVINO: Device = Device { kind: &openvino::KIND, number: 0 };
}

/// As it is shown.
impl FromStr for Device {
    type Err = ();

    fn from_str(text: &str) -> Result<Device, ()> {
        let (name, number) = match text.split_once(':') {
            Some((name, number)) => (name, Some(number.parse().map_err(drop)?)),
            None => (text, None),
        };
        let fits = |kind: &&&Kind| kind.name == name && kind.numbered == number.is_some();
        let kind = KINDS.iter().find(fits).ok_or(())?;
        Ok(Device { kind, number: number.unwrap_or(0) })
    }
}

/// As in flags, without numbers.
pub fn names() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|kind| kind.name)
}

/// The first device of every kind.
pub(super) fn firsts() -> impl Iterator<Item = Device> {
    KINDS.iter().map(|kind| Device { kind, number: 0 })
}

/// The devices of this CPU that the ONNX Runtime found here was built for.
///
/// # Errors
/// [`EngineError::Library`] if there is no ONNX Runtime.
pub fn available_devices() -> Result<Vec<Device>, EngineError> {
    let mut devices = Vec::new();
    for device in firsts().filter(|device| !device.kind.numbered) {
        if device.built()? {
            devices.push(device);
        }
    }
    Ok(devices)
}
