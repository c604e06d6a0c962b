use super::*;

type Filter = fn(f64) -> f64;

/// Pillow's `precompute_coeffs` and `normalize_coeffs_8bpc`, step by step.
fn pillow(source: u32, resized: u32, pixel: u32, radius: f64, filter: Filter) -> (usize, Vec<i32>) {
    let scale = f64::from(source) / f64::from(resized);
    let filter_scale = scale.max(1.0);
    let support = radius * filter_scale;
    let center = (f64::from(pixel) + 0.5) * scale;
    let start = ((center - support + 0.5) as i32).max(0);
    let end = ((center + support + 0.5) as i32).min(source as i32);
    let reciprocal = 1.0 / filter_scale;
    let mut sum = 0.0;
    let mut weights = Vec::new();
    for x in 0..end - start {
        let weight = filter((f64::from(x + start) - center + 0.5) * reciprocal);
        weights.push(weight);
        sum += weight;
    }
    let fixed = |weight: f64| {
        let weight = weight / sum * f64::from(1 << FRACTION_BITS);
        if weight < 0.0 { (weight - 0.5) as i32 } else { (weight + 0.5) as i32 }
    };
    (start as usize, weights.into_iter().map(fixed).collect())
}

fn keys(x: f64) -> f64 {
    match x.abs() {
        x if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
        _ => 0.0,
    }
}

fn tent(x: f64) -> f64 {
    if x.abs() < 1.0 { 1.0 - x.abs() } else { 0.0 }
}

fn check(source: u32, resized: u32) {
    let axis = Axis {
        source,
        resized: resized.into(),
        first: resized as u64 / 3,
        kept: resized.div_ceil(2),
        margin: 0,
    };
    let filters: [(_, _, Filter); 2] =
        [(Interpolation::Bicubic, 2.0, keys), (Interpolation::Bilinear, 1.0, tent)];
    for (interpolation, radius, filter) in filters {
        let windows = Windows::new(&axis, interpolation);
        assert_eq!(windows.len(), axis.kept as usize);
        for ((start, pairs), pixel) in windows.iter().zip(axis.first as u32..) {
            let weights: Vec<i32> = pairs.iter().flat_map(|pair| pair.weights()).collect();
            let (expected_start, mut expected) = pillow(source, resized, pixel, radius, filter);
            expected.resize(expected.len().next_multiple_of(2), 0);
            assert_eq!((start, weights), (expected_start, expected), "{source} -> {resized}, pixel {pixel}");
        }
    }
}

#[test]
fn weights_are_pillows() {
    for source in (1..700).step_by(7) {
        for resized in [1, 2, 31, 224, 299, 336] {
            check(source, resized);
        }
    }
    check(4000, 224);
    check(65_535, 512);
}
