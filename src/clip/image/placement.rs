//! Where a picture's pixels land in the model's input: sizes and offsets, no pixels.
//!
//! The rounding is torchvision's and open_clip's to the last integer: one pixel of difference in
//! the resized length shifts every sample of the crop.

use std::ops::Range;

use crate::clip::spec::{ImageSpec, Interpolation, ResizeMode};

/// Both directions of a picture, and the filter between.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placement {
    pub(super) horizontal: Axis,
    pub(super) vertical: Axis,
    pub(super) interpolation: Interpolation,
}

/// One direction: `source` pixels are resized to `resized`, of which `kept` are used from
/// `first` on; they land behind a margin of `margin` empty pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    pub(super) source: u32,
    /// The short side as wanted, the long side in proportion: it may exceed 32 bits.
    pub(super) resized: u64,
    pub(super) first: u64,
    pub(super) kept: u32,
    pub(super) margin: u32,
}

impl Placement {
    /// `width` and `height` are not zero.
    pub(super) fn new(spec: &ImageSpec, width: u32, height: u32) -> Self {
        let (resized_width, resized_height) = resized(spec, width, height);
        Self {
            horizontal: Axis::new(width, resized_width, spec.width),
            vertical: Axis::new(height, resized_height, spec.height),
            interpolation: interpolation(spec),
        }
    }

    /// Whether the picture only has to be cut, not resized.
    pub(super) fn keeps_size(&self) -> bool {
        self.horizontal.keeps_size() && self.vertical.keeps_size()
    }
}

impl Axis {
    /// These of the source, as they are.
    pub(super) fn unchanged(source: u32, kept: &Range<usize>) -> Self {
        Self { source, resized: source.into(), first: kept.start as u64, kept: kept.len() as u32, margin: 0 }
    }

    pub(super) fn keeps_size(&self) -> bool {
        u64::from(self.source) == self.resized
    }

    /// Which of the resized pixels are kept.
    pub(super) fn kept_pixels(&self) -> Range<usize> {
        let first = self.first as usize;
        first..first + self.kept as usize
    }

    /// torchvision's `center_crop`: too long is cut, too short is padded, the middle stays.
    fn new(source: u32, resized: u64, target: u32) -> Self {
        let (first, margin) = match resized.checked_sub(u64::from(target)) {
            Some(excess) => (half_to_even(excess), 0),
            None => (0, (target - resized as u32) / 2),
        };
        Self { source, resized, first, kept: resized.min(u64::from(target)) as u32, margin }
    }
}

/// Width and height after the resize.
fn resized(spec: &ImageSpec, width: u32, height: u32) -> (u64, u64) {
    let target = (u64::from(spec.width), u64::from(spec.height));
    match spec.resize_mode {
        ResizeMode::Squash => target,
        ResizeMode::Longest => keep_ratio(spec, width, height, f64::max),
        ResizeMode::Shortest if is_square(spec) => shortest(target.0, width, height),
        ResizeMode::Shortest => keep_ratio(spec, width, height, f64::min),
    }
}

/// torchvision's `Resize(size)`: the long side is rounded down.
fn shortest(size: u64, width: u32, height: u32) -> (u64, u64) {
    let (width, height) = (u64::from(width), u64::from(height));
    if width <= height { (size, size * height / width) } else { (size * width / height, size) }
}

/// open_clip's `ResizeKeepRatio`: both sides are divided by one ratio and rounded, halves to even.
/// Where that gives no pixel at all, and open_clip fails, one is kept.
fn keep_ratio(spec: &ImageSpec, width: u32, height: u32, choose: fn(f64, f64) -> f64) -> (u64, u64) {
    let (width, height) = (f64::from(width), f64::from(height));
    let ratio = choose(height / f64::from(spec.height), width / f64::from(spec.width));
    let side = |source: f64| ((source / ratio).round_ties_even() as u64).max(1);
    (side(width), side(height))
}

/// open_clip does not hand the configured filter to the resize of non-square models.
fn interpolation(spec: &ImageSpec) -> Interpolation {
    match spec.resize_mode {
        ResizeMode::Shortest if !is_square(spec) => Interpolation::Bicubic,
        _ => spec.interpolation,
    }
}

fn is_square(spec: &ImageSpec) -> bool {
    spec.width == spec.height
}

/// Python's `round(n / 2)`.
fn half_to_even(n: u64) -> u64 {
    let half = n / 2;
    half + (n & half & 1)
}

#[cfg(test)]
mod tests;
