//! Embeddings as plain slices: unit vectors whose dot product is the cosine similarity.

use ndarray::ArrayView1;

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
    ArrayView1::from(a).dot(&ArrayView1::from(b))
}

#[cfg(test)]
mod tests;
