//! A directory with a directory for each class, as torchvision's ImageFolder takes it: classes in the order of their
//! names.

use std::path::{Path, PathBuf};

use super::{Label, Raw, Sample};
use crate::cli;
use crate::cli::inputs::{Depth, Input, pictures_of};
use crate::eval::Error;

pub(super) fn read(directory: &Path) -> Result<Raw, Error> {
    let failed = |error| cli::Error::File { path: directory.to_owned(), error };
    let mut classes = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            classes.push(path);
        }
    }
    classes.sort();
    let mut raw = Raw { classes: Some(classes.iter().map(|path| name(path)).collect()), ..Raw::default() };
    for (index, class) in classes.iter().enumerate() {
        let mut pictures = pictures_of(class, Depth::AllBelow)?;
        pictures.sort();
        raw.samples.extend(pictures.into_iter().map(|path: PathBuf| Sample {
            picture: Input::Picture(path),
            label: Label::Index(index as u64),
        }));
    }
    Ok(raw)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
