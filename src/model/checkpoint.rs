//! The tensors of an open_clip checkpoint, read by name from a safetensors file.
//!
//! It does not know the architecture: whoever takes a tensor says which shape it must have. Every tensor
//! is taken once and becomes `f32` then; one that nobody takes is an error, because the result would
//! differ from the model that was trained.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

use super::ModelError;

/// Buffers that some exporters save beside the weights; they hold nothing that the config does not say.
const BUFFERS: [&str; 5] =
    ["attn_mask", "text.attn_mask", "input_resolution", "context_length", "vocab_size"];

/// Tensors that have not been taken yet.
pub(super) struct Checkpoint<'a> {
    tensors: SafeTensors<'a>,
    untaken: BTreeSet<String>,
}

impl<'a> Checkpoint<'a> {
    pub(super) fn parse(file: &'a [u8]) -> Result<Checkpoint<'a>, ModelError> {
        let tensors = SafeTensors::deserialize(file).map_err(ModelError::WeightsSyntax)?;
        let untaken =
            tensors.names().into_iter().filter(|name| !BUFFERS.contains(name)).map(str::to_owned).collect();
        Ok(Checkpoint { tensors, untaken })
    }

    /// The values of tensor `name` in row-major order.
    pub(super) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let tensor =
            self.tensors.tensor(name).map_err(|_| ModelError::TensorMissing { name: name.to_owned() })?;
        if tensor.shape() != shape {
            return Err(ModelError::TensorShape {
                name: name.to_owned(),
                found: tensor.shape().to_vec(),
                expected: shape.to_vec(),
            });
        }
        self.untaken.remove(name);
        let bytes = tensor.data();
        match tensor.dtype() {
            Dtype::F32 => Ok(convert(bytes, f32::from_le_bytes)),
            Dtype::F16 => Ok(convert(bytes, |bytes| f16::from_le_bytes(bytes).to_f32())),
            Dtype::BF16 => Ok(convert(bytes, |bytes| bf16::from_le_bytes(bytes).to_f32())),
            other => Err(ModelError::TensorType { name: name.to_owned(), found: format!("{other:?}") }),
        }
    }

    /// A linear layer's weight, stored as `[outputs, inputs]`, turned to `[inputs, outputs]`.
    pub(super) fn take_transposed(
        &mut self,
        name: &str,
        outputs: usize,
        inputs: usize,
    ) -> Result<Vec<f32>, ModelError> {
        Ok(transpose(&self.take(name, &[outputs, inputs])?, outputs, inputs))
    }

    /// A single number, saved with no axes or with one of size 1.
    pub(super) fn take_number(&mut self, name: &str) -> Result<f32, ModelError> {
        let values = self.take(name, &[]).or_else(|_| self.take(name, &[1]))?;
        Ok(values[0])
    }

    /// Refuses tensors that the architecture has no place for.
    pub(super) fn finish(self) -> Result<(), ModelError> {
        match self.untaken.first() {
            Some(name) => Err(ModelError::TensorUnknown { name: name.clone() }),
            None => Ok(()),
        }
    }
}

fn convert<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (numbers, rest) = bytes.as_chunks::<N>();
    assert!(rest.is_empty(), "safetensors checked the size of every tensor");
    numbers.iter().map(|&bytes| number(bytes)).collect()
}

/// `[rows, columns]` to `[columns, rows]`, in square tiles so that reads and writes stay in cache.
pub(super) fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const TILE: usize = 32;
    let mut transposed = vec![0.0; values.len()];
    for row_tile in (0..rows).step_by(TILE) {
        for column_tile in (0..columns).step_by(TILE) {
            for row in row_tile..rows.min(row_tile + TILE) {
                for column in column_tile..columns.min(column_tile + TILE) {
                    transposed[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    transposed
}
