//! One file of weights: where each tensor is, and the tensors.
//!
//! It does not hold the file: a tensor is read when it is asked for, and becomes `f32` on the way.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use half::{bf16, f16};
use sha2::Sha256;

use super::tensors::{Element, Extent, Source, Tensors};
use super::{pickled, safetensors_header};
use crate::model::io::{CHUNK_BYTES, hash};
use crate::model::{ModelError, TensorFault};

/// A file of weights, open.
pub(in crate::model) struct Shard {
    /// Its name, for messages.
    pub(super) file: String,
    source: Box<dyn Source>,
    tensors: Tensors,
}

impl Shard {
    pub(in crate::model) fn open(directory: &Path, file: &str) -> Result<Shard, ModelError> {
        let path = directory.join(file);
        match File::open(&path) {
            Ok(source) => Shard::new(file, Box::new(source)),
            Err(source) => Err(ModelError::File { path, source }),
        }
    }

    pub(in crate::model) fn in_memory(
        file: &str,
        bytes: impl AsRef<[u8]> + 'static,
    ) -> Result<Shard, ModelError> {
        Shard::new(file, Box::new(Cursor::new(bytes)))
    }

    fn new(file: &str, mut source: Box<dyn Source>) -> Result<Shard, ModelError> {
        let tensors = match pickled::is_pickled(file) {
            true => pickled::tensors(&mut source),
            false => safetensors_header::tensors(&mut source),
        };
        let tensors = tensors.map_err(|reason| ModelError::Weights { file: file.to_owned(), reason })?;
        Ok(Shard { file: file.to_owned(), source, tensors })
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|extent| &*extent.shape)
    }

    /// The values of tensor `name`, one of [`Shard::names`], in row-major order.
    pub(super) fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let file = &self.file;
        let fault = |fault| ModelError::Tensor { file: file.clone(), name: name.to_owned(), fault };
        let extent = self.tensors.get(name).expect("the name is one of names()");
        if extent.shape != shape {
            let (found, expected) = (extent.shape.clone(), shape.to_vec());
            return Err(fault(TensorFault::Shape { found, expected }));
        }
        match values(&mut self.source, extent) {
            Ok(Ok(values)) => Ok(values),
            Ok(Err(other)) => Err(fault(TensorFault::Type(other))),
            Err(error) => Err(fault(TensorFault::Unreadable(error))),
        }
    }

    /// Adds the whole file to a digest.
    pub(in crate::model) fn hash(&mut self, hasher: &mut Sha256) -> Result<(), ModelError> {
        self.source.rewind().and_then(|()| hash(&mut self.source, hasher)).map_err(|error| {
            ModelError::Weights { file: self.file.clone(), reason: format!("cannot be read: {error}") }
        })
    }
}

/// In row-major order; or the name of a type that is no weight's.
fn values(source: &mut impl Source, extent: &Extent) -> io::Result<Result<Vec<f32>, String>> {
    let Extent { element, shape, strides, start } = extent;
    source.seek(SeekFrom::Start(*start))?;
    let count = match strides {
        None => shape.iter().product(),
        Some(strides) => {
            Extent::span(shape, strides).unwrap_or_else(|| unreachable!("the file has all of it"))
        }
    };
    let lying = match element {
        Element::F32 => read_numbers(source, count, f32::from_le_bytes)?,
        Element::F16 => read_numbers(source, count, |b| f16::from_le_bytes(b).to_f32())?,
        Element::Bf16 => read_numbers(source, count, |b| bf16::from_le_bytes(b).to_f32())?,
        Element::Other(name) => return Ok(Err(name.clone())),
    };
    Ok(Ok(match strides {
        None => lying,
        Some(strides) => gathered(&lying, shape, strides),
    }))
}

/// In row-major order.
fn gathered(values: &[f32], shape: &[usize], strides: &[usize]) -> Vec<f32> {
    let places = shape.iter().zip(strides).fold(vec![0], |places: Vec<usize>, (&size, &stride)| {
        places.iter().flat_map(|place| (0..size).map(move |index| place + index * stride)).collect()
    });
    places.into_iter().map(|place| values[place]).collect()
}

fn read_numbers<const N: usize>(
    source: &mut impl Read,
    count: usize,
    number: impl Fn([u8; N]) -> f32,
) -> io::Result<Vec<f32>> {
    let mut values = Vec::with_capacity(count);
    let mut chunk = vec![0; CHUNK_BYTES.min(count * N)];
    while values.len() < count {
        let rest = (count - values.len()) * N;
        let bytes = &mut chunk[..rest.min(CHUNK_BYTES)];
        source.read_exact(bytes)?;
        values.extend(bytes.as_chunks().0.iter().map(|&bytes| number(bytes)));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_read_as_they_are_seen() {
        let values: Vec<f32> = (0..6_u8).map(f32::from).collect();
        assert_eq!(gathered(&values, &[2, 3], &[3, 1]), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(gathered(&values, &[3, 2], &[1, 3]), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0], "transposed");
        assert_eq!(gathered(&values, &[2, 2], &[0, 2]), [0.0, 2.0, 0.0, 2.0], "expanded");
        assert_eq!(gathered(&values, &[], &[]), [0.0]);
    }
}
