//! The header of a safetensors file, checked against the file's length: what it lists is there.

use std::io::{self, SeekFrom};

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::tensors::{Element, Extent, Source, Tensors};

/// As in the format's reference implementation. A header takes some 100 bytes per tensor.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Errors are texts.
pub(super) fn tensors(source: &mut impl Source) -> Result<Tensors, String> {
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
    let extent = |(name, tensor): (String, &safetensors::tensor::TensorInfo)| {
        let element = match tensor.dtype {
            Dtype::F32 => Element::F32,
            Dtype::F16 => Element::F16,
            Dtype::BF16 => Element::Bf16,
            other => Element::Other(format!("{other:?}")),
        };
        let start = data_start + tensor.data_offsets.0 as u64;
        (name, Extent { element, shape: tensor.shape.clone(), strides: None, start })
    };
    Ok(metadata.tensors().into_iter().map(extent).collect())
}
