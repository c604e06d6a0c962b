//! Embeddings as plain slices: unit vectors whose dot product is the cosine similarity.

use pulp::{Arch, Simd, WithSimd};

/// The vector has no direction: it is zero, or holds a NaN or an infinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the vector has no direction: it is zero or not finite")]
pub struct NoDirection;

/// Scales `vector` to length 1.
///
/// The length is summed in f64, where no finite f32 overflows or vanishes. A zero vector or one
/// with a non-finite element is refused and left as it was: a made-up direction would give
/// plausible similarities.
pub fn normalize(vector: &mut [f32]) -> Result<(), NoDirection> {
    let length = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if !length.is_finite() || length == 0.0 {
        return Err(NoDirection);
    }
    for x in vector {
        *x = (f64::from(*x) / length) as f32;
    }
    Ok(())
}

/// Dot product; of unit vectors, the cosine similarity.
///
/// Panics if the lengths differ.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "vectors of one space");
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// For each of `vectors`, which are not empty, its dot products with the rows of a matrix of shape
/// [rows, vector length]. The matrix is read once.
///
/// Panics if `matrix` is not of whole rows, or if the lengths of vectors differ.
pub fn dots(matrix: &[f32], vectors: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let Some(first) = vectors.first() else { return Vec::new() };
    assert!(matrix.len().is_multiple_of(first.len()), "rows of the vector's length");
    assert!(vectors.iter().all(|vector| vector.len() == first.len()), "vectors of one space");
    Arch::new().dispatch(Dots { matrix, vectors, columns: first.len() })
}

/// Compiled for each generation of vector instructions; which of them runs is decided at the call.
struct Dots<'a> {
    matrix: &'a [f32],
    vectors: &'a [Vec<f32>],
    columns: usize,
}

impl WithSimd for Dots<'_> {
    type Output = Vec<Vec<f32>>;

    // Only what is inlined here is compiled anew.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<Vec<f32>> {
        let rows = self.matrix.len() / self.columns;
        let mut dots: Vec<Vec<f32>> = self.vectors.iter().map(|_| Vec::with_capacity(rows)).collect();
        for row in self.matrix.chunks_exact(self.columns) {
            for (vector, dots) in self.vectors.iter().zip(&mut dots) {
                dots.push(simd_dot(simd, row, vector));
            }
        }
        dots
    }
}

/// Of slices of one length.
#[inline(always)]
fn simd_dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    // An addition takes as long as four can be started in.
    const SUMS: usize = 4;
    let ((a, a_rest), (b, b_rest)) = (S::as_simd_f32s(a), S::as_simd_f32s(b));
    let ((a, a_single), (b, b_single)) = (a.as_chunks::<SUMS>(), b.as_chunks::<SUMS>());
    let mut sums = [simd.splat_f32s(0.0); SUMS];
    for (a, b) in a.iter().zip(b) {
        for sum in 0..SUMS {
            sums[sum] = simd.mul_add_e_f32s(a[sum], b[sum], sums[sum]);
        }
    }
    let [mut sum, second, third, fourth] = sums;
    for (a, b) in a_single.iter().zip(b_single) {
        sum = simd.mul_add_e_f32s(*a, *b, sum);
    }
    let (a_rest, b_rest) = (simd.partial_load_f32s(a_rest), simd.partial_load_f32s(b_rest));
    sum = simd.mul_add_e_f32s(a_rest, b_rest, sum);
    simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(sum, second), simd.add_f32s(third, fourth)))
}

#[cfg(test)]
mod tests;
