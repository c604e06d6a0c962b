//! Matrices of linear layers as integers of 8 bits, with a step for each output.
//!
//! The graph stays what it is but for operators that round: a `QuantizeLinear` and a `DequantizeLinear` before a
//! product, and a `DequantizeLinear` between the matrix and the product. An execution provider that knows the pattern
//! multiplies integers. How far apart the integers of what enters a layer are is fixed, so that a row does not depend
//! on its batch. Biases, norms, attention's own products and the tables of embeddings keep their precision, and so does
//! the last projection.
//!
//! Symmetric, per output, rounded to nearest: `weight = step * q`, `step = max |weight| / 127`.

use super::{Values, Weight};

/// A matrix `[inputs, outputs]` as integers, and their steps, one for each output.
pub(super) fn rounded(name: &str, [inputs, outputs]: [usize; 2], values: &[f32]) -> [Weight; 2] {
    let mut steps = vec![0.0_f32; outputs];
    for row in values.chunks_exact(outputs) {
        steps.iter_mut().zip(row).for_each(|(largest, value)| *largest = largest.max(value.abs()));
    }
    // A column of zeros needs a step that can be divided by.
    let step = |largest: f32| if largest > 0.0 { largest / f32::from(i8::MAX) } else { 1.0 };
    steps.iter_mut().for_each(|largest| *largest = step(*largest));
    let integers = values
        .chunks_exact(outputs)
        .flat_map(|row| row.iter().zip(&steps).map(|(value, step)| (value / step).round() as i8))
        .collect();
    let part = |suffix: &str, shape: &[usize], values| Weight {
        name: format!("{name}.{suffix}"),
        shape: shape.to_vec(),
        values,
    };
    [part("int8", &[inputs, outputs], Values::I8(integers)), part("step", &[outputs], Values::F32(steps))]
}
