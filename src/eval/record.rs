//! A run in a directory: what it was (`run.json`), and its embeddings as rows of 32-bit floats in little-endian order
//! (`images.f32`, `texts.f32`; numpy: `fromfile(path, "<f4").reshape(-1, columns)`).
//!
//! Pictures' rows are written as they come, so that a run that was cut off goes on after the last whole one.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Error;
use super::about::About;
use super::matrix::Matrix;
use crate::cli;

const HEADER: &str = "run.json";
const IMAGES: &str = "images.f32";
const TEXTS: &str = "texts.f32";

/// What rows belong to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    /// Digest of the data.
    pub(super) data: String,
    #[serde(flatten)]
    pub(super) about: About,
    pub(super) columns: usize,
}

pub(super) struct Record {
    directory: PathBuf,
    images: RefCell<Option<BufWriter<File>>>,
}

impl Record {
    pub(super) fn at(directory: &Path) -> Record {
        Record { directory: directory.to_owned(), images: RefCell::default() }
    }

    /// The rows that are there already. A directory with another run is left alone.
    pub(super) fn begin(&self, header: &Header) -> Result<Matrix, Error> {
        std::fs::create_dir_all(&self.directory).map_err(self.failed(""))?;
        let path = self.directory.join(HEADER);
        if path.exists() {
            if self.header()? != *header {
                let directory = self.directory.display();
                return Err(Error::Other(format!("{directory} has a run of other data or of another model")));
            }
        } else {
            let json =
                serde_json::to_string_pretty(header).map_err(|error| Error::Other(error.to_string()))?;
            std::fs::write(&path, json).map_err(self.failed(HEADER))?;
        }
        let path = self.directory.join(IMAGES);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(self.failed(IMAGES))?;
        let mut rows = self.rows(IMAGES, header.columns)?;
        // What failed is tried again, and what comes after it.
        let whole =
            (0..rows.rows()).take_while(|row| rows.row(*row).iter().all(|value| value.is_finite())).count();
        rows.values.truncate(whole * header.columns);
        let bytes = (rows.values.len() * size_of::<f32>()) as u64;
        file.set_len(bytes).and_then(|()| file.seek(SeekFrom::Start(bytes))).map_err(self.failed(IMAGES))?;
        self.images.replace(Some(BufWriter::new(file)));
        Ok(rows)
    }

    /// The next picture's row.
    pub(super) fn add(&self, row: &[f32]) -> Result<(), cli::Error> {
        let mut images = self.images.borrow_mut();
        let Some(file) = images.as_mut() else { return Ok(()) };
        let written = row.iter().try_for_each(|value| file.write_all(&value.to_le_bytes()));
        written.map_err(|error| cli::Error::File { path: self.directory.join(IMAGES), error })
    }

    pub(super) fn complete(&self, texts: &Matrix) -> Result<(), Error> {
        if let Some(mut file) = self.images.borrow_mut().take() {
            file.flush().map_err(self.failed(IMAGES))?;
        }
        let bytes: Vec<u8> = texts.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        std::fs::write(self.directory.join(TEXTS), bytes).map_err(self.failed(TEXTS))
    }

    /// A whole run of these data.
    pub(super) fn load(
        &self,
        data: &str,
        (pictures, candidates): (usize, usize),
    ) -> Result<(Header, Matrix, Matrix), Error> {
        let header = self.header()?;
        let directory = self.directory.display();
        if header.data != data {
            return Err(Error::Other(format!("{directory} has a run of other data")));
        }
        let (images, texts) = (self.rows(IMAGES, header.columns)?, self.rows(TEXTS, header.columns)?);
        match (images.rows(), texts.rows()) == (pictures, candidates) {
            true => Ok((header, images, texts)),
            false => Err(Error::Other(format!("{directory} has a run that did not end"))),
        }
    }

    fn header(&self) -> Result<Header, Error> {
        let json = std::fs::read(self.directory.join(HEADER)).map_err(self.failed(HEADER))?;
        let unfit = |error| Error::Other(format!("{}: {error}", self.directory.join(HEADER).display()));
        let header: Header = serde_json::from_slice(&json).map_err(unfit)?;
        match header.columns {
            1..=65_536 => Ok(header),
            columns => Err(Error::Other(format!("{}: {columns} columns", self.directory.display()))),
        }
    }

    /// The whole rows of a file.
    fn rows(&self, name: &str, columns: usize) -> Result<Matrix, Error> {
        let bytes = std::fs::read(self.directory.join(name)).map_err(self.failed(name))?;
        let (floats, _) = bytes.as_chunks();
        let mut values: Vec<f32> = floats.iter().copied().map(f32::from_le_bytes).collect();
        values.truncate(values.len() / columns * columns);
        Ok(Matrix { columns, values })
    }

    fn failed(&self, name: &str) -> impl Fn(std::io::Error) -> Error {
        let path = self.directory.join(name);
        move |error| cli::Error::File { path: path.clone(), error }.into()
    }
}
