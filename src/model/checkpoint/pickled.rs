//! Weights as `torch.save` leaves them: a zip with a pickle, `data.pkl`, and the bytes of each storage beside it.
//!
//! A pickle is a program, and to run it as Python does is to run whatever its author wants. Here it is read by a
//! [`machine`] that knows how to make numbers, texts, lists, dictionaries and tensors, and nothing else: it calls
//! nothing, and every other name ends it. Legacy files (before PyTorch 1.6), TorchScript archives and compressed
//! entries are refused in words.

mod machine;
#[cfg(test)]
mod tests;
mod things;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{Read, SeekFrom};

use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::tensors::{Element, Extent, Source, Tensors};
use things::{Arena, Tensor, Value};

/// Most bytes of `data.pkl`: 16 MiB, which is enough for tens of thousands of tensors.
const MAX_PICKLE_BYTES: u64 = 16 << 20;
/// Most entries of a file: a storage each.
const MAX_ENTRIES: usize = 65_536;

/// Where training scripts keep the weights, beside the optimizer and what else they need to go on.
const WRAPPERS: [&str; 3] = ["state_dict", "model_state_dict", "model"];

/// How a pickle of protocol 2 or later begins, and so a legacy file.
const PICKLE: u8 = 0x80;

/// PyTorch's files of weights, by their names.
pub(in crate::model) fn is_pickled(file: &str) -> bool {
    [".bin", ".pt", ".pth", ".ckpt"].iter().any(|suffix| file.ends_with(suffix))
}

/// A storage's bytes.
struct Entry {
    start: u64,
    bytes: u64,
}

/// Errors are texts.
pub(super) fn tensors(source: &mut Box<dyn Source>) -> Result<Tensors, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let broken = |error: ZipError| format!("a broken zip: {error}");
    let mut first = [0];
    source.seek(SeekFrom::Start(0)).map_err(unreadable)?;
    source.read_exact(&mut first).map_err(unreadable)?;
    if first[0] == PICKLE {
        return Err(
            "a pickle of before PyTorch 1.6: load it with torch.load and save it with torch.save, or better \
                    with safetensors.torch.save_file"
                .to_owned(),
        );
    }
    let mut archive = ZipArchive::new(source).map_err(|error| format!("no file of torch.save: {error}"))?;
    if archive.len() > MAX_ENTRIES {
        return Err(format!("{} entries are more than the limit of {MAX_ENTRIES}", archive.len()));
    }
    let names = archive.file_names().map(|name| name.map(Cow::into_owned));
    let names: Vec<String> = names.collect::<Result<_, _>>().map_err(broken)?;
    let pickle = names.iter().find(|name| *name == "data.pkl" || name.ends_with("/data.pkl"));
    let Some(folder) = pickle.and_then(|pickle| pickle.strip_suffix("data.pkl")) else {
        return Err("no file of torch.save: it has no data.pkl".to_owned());
    };
    if names.iter().any(|name| name.strip_prefix(folder) == Some("constants.pkl")) {
        return Err(
            "a TorchScript archive, which is code: save the model's state_dict with torch.save".to_owned()
        );
    }
    let (mut text, mut big_endian) = (Vec::new(), false);
    let mut entries = BTreeMap::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index_raw(index).map_err(broken)?;
        let name = entry.name().map_err(broken)?.into_owned();
        let Some(name) = name.strip_prefix(folder) else { continue };
        let wanted = name == "data.pkl" || name == "byteorder" || name.starts_with("data/");
        if wanted && (entry.compression() != CompressionMethod::Stored || entry.encrypted()) {
            return Err(format!("{name} is compressed or encrypted, which torch.save does not do"));
        }
        match name {
            "data.pkl" if entry.size() > MAX_PICKLE_BYTES => {
                return Err(format!("data.pkl has {} bytes, the limit is {MAX_PICKLE_BYTES}", entry.size()));
            }
            // Not more than it says, whatever else the zip says of it.
            "data.pkl" => {
                entry.by_ref().take(MAX_PICKLE_BYTES).read_to_end(&mut text).map_err(unreadable)?;
            }
            "byteorder" => {
                let mut order = String::new();
                entry.by_ref().take(16).read_to_string(&mut order).map_err(unreadable)?;
                big_endian = order == "big";
            }
            _ => {
                if let Some(key) = name.strip_prefix("data/") {
                    let start = entry.data_start().ok_or_else(|| format!("{name} has no beginning"))?;
                    entries.insert(key.to_owned(), Entry { start, bytes: entry.size() });
                }
            }
        }
    }
    if big_endian {
        return Err("its numbers are big-endian".to_owned());
    }
    let length = archive.into_inner().seek(SeekFrom::End(0)).map_err(unreadable)?;
    let (things, result) = machine::run(&text).map_err(|error| format!("data.pkl: {error}"))?;
    named(&things, result)
        .into_iter()
        .map(|(name, tensor)| {
            let extent =
                extent(tensor, &entries, length).map_err(|reason| format!("tensor {name}: {reason}"))?;
            Ok((name, extent))
        })
        .collect()
}

/// The tensors of a dictionary, or of the one in it that has the weights.
fn named(things: &Arena, value: Value) -> Vec<(String, &Tensor)> {
    let items = things.items(value);
    let wrapped = WRAPPERS.iter().find_map(|wrapper| {
        let (_, inner) = items.iter().find(|(key, _)| things.text(*key) == Some(wrapper))?;
        Some(things.items(*inner)).filter(|inner| !inner.is_empty())
    });
    let items = wrapped.unwrap_or(items);
    items
        .iter()
        .filter_map(|(key, value)| Some((things.text(*key)?.to_owned(), things.tensor(*value)?)))
        .collect()
}

fn extent(tensor: &Tensor, entries: &BTreeMap<String, Entry>, length: u64) -> Result<Extent, String> {
    let Tensor { storage, offset, shape, strides } = tensor;
    let (element, size) = match storage.kind.as_str() {
        "FloatStorage" => (Element::F32, 4_u64),
        "HalfStorage" => (Element::F16, 2),
        "BFloat16Storage" => (Element::Bf16, 2),
        other => {
            let name = other.trim_end_matches("Storage").to_owned();
            return Ok(Extent {
                element: Element::Other(name),
                shape: shape.clone(),
                strides: None,
                start: 0,
            });
        }
    };
    let entry = entries.get(&storage.key).ok_or_else(|| format!("its data/{} is missing", storage.key))?;
    let large = || "it is larger than can be".to_owned();
    let span = Extent::span(shape, strides).ok_or_else(large)?;
    let end =
        (*offset as u64).checked_add(span as u64).and_then(|end| end.checked_mul(size)).ok_or_else(large)?;
    let start = entry.start.checked_add(*offset as u64 * size).ok_or_else(large)?;
    if end > entry.bytes || entry.start.checked_add(end).is_none_or(|end| end > length) {
        return Err(format!("data/{} has {} bytes, and it needs {end}", storage.key, entry.bytes));
    }
    let strides = Some(strides.clone()).filter(|strides| Extent::row_major(shape).as_ref() != Some(strides));
    Ok(Extent { element, shape: shape.clone(), strides, start })
}
