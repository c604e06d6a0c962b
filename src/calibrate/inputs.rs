//! What a model is calibrated with: pictures of a directory and lines of a file, as rows of the model.

use std::error::Error;
use std::path::Path;

use crate::cli::inputs::{Depth, pictures_of, read_file};
use crate::cli::progress::Progress;
use crate::clip::image::{ImageLimits, ImagePreprocessor};
use crate::clip::spec::ImageSpec;
use crate::clip::text::TextTokenizer;
use crate::engine::Batch;
use crate::modality::Modality;
use crate::model::Model;

/// Fewer do not show what a model sees.
const LEAST: usize = 16;

/// Every so manieth input is compared instead of calibrated with.
const HELD_OUT: usize = 4;

const MAX_BYTES: usize = 64 << 20;
const LIMITS: ImageLimits = ImageLimits { max_bytes: MAX_BYTES, max_pixels: 1 << 28 };

/// Rows of one modality, each a batch of its own.
pub(super) struct Rows {
    pub(super) modality: Modality,
    pub(super) seen: Vec<Batch>,
    pub(super) held_out: Vec<Batch>,
}

impl Rows {
    fn new(modality: Modality, all: Vec<Batch>, source: &Path) -> Result<Rows, Box<dyn Error>> {
        if all.len() < LEAST {
            let (count, what) = (all.len(), modality.as_str());
            return Err(
                format!("{}: {count} {what}s are too few, {LEAST} are the least", source.display()).into()
            );
        }
        let (mut seen, mut held_out) = (Vec::new(), Vec::new());
        for (number, batch) in all.into_iter().enumerate() {
            let side = if number % HELD_OUT == HELD_OUT - 1 { &mut held_out } else { &mut seen };
            side.push(batch);
        }
        Ok(Rows { modality, seen, held_out })
    }
}

/// At most `most` pictures below `directory`, from all over it. One that cannot be read is told and left out.
pub(super) fn pictures(directory: &Path, spec: &ImageSpec, most: usize) -> Result<Rows, Box<dyn Error>> {
    let mut paths = pictures_of(directory, Depth::AllBelow)?;
    paths.sort();
    let preprocessor = ImagePreprocessor::new(spec.clone(), LIMITS);
    let paths = spread(&paths, most);
    let mut progress = Progress::of(paths.len());
    let mut rows = Vec::new();
    for path in paths {
        let row = read_file(path, MAX_BYTES as u64)
            .and_then(|bytes| preprocessor.encoded(&bytes).map_err(|error| error.to_string()));
        match row {
            Ok(row) => rows.push(Batch::Images(vec![row])),
            Err(reason) => progress.failed(&path.display().to_string(), &reason),
        }
        progress.advance();
    }
    progress.end();
    Rows::new(Modality::Image, rows, directory)
}

/// At most `most` lines of `file`, from all over it; empty ones do not count.
pub(super) fn texts(file: &Path, model: &Model, most: usize) -> Result<Rows, Box<dyn Error>> {
    let Some(spec) = &model.spec.text else {
        return Err(format!("{}: this model has no text encoder", file.display()).into());
    };
    let of_file = |reason: String| format!("{}: {reason}", file.display());
    let bytes = read_file(file, MAX_BYTES as u64).map_err(of_file)?;
    let text = String::from_utf8(bytes).map_err(|error| of_file(error.to_string()))?;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let tokenizer = TextTokenizer::new(&model.tokenizer_json, spec, MAX_BYTES)?;
    let row = |line: &&str| tokenizer.encode(line).map(|tokens| Batch::Texts(vec![tokens.row]));
    let rows = spread(&lines, most).into_iter().map(row).collect::<Result<Vec<_>, _>>();
    Rows::new(Modality::Text, rows.map_err(|error| of_file(error.to_string()))?, file)
}

/// At most `most` of them, evenly from all over.
fn spread<T>(all: &[T], most: usize) -> Vec<&T> {
    let count = all.len().min(most);
    (0..count).map(|number| &all[number * all.len() / count]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_taken_from_all_over() {
        assert_eq!(spread(&[1, 2, 3, 4, 5, 6], 3), [&1, &3, &5]);
        assert_eq!(spread(&[1, 2], 3), [&1, &2]);
        assert_eq!(spread::<u8>(&[], 3), Vec::<&u8>::new());
    }

    #[test]
    fn a_quarter_is_held_out_and_a_few_are_not_enough() {
        let batches = |count| (0..count).map(|_| Batch::Images(vec![])).collect::<Vec<_>>();
        let rows = |count| Rows::new(Modality::Image, batches(count), Path::new("somewhere"));
        let Rows { seen, held_out, .. } = rows(20).unwrap();
        assert_eq!((seen.len(), held_out.len()), (15, 5));
        let error = rows(15).err().unwrap().to_string();
        assert_eq!(error, "somewhere: 15 images are too few, 16 are the least");
    }
}
