//! What a model is calibrated with: pictures of a directory and lines of a file, as rows of the model.
//!
//! Beside the pictures of the directory it sees some that nobody takes and everybody sends: one even colour, and noise.
//! They reach farther in many a layer, and what reaches farther than anything that was seen is cut off. They are never
//! held out.

use std::error::Error;
use std::path::Path;

use crate::cli::inputs::{Depth, pictures_of, read_file};
use crate::cli::progress::Progress;
use crate::clip::image::{ImageLimits, ImagePreprocessor};
use crate::clip::row::ImageRow;
use crate::clip::spec::ImageSpec;
use crate::clip::text::TextTokenizer;
use crate::engine::Batch;
use crate::modality::Modality;
use crate::model::Model;

/// Fewer do not show what a model sees.
const LEAST: usize = 16;

/// One input in so many is compared instead of calibrated with.
const HELD_OUT: usize = 4;

/// So many of each kind that is made up.
const MADE_UP: usize = 12;

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
        Ok(Rows { modality, seen: mixed(seen), held_out: mixed(held_out) })
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
    let mut rows = Rows::new(Modality::Image, rows, directory)?;
    rows.seen = mixed(rows.seen.into_iter().chain(made_up(spec)).collect());
    Ok(rows)
}

/// Greys from black to white, then noise of several grains, from a pixel to a quarter of the picture.
fn made_up(spec: &ImageSpec) -> impl Iterator<Item = Batch> {
    let (height, width) = (spec.height as usize, spec.width as usize);
    let grey = move |number: usize| vec![(number * 255 / (MADE_UP - 1)) as u8; height * width * 3];
    let noise = move |number: usize| {
        let grain = [1, height.div_ceil(16), height.div_ceil(4)][number % 3];
        let across = width.div_ceil(grain);
        let pixel = |index: usize| {
            let (y, x, channel) = (index / 3 / width / grain, index / 3 % width / grain, index % 3);
            byte(((number * height + y) * across + x) * 3 + channel)
        };
        (0..height * width * 3).map(pixel).collect()
    };
    let rows = (0..MADE_UP).map(grey).chain((0..MADE_UP).map(noise));
    rows.map(|pixels: Vec<u8>| Batch::Images(vec![ImageRow(pixels.into())]))
}

/// One that looks like chance (the finalizer of Steele et al. 2014, SplitMix64).
fn byte(number: usize) -> u8 {
    let mut bits = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (bits >> 56) as u8
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

/// In an order in which the first few are from all over: that of the golden ratio's multiples, modulo 1.
fn mixed<T>(all: Vec<T>) -> Vec<T> {
    let place = |number: usize| (number as f64 * 0.618_033_988_75).fract();
    let mut numbered: Vec<(usize, T)> = all.into_iter().enumerate().collect();
    numbered.sort_by(|(a, _), (b, _)| place(*a).total_cmp(&place(*b)));
    numbered.into_iter().map(|(_, each)| each).collect()
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
    fn the_first_few_are_from_all_over() {
        let mixed = mixed((0..100).collect());
        for third in [0..33, 33..66, 66..100] {
            let count = mixed[..12].iter().filter(|number| third.contains(*number)).count();
            assert!((3..=5).contains(&count), "{third:?}: {count}");
        }
    }

    #[test]
    fn what_is_made_up_reaches_from_black_to_white() {
        let spec = crate::model::Model::builtin(crate::model::graph::Form::PORTABLE).unwrap().spec.image;
        let rows: Vec<ImageRow> = made_up(&spec)
            .flat_map(|batch| match batch {
                Batch::Images(rows) => rows,
                Batch::Texts(_) => vec![],
            })
            .collect();
        assert!(rows.iter().all(|ImageRow(pixels)| pixels.len() == spec.row_bytes()));
        let (greys, noise) = rows.split_at(MADE_UP);
        assert!(
            greys[0].0.iter().all(|byte| *byte == 0) && greys[MADE_UP - 1].0.iter().all(|byte| *byte == 255)
        );
        for (number, ImageRow(pixels)) in noise.iter().enumerate() {
            let mean = pixels.iter().map(|byte| f64::from(*byte)).sum::<f64>() / pixels.len() as f64;
            assert!((90.0..165.0).contains(&mean), "{number}: {mean}");
            // Neighbours are alike where the grain is coarse.
            assert_eq!(pixels[..3] == pixels[3..6], number % 3 > 0, "{number}");
        }
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
