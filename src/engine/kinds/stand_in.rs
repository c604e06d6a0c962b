//! For tests: a provider with devices and memory of its own, on every machine. It computes with ONNX Runtime's kernels,
//! from tensors that are bound, which are in host memory.

use super::cpu;
use crate::engine::binding::Memory;
use crate::engine::device::{Auto, Bound, Kind};

pub(super) const KIND: Kind = Kind {
    name: "stand-in",
    numbered: true,
    provider: Some("StandIn"),
    auto: Auto::Fastest(|_| None),
    bound: Some(Bound { memory: |_| Memory::Host, pin: |_| () }),
    ..cpu::KIND
};
