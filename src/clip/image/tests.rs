mod parity;

use super::*;
use crate::clip::spec::{Interpolation, ResizeMode};

const UNLIMITED: ImageLimits = ImageLimits { max_bytes: usize::MAX, max_pixels: u64::MAX };

fn spec(interpolation: Interpolation, resize_mode: ResizeMode) -> ImageSpec {
    ImageSpec { height: 64, width: 64, interpolation, resize_mode }
}
