//! One safetensors file: a header that says where each tensor is, and the tensors.
//!
//! It does not hold the file: a tensor is read when it is asked for, and becomes `f32` on the way. The
//! header is checked against the file's length on opening, so what it lists is there.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use sha2::Sha256;

use crate::model::io::{CHUNK_BYTES, hash};
use crate::model::{ModelError, TensorFault};

/// As in the format's reference implementation. A header takes some 100 bytes per tensor.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// What a safetensors file is read from.
trait Source: Read + Seek {}
impl<T: Read + Seek> Source for T {}

/// A safetensors file, open.
pub(in crate::model) struct Shard {
    /// Its name, for messages.
    pub(super) file: String,
    source: Box<dyn Source>,
    metadata: Metadata,
    /// Where the first tensor begins.
    data_start: u64,
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
        match read_header(&mut source) {
            Ok((metadata, data_start)) => Ok(Shard { file: file.to_owned(), source, metadata, data_start }),
            Err(reason) => Err(ModelError::Weights { file: file.to_owned(), reason }),
        }
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// The values of tensor `name`, one of [`Shard::names`], in row-major order.
    pub(super) fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let file = &self.file;
        let fault = |fault| ModelError::Tensor { file: file.clone(), name: name.to_owned(), fault };
        let tensor = self.metadata.info(name).expect("the name is one of names()");
        if tensor.shape != shape {
            let (found, expected) = (tensor.shape.clone(), shape.to_vec());
            return Err(fault(TensorFault::Shape { found, expected }));
        }
        let source = &mut self.source;
        let mut read = || {
            source.seek(SeekFrom::Start(self.data_start + tensor.data_offsets.0 as u64))?;
            let count = shape.iter().product();
            match tensor.dtype {
                Dtype::F32 => read_numbers(source, count, f32::from_le_bytes).map(Some),
                Dtype::F16 => read_numbers(source, count, |b| f16::from_le_bytes(b).to_f32()).map(Some),
                Dtype::BF16 => read_numbers(source, count, |b| bf16::from_le_bytes(b).to_f32()).map(Some),
                _ => Ok(None),
            }
        };
        match read() {
            Ok(Some(values)) => Ok(values),
            Ok(None) => Err(fault(TensorFault::Type(format!("{:?}", tensor.dtype)))),
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

/// What the file lists, and where its tensors begin. Errors are texts.
fn read_header(source: &mut impl Source) -> Result<(Metadata, u64), String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    let length = source.seek(SeekFrom::End(0)).map_err(unreadable)?;
    let Some(rest) = length.checked_sub(8) else {
        return Err(format!("not safetensors: it has {length} bytes"));
    };
    source.rewind().map_err(unreadable)?;
    let mut size = [0; 8];
    source.read_exact(&mut size).map_err(unreadable)?;
    let size = u64::from_le_bytes(size);
    if size > MAX_HEADER_BYTES.min(rest) {
        return Err(format!("not safetensors: a header of {size} bytes in a file of {length}"));
    }
    let mut header = vec![0; size as usize];
    source.read_exact(&mut header).map_err(unreadable)?;
    // This checks that the tensors have the bytes that their shapes need, and no gaps between them.
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| format!("not safetensors: {error}"))?;
    let data_start = 8 + size;
    let expected = data_start + metadata.data_len() as u64;
    if length != expected {
        return Err(format!("it has {length} bytes, its header asks for {expected}"));
    }
    Ok((metadata, data_start))
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
