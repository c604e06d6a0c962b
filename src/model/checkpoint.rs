//! The tensors of a CLIP checkpoint, by the names that open_clip gives them.
//!
//! It does not know the architecture: whoever takes a tensor says which shape it must have. Every tensor
//! is read from its file once, when it is taken; one that nobody takes is an error, because the result
//! would differ from the model that was trained.

mod naming;
pub(super) mod pickled;
mod safetensors_header;
pub(super) mod shard;
mod tensors;
#[cfg(test)]
mod tests;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use sha2::Sha256;

use super::io::{is_plain, read};
use super::{ModelError, TensorFault};
pub(super) use naming::Naming;
use naming::Stored;
use shard::Shard;

/// Tensors that have not been taken yet.
pub(super) struct Checkpoint {
    /// What to name when a tensor is nowhere.
    file: String,
    shards: Vec<Shard>,
    naming: Naming,
    /// Where a tensor is, by its name without what [`PREFIXES`] put before it.
    places: BTreeMap<String, Place>,
}

/// Of a tensor.
struct Place {
    /// The number of its shard.
    shard: usize,
    /// Its name there.
    name: String,
}

/// What those who train put before the names of all tensors: PyTorch's `DistributedDataParallel` and `compile`, and
/// modules that have the model as a part.
const PREFIXES: [&str; 3] = ["module.", "_orig_mod.", "model."];

/// The shards that the text of a `FILE.index.json` names; where each tensor is, they say themselves.
pub(super) fn shard_names(json: &[u8]) -> serde_json::Result<BTreeSet<String>> {
    #[derive(Deserialize)]
    struct ShardIndex {
        /// The name of a shard for each tensor.
        weight_map: BTreeMap<String, String>,
    }
    let index: ShardIndex = serde_json::from_slice(json)?;
    Ok(index.weight_map.into_values().collect())
}

impl Checkpoint {
    /// Opens `file`, or instead of it the shards that `FILE.index.json` lists.
    pub(super) fn open(directory: &Path, file: &str, naming: Naming) -> Result<Checkpoint, ModelError> {
        let index_file = format!("{file}.index.json");
        tracing::info!(file, "weights chosen");
        if directory.join(file).exists() || !directory.join(&index_file).exists() {
            return Checkpoint::new(file, vec![Shard::open(directory, file)?], naming);
        }
        let json = read(directory, &index_file)?;
        let names =
            shard_names(&json).map_err(|source| ModelError::Json { file: index_file.clone(), source })?;
        let open = |name: &String| match is_plain(name) {
            true => Shard::open(directory, name),
            false => Err(ModelError::Weights {
                file: index_file.clone(),
                reason: format!("{name:?} is not the name of a file in this directory"),
            }),
        };
        let shards = names.iter().map(open).collect::<Result<_, _>>()?;
        Checkpoint::new(&index_file, shards, naming)
    }

    /// All of `shards` together are the checkpoint that is known as `file`.
    pub(super) fn new(file: &str, shards: Vec<Shard>, naming: Naming) -> Result<Checkpoint, ModelError> {
        let all: Vec<Place> = shards
            .iter()
            .enumerate()
            .flat_map(|(shard, tensors)| tensors.names().into_iter().map(move |name| Place { shard, name }))
            .collect();
        let prefix = prefix(&all);
        if !prefix.is_empty() {
            tracing::info!(file, prefix, "stripped from the names of all tensors");
        }
        let mut places = BTreeMap::new();
        for place in all {
            let shard = &shards[place.shard];
            let name = place.name[prefix.len()..].to_owned();
            if !naming.is_buffer(&name) {
                match places.entry(name) {
                    Entry::Vacant(free) => drop(free.insert(place)),
                    Entry::Occupied(place) => {
                        let (file, name) = (shard.file.clone(), place.key().clone());
                        return Err(ModelError::Tensor { file, name, fault: TensorFault::Twice });
                    }
                }
            }
        }
        let naming = naming.of_all(places.keys());
        Ok(Checkpoint { file: file.to_owned(), shards, naming, places })
    }

    /// The values of tensor `name` in row-major order.
    pub(super) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        match self.naming.stored(name) {
            Stored::Same(name) => self.read(&name, shape),
            Stored::Transposed(name) => {
                let [rows, columns] = *shape else { unreachable!("{name} is a matrix") };
                Ok(transpose(&self.read(&name, &[columns, rows])?, columns, rows))
            }
            Stored::Batched(name) => self.read(&name, &[&[1], shape].concat()),
            Stored::Stacked(parts) => {
                let [first, rest @ ..] = shape else { unreachable!("{name} has axes") };
                let share = first / parts.iter().map(|(_, shares)| shares).sum::<usize>();
                let read =
                    |(name, shares): (String, usize)| self.read(&name, &[&[shares * share], rest].concat());
                Ok(parts.into_iter().map(read).collect::<Result<Vec<_>, _>>()?.concat())
            }
        }
    }

    /// The shape of tensor `name`, if the file has it as it is.
    pub(super) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let Stored::Same(name) = self.naming.stored(name) else { return None };
        let place = self.places.get(&name)?;
        self.shards[place.shard].shape(&place.name).map(<[_]>::to_vec)
    }

    /// A single number, saved with no axes or with one of size 1.
    pub(super) fn take_number(&mut self, name: &str) -> Result<f32, ModelError> {
        let values = self.take(name, &[]).or_else(|_| self.take(name, &[1]))?;
        Ok(values[0])
    }

    /// Adds all shards, one after the other, to a digest.
    pub(super) fn hash(&mut self, hasher: &mut Sha256) -> Result<(), ModelError> {
        self.shards.iter_mut().try_for_each(|shard| shard.hash(hasher))
    }

    /// Refuses tensors that the architecture has no place for.
    pub(super) fn finish(self) -> Result<(), ModelError> {
        match self.places.into_iter().next() {
            Some((_, Place { shard, name })) => {
                let file = self.shards[shard].file.clone();
                Err(ModelError::Tensor { file, name, fault: TensorFault::Unknown })
            }
            None => Ok(()),
        }
    }

    /// `name` as in the file.
    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let Some(place) = self.places.get(name) else {
            let (file, name) = (self.file.clone(), name.to_owned());
            return Err(ModelError::Tensor { file, name, fault: TensorFault::Missing });
        };
        let values = self.shards[place.shard].read(&place.name, shape)?;
        self.places.remove(name);
        Ok(values)
    }
}

/// What all names begin with, of what is put before them.
fn prefix(places: &[Place]) -> String {
    let mut prefix = String::new();
    while let Some(more) = PREFIXES.iter().find(|more| {
        let rest =
            |place: &Place| place.name.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with(**more));
        !places.is_empty() && places.iter().all(rest)
    }) {
        prefix.push_str(more);
    }
    prefix
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
