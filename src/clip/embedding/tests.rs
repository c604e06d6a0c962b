use std::f32::consts::FRAC_1_SQRT_2;

use super::*;

/// `expected` is `None` where there is no direction.
#[track_caller]
fn check(vector: &[f32], expected: Option<&[f32]>) {
    let mut actual = vector.to_vec();
    match expected {
        Some(expected) => {
            normalize(&mut actual).unwrap();
            for (a, e) in actual.iter().zip(expected) {
                assert!((a - e).abs() < 1e-6, "{vector:?} became {actual:?}");
            }
            assert!((dot(&actual, &actual) - 1.0).abs() < 1e-6);
        }
        None => {
            assert_eq!(normalize(&mut actual), Err(NoDirection));
            let untouched = actual.iter().zip(vector).all(|(a, v)| a.to_bits() == v.to_bits());
            assert!(untouched, "{vector:?} became {actual:?}");
        }
    }
}

#[test]
fn normalize_gives_a_unit_vector_or_refuses() {
    check(&[3.0, 4.0], Some(&[0.6, 0.8]));
    check(&[-2.0], Some(&[-1.0]));
    check(&[f32::MAX, f32::MAX], Some(&[FRAC_1_SQRT_2, FRAC_1_SQRT_2]));
    check(&[1e-40, 0.0], Some(&[1.0, 0.0]));
    check(&[0.0, 0.0], None);
    check(&[], None);
    check(&[1.0, f32::NAN], None);
    check(&[1.0, f32::INFINITY], None);
}

#[test]
fn dot_sums_products() {
    assert_eq!(dot(&[1.0, 2.0, 3.0], &[4.0, -5.0, 6.0]), 12.0);
}

/// At lengths around those that are summed at a time.
#[test]
fn dots_are_the_dots_of_the_rows() {
    for len in [1, 31, 32, 33, 128, 517] {
        // Whole numbers, so that the order of the sums does not matter.
        let number = |index: usize| (index * 7 % 13) as f32 - 6.0;
        let vectors = [0, 3].map(|first| (first..first + len).map(number).collect::<Vec<f32>>());
        let matrix: Vec<f32> = (0..3 * len).map(|index| number(index + 5)).collect();
        let expected = vectors
            .each_ref()
            .map(|vector| matrix.chunks_exact(len).map(|row| dot(row, vector)).collect::<Vec<f32>>());
        assert_eq!(dots(&matrix, &vectors), expected, "{len}");
    }
    assert_eq!(dots(&[], &[vec![1.0]]), [[0.0; 0]]);
    assert!(dots(&[1.0], &[]).is_empty());
}
