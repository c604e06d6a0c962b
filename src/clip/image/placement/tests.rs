use super::*;

fn axis(source: u32, resized: u64, first: u64, kept: u32, margin: u32) -> Axis {
    Axis { source, resized, first, kept, margin }
}

/// `model` is height x width, as in open_clip; `horizontal` and `vertical` are
/// (resized, first, kept, margin).
#[track_caller]
fn check(
    (resize_mode, model): (ResizeMode, (u32, u32)),
    (width, height): (u32, u32),
    horizontal: (u64, u64, u32, u32),
    vertical: (u64, u64, u32, u32),
) {
    let spec =
        ImageSpec { height: model.0, width: model.1, interpolation: Interpolation::Bicubic, resize_mode };
    let placement = Placement::new(&spec, width, height);
    let (resized, first, kept, margin) = horizontal;
    assert_eq!(placement.horizontal, axis(width, resized, first, kept, margin));
    let (resized, first, kept, margin) = vertical;
    assert_eq!(placement.vertical, axis(height, resized, first, kept, margin));
}

#[test]
fn shortest_rounds_down_and_crops_halves_to_even() {
    let square = (ResizeMode::Shortest, (64, 64));
    check(square, (64, 64), (64, 0, 64, 0), (64, 0, 64, 0));
    check(square, (333, 251), (84, 10, 64, 0), (64, 0, 64, 0));
    check(square, (251, 333), (64, 0, 64, 0), (84, 10, 64, 0));
    // 64 x 127 / 65 = 125.05; (125 - 64) / 2 = 30.5 goes to 30.
    check(square, (65, 127), (64, 0, 64, 0), (125, 30, 64, 0));
    // 1.5 goes to 2, 0.5 to 0.
    check(square, (64, 67), (64, 0, 64, 0), (67, 2, 64, 0));
    check(square, (65, 64), (65, 0, 64, 0), (64, 0, 64, 0));
    check(square, (1, 1), (64, 0, 64, 0), (64, 0, 64, 0));
    let huge = 64 * u64::from(u32::MAX);
    check(square, (1, u32::MAX), (64, 0, 64, 0), (huge, huge / 2 - 32, 64, 0));
}

#[test]
fn a_model_that_is_not_square_keeps_the_ratio() {
    let portrait = (ResizeMode::Shortest, (80, 48));
    check(portrait, (111, 83), (107, 30, 48, 0), (80, 0, 80, 0));
    check(portrait, (3, 500), (48, 0, 48, 0), (8000, 3960, 80, 0));
}

#[test]
fn longest_pads_what_is_missing() {
    let longest = (ResizeMode::Longest, (64, 64));
    check(longest, (90, 70), (64, 0, 64, 0), (50, 0, 50, 7));
    // 49 rows leave 15: the margin before is the smaller one.
    check(longest, (64, 49), (64, 0, 64, 0), (49, 0, 49, 7));
    // open_clip fails here: nothing is left of the width.
    check(longest, (1, 500), (1, 0, 1, 31), (64, 0, 64, 0));
}

#[test]
fn squash_ignores_the_shape() {
    let squash = (ResizeMode::Squash, (80, 48));
    check(squash, (3, 500), (48, 0, 48, 0), (80, 0, 80, 0));
}
