//! Reading a model's files: what all layouts, and the hub, do the same way.

use std::io::{self, Read};
use std::path::{Component, Path};

use sha2::{Digest, Sha256};

use super::ModelError;

/// Read at a time; a multiple of the size of any number.
pub(super) const CHUNK_BYTES: usize = 1 << 20;

pub(super) fn read(directory: &Path, file: &str) -> Result<Vec<u8>, ModelError> {
    let path = directory.join(file);
    std::fs::read(&path).map_err(|source| ModelError::File { path, source })
}

/// Whether a name that a file mentions is one in the file's own directory.
pub(super) fn is_plain(name: &str) -> bool {
    matches!(Path::new(name).components().collect::<Vec<_>>()[..], [Component::Normal(file)] if file == name)
}

/// Adds what is left of `source` to a digest.
pub(super) fn hash(source: &mut impl Read, hasher: &mut Sha256) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match source.read(&mut chunk)? {
            0 => return Ok(()),
            length => hasher.update(&chunk[..length]),
        }
    }
}

pub(super) fn hexadecimal(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
