//! Embeddings as plain slices: unit vectors whose dot product is the cosine similarity.

use pulp::{Arch, NullaryFnOnce};

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

/// Dot products of `vector`, which is not empty, with each row of a matrix of shape [rows, vector length].
///
/// Panics if `matrix` is not of whole rows.
pub fn dots(matrix: &[f32], vector: &[f32]) -> Vec<f32> {
    assert!(matrix.len().is_multiple_of(vector.len()), "rows of the vector's length");
    Arch::new().dispatch(Dots { matrix, vector })
}

/// Compiled for each generation of vector instructions; which of them runs is decided at the call.
struct Dots<'a> {
    matrix: &'a [f32],
    vector: &'a [f32],
}

impl NullaryFnOnce for Dots<'_> {
    type Output = Vec<f32>;

    // Only what is inlined here is compiled anew.
    #[inline(always)]
    fn call(self) -> Vec<f32> {
        // As many sums as two of the widest vectors hold.
        const LANES: usize = 32;
        let (vector, rest) = self.vector.as_chunks::<LANES>();
        let mut dots = Vec::with_capacity(self.matrix.len() / self.vector.len());
        for row in self.matrix.chunks_exact(self.vector.len()) {
            let (row, row_rest) = row.as_chunks::<LANES>();
            let mut sums = [0.0_f32; LANES];
            for (a, b) in row.iter().zip(vector) {
                for lane in 0..LANES {
                    sums[lane] += a[lane] * b[lane];
                }
            }
            let rest: f32 = row_rest.iter().zip(rest).map(|(a, b)| a * b).sum();
            dots.push(sums.iter().sum::<f32>() + rest);
        }
        dots
    }
}

#[cfg(test)]
mod tests;
