//! What the user named: files, directories, standard input, texts; and their bytes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use crate::clip::image::ImageFormat;
use crate::grpc::proto::{self, input::Content};

/// One thing to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    Picture(PathBuf),
    #[cfg_attr(not(feature = "bench"), expect(dead_code, reason = "archives are for `eval` alone"))]
    Part(Part),
    Stdin,
    Text(String),
}

/// A picture inside a larger file, such as a member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) file: Arc<Path>,
    /// Bytes from the beginning of the file.
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    /// For people; it is no path.
    pub(crate) name: String,
}

impl Input {
    pub(super) fn of_argument(path: &Path) -> Input {
        if path == Path::new("-") { Input::Stdin } else { Input::Picture(path.to_owned()) }
    }

    /// The path, or the text. What is not UTF-8 in a path is replaced.
    pub(crate) fn name(&self) -> String {
        match self {
            Input::Picture(path) => path.display().to_string(),
            Input::Part(part) => part.name.clone(),
            Input::Stdin => "-".to_owned(),
            Input::Text(text) => text.clone(),
        }
    }

    /// What is sent. Reads files, so it may block.
    pub(crate) fn load(&self, max_bytes: u64) -> Result<Content, String> {
        let picture = |bytes: Vec<u8>| {
            Content::Image(proto::Image { source: Some(proto::image::Source::Encoded(bytes.into())) })
        };
        match self {
            Input::Picture(path) => read_file(path, max_bytes).map(picture),
            Input::Part(part) => part.read(max_bytes).map(picture),
            Input::Stdin => read(io::stdin().lock(), max_bytes).map(picture),
            Input::Text(text) => check(text.len() as u64, max_bytes).map(|()| Content::Text(text.clone())),
        }
    }
}

impl Part {
    fn read(&self, max_bytes: u64) -> Result<Vec<u8>, String> {
        check(self.bytes, max_bytes)?;
        let failed = |error: io::Error| error.to_string();
        let mut file = File::open(&self.file).map_err(failed)?;
        file.seek(SeekFrom::Start(self.offset)).map_err(failed)?;
        let bytes = read(file.take(self.bytes), max_bytes)?;
        if bytes.len() as u64 == self.bytes {
            Ok(bytes)
        } else {
            Err("the file has become shorter".to_owned())
        }
    }
}

/// At most `max_bytes` of a file, or the reason why not.
pub(crate) fn read_file(path: &Path, max_bytes: u64) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    check(length, max_bytes)?;
    read(file, max_bytes)
}

/// A pipe has no length, and a file may have grown since it told its own.
fn read(source: impl Read, max_bytes: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    source.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    check(bytes.len() as u64, max_bytes)?;
    Ok(bytes)
}

fn check(bytes: u64, max_bytes: u64) -> Result<(), String> {
    if bytes > max_bytes {
        return Err(format!("more bytes than the limit of {max_bytes}"));
    }
    Ok(())
}

/// How deep `expand` goes into directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    OneDirectory,
    AllBelow,
}

/// The arguments in their order, each directory replaced by its pictures, sorted by path.
pub(crate) fn expand(arguments: &[PathBuf], depth: Depth) -> Result<Vec<Input>, Error> {
    let mut inputs = Vec::new();
    for argument in arguments {
        if !argument.is_dir() {
            inputs.push(Input::of_argument(argument));
            continue;
        }
        let mut pictures = pictures_of(argument, depth)?;
        if pictures.is_empty() {
            let below = if depth == Depth::OneDirectory { "; --recursive looks below it" } else { "" };
            let path = argument.display();
            return Err(Error::Other(format!("{path}: no {} file in it{below}", ImageFormat::listed("or"))));
        }
        pictures.sort();
        inputs.extend(pictures.into_iter().map(Input::Picture));
    }
    Ok(inputs)
}

pub(crate) fn pictures_of(directory: &Path, depth: Depth) -> Result<Vec<PathBuf>, Error> {
    let mut pictures = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let failed = |error| Error::File { path: directory.clone(), error };
        for entry in std::fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // Of the entry itself: a link to a directory could lead round in a circle.
            let is_directory = entry.file_type().map_err(failed)?.is_dir();
            let path = entry.path();
            if is_directory {
                if depth == Depth::AllBelow {
                    directories.push(path);
                }
            } else if is_picture(&path) && !path.is_dir() {
                pictures.push(path);
            }
        }
    }
    Ok(pictures)
}

/// By its name: the formats that the server reads.
pub(crate) fn is_picture(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let known = ImageFormat::ALL.into_iter().flat_map(ImageFormat::suffixes);
    known.into_iter().any(|known| extension.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_become_their_pictures_in_order() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        std::fs::create_dir(at("below")).unwrap();
        for name in ["b.png", "a.JPG", "notes.txt", "below/c.webp"] {
            std::fs::write(at(name), "").unwrap();
        }
        std::os::unix::fs::symlink(home.path(), at("below/round.png")).unwrap();
        let picture = |name: &str| Input::Picture(at(name));
        let arguments = [PathBuf::from("-"), home.path().to_owned(), PathBuf::from("x.txt")];
        let check = |depth, middle: &[Input]| {
            let mut expected = vec![Input::Stdin];
            expected.extend_from_slice(middle);
            expected.push(Input::Picture("x.txt".into()));
            assert_eq!(expand(&arguments, depth).unwrap(), expected);
        };
        check(Depth::OneDirectory, &[picture("a.JPG"), picture("b.png")]);
        check(Depth::AllBelow, &[picture("a.JPG"), picture("b.png"), picture("below/c.webp")]);
    }

    #[test]
    fn what_is_too_large_is_not_read() {
        assert_eq!(read(&b"1234"[..], 4), Ok(b"1234".to_vec()));
        assert!(read(io::repeat(0), 4).is_err());
        assert!(Input::Text("12345".into()).load(4).is_err());
    }
}
