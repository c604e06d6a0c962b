use std::num::Wrapping;

use super::*;
use crate::clip::image::placement::Placement;
use crate::clip::spec::{ImageSpec, Interpolation, ResizeMode};

/// Knuth's linear congruential generator (MMIX): the high bits are the good ones.
struct Random(Wrapping<u64>);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0 * Wrapping(6_364_136_223_846_793_005) + Wrapping(1_442_695_040_888_963_407);
        (self.0.0 >> 33) as u32 % limit
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u32) as usize]
    }
}

/// What a pass emits, all rows together.
fn emitted<const C: usize>(
    source: &Raster<'_>,
    placement: &Placement,
    run: impl FnOnce(Pass<'_, &dyn Fn(&mut [u8; 4]), &mut dyn FnMut(&mut [[u8; C]])>),
) -> Vec<u8> {
    let mut rows = Vec::new();
    let prepare = |pixel: &mut [u8; 4]| pixel[0] /= 2;
    let mut emit = |row: &mut [[u8; C]]| rows.extend_from_slice(row.as_flattened());
    run(Pass { source, placement, prepare: &prepare, emit: &mut emit });
    rows
}

/// One picture, whose columns beyond those that are read are left out.
fn check<const C: usize>(random: &mut Random) {
    let [width, height] = [0; 2].map(|_| 1 + random.below(150));
    let spec = ImageSpec {
        height: 1 + random.below(70),
        width: 1 + random.below(70),
        interpolation: random.one_of(&[Interpolation::Bicubic, Interpolation::Bilinear]),
        resize_mode: random.one_of(&[ResizeMode::Shortest, ResizeMode::Longest, ResizeMode::Squash]),
    };
    let placement = Placement::new(&spec, width, height);
    let columns = columns(&placement);
    let len = columns.len() * height as usize * C;
    // Extremes overshoot and undershoot most.
    let samples: Vec<u8> =
        (0..len).map(|_| [0, 255, random.below(256) as u8][random.below(3) as usize]).collect();
    let source = Raster { samples: &samples, columns };
    let portable = emitted::<C>(&source, &placement, |pass| pass.run(Portable));
    let fastest = emitted::<C>(&source, &placement, |pass| pass.on_this_processor());
    let kept = (placement.horizontal.kept * placement.vertical.kept) as usize;
    assert_eq!(portable.len(), kept * C);
    assert_eq!(portable, fastest, "{width} x {height}, {C} samples, {placement:?}");
}

/// The parity tests compare one of them with Pillow.
#[test]
fn all_processors_give_the_same_bytes() {
    let mut random = Random(Wrapping(1));
    for _ in 0..500 {
        check::<1>(&mut random);
        check::<2>(&mut random);
        check::<3>(&mut random);
        check::<4>(&mut random);
    }
}
