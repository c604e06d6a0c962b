//! Where results go: lines on standard output, and files that appear when they are complete.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, StdoutLock, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::Error;

/// Lines for a person, or for a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Table,
    Json,
}

impl Format {
    pub(super) fn of_flag(json: bool) -> Format {
        if json { Format::Json } else { Format::Table }
    }
}

/// Standard output, a line at a time.
pub(super) struct Lines {
    stdout: StdoutLock<'static>,
    /// Printed before the first line, so that a failed call leaves no header without rows.
    header: Option<String>,
}

impl Lines {
    pub(super) fn new() -> Lines {
        Lines { stdout: io::stdout().lock(), header: None }
    }

    pub(super) fn under(header: String) -> Lines {
        Lines { stdout: io::stdout().lock(), header: Some(header) }
    }

    pub(super) fn text(&mut self, line: &str) -> Result<(), Error> {
        if let Some(header) = self.header.take() {
            self.line(&header)?;
        }
        self.line(line)
    }

    pub(super) fn json(&mut self, object: &impl Serialize) -> Result<(), Error> {
        self.line(&to_json(object)?)
    }

    fn line(&mut self, line: &str) -> Result<(), Error> {
        writeln!(self.stdout, "{line}").map_err(Error::Stdout)
    }
}

pub(super) fn to_json(object: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(object).map_err(|error| Error::Other(error.to_string()))
}

/// `text` with spaces after it, `width` columns wide; longer text stays whole.
pub(super) fn left(text: &str, width: usize) -> String {
    let spaces = width.saturating_sub(text.width());
    format!("{text}{}", " ".repeat(spaces))
}

/// Columns of the widest.
pub(super) fn widest<'a>(texts: impl Iterator<Item = &'a str>) -> usize {
    texts.map(UnicodeWidthStr::width).max().unwrap_or(0)
}

/// Control characters in names and messages are escaped: a terminal would obey them.
pub(crate) fn printable(text: &str) -> String {
    let escaped = |c: char| match c.is_control() {
        true => c.escape_default().collect::<String>(),
        false => c.to_string(),
    };
    text.chars().map(escaped).collect()
}

/// A file that is written as `NAME.partial` and gets its name when it is complete.
pub(crate) struct PartialFile {
    file: BufWriter<File>,
    path: PathBuf,
}

impl PartialFile {
    pub(crate) fn create(path: &Path) -> Result<PartialFile, Error> {
        let partial = partial(path);
        let file = File::create(&partial).map_err(|error| Error::File { path: partial, error })?;
        Ok(PartialFile { file: BufWriter::new(file), path: path.to_owned() })
    }

    pub(crate) fn complete(mut self) -> io::Result<()> {
        self.file.flush()?;
        std::fs::rename(partial(&self.path), &self.path)
    }
}

impl Write for PartialFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for PartialFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

pub(super) fn partial(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".partial");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_look() {
        assert_eq!(left("ab", 4), "ab  ");
        assert_eq!(left("猫", 4), "猫  ");
        assert_eq!(left("long", 2), "long");
        assert_eq!(widest(["a", "猫", ""].into_iter()), 2);
    }

    #[test]
    fn a_terminal_is_not_commanded() {
        assert_eq!(printable("a\u{1b}[2Jb\nc\u{e9}"), "a\\u{1b}[2Jb\\nc\u{e9}");
    }

    #[test]
    fn a_file_has_its_name_when_it_is_complete() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("x.npy");
        let mut file = PartialFile::create(&path).unwrap();
        file.write_all(b"row").unwrap();
        assert!(!path.exists() && home.path().join("x.npy.partial").exists());
        file.complete().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"row");
        assert!(!partial(&path).exists());
    }
}
