//! Members of a tar archive, one after the other: a name, and where its bytes are. Nothing is unpacked.
//!
//! ustar and pax (POSIX.1-2017, "pax Interchange Format"), and GNU's long names, as Python's tarfile writes them. A
//! name is text for people and for grouping, never a path. What an archive of pictures has no use for is an error:
//! links, devices, names that lead elsewhere, sizes beyond the end of the file, and a missing end.

use std::io::{Read, Seek, SeekFrom};

const BLOCK: u64 = 512;

/// Longest name, and longest extended header.
const MAX_NAME: u64 = 4096;
const MAX_EXTENDED: u64 = 64 << 10;

/// A regular file of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    /// Bytes from the beginning of the archive.
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// Why there is no next member. Offsets are bytes from the beginning of the archive.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TarError {
    /// What comes after it is missing.
    #[error("it is cut at byte {at}: {what}; nothing after it is counted")]
    Cut { at: u64, what: String },
    #[error("byte {at}: {what}")]
    Bad { at: u64, what: String },
}

pub(super) struct Members<R> {
    source: R,
    length: u64,
    /// Of the next header.
    at: u64,
}

/// What extended headers say of the next member.
#[derive(Default)]
struct Extended {
    name: Option<String>,
    bytes: Option<u64>,
}

impl<R: Read + Seek> Members<R> {
    pub(super) fn new(mut source: R) -> std::io::Result<Members<R>> {
        let length = source.seek(SeekFrom::End(0))?;
        Ok(Members { source, length, at: 0 })
    }

    /// `None` at the archive's end.
    pub(super) fn next(&mut self) -> Result<Option<Member>, TarError> {
        let mut extended = Extended::default();
        loop {
            let at = self.at;
            let mut header = [0; BLOCK as usize];
            self.read(at, &mut header)?;
            if header == [0; BLOCK as usize] {
                return Ok(None);
            }
            let bad = |what: &str| TarError::Bad { at, what: what.to_owned() };
            if number(&header[148..156]) != Some(checksum(&header)) {
                return Err(bad("a header with a wrong checksum: it is no tar archive, or damaged"));
            }
            let bytes = number(&header[124..136]).ok_or_else(|| bad("a size that is no number"))?;
            let kind = header[156];
            let regular = matches!(kind, b'0' | b'\0' | b'7');
            let bytes = if regular { extended.bytes.unwrap_or(bytes) } else { bytes };
            let offset = at + BLOCK;
            let end = offset.checked_add(bytes).filter(|end| *end <= self.length);
            let end = end.ok_or_else(|| {
                let what = format!("a member of {bytes} bytes, of which {} are there", self.length - offset);
                TarError::Cut { at, what }
            })?;
            self.at = end.next_multiple_of(BLOCK);
            match kind {
                b'x' => self.pax(at, offset, bytes, &mut extended)?,
                b'L' => {
                    let name = self.content(at, offset, bytes, MAX_NAME)?;
                    extended.name = Some(text(name.split(|byte| *byte == 0).next().unwrap_or_default(), at)?);
                }
                // Of all members, or of a link: nothing that is used.
                b'g' | b'K' => {}
                b'5' => extended = Extended::default(),
                _ if regular => {
                    let name = match extended.name.take() {
                        Some(name) => name,
                        None => header_name(&header, at)?,
                    };
                    check_name(&name).map_err(|what| bad(&format!("{what}: {name:?}")))?;
                    return Ok(Some(Member { name, offset, bytes }));
                }
                b'1' | b'2' => return Err(bad("a link; an archive of pictures has none")),
                other => return Err(bad(&format!("a member of kind {:?}", char::from(other)))),
            }
        }
    }

    /// The bytes of a small member.
    pub(super) fn small(&mut self, member: &Member, limit: u64) -> Result<Vec<u8>, TarError> {
        self.content(member.offset - BLOCK, member.offset, member.bytes, limit)
    }

    fn content(&mut self, at: u64, offset: u64, bytes: u64, limit: u64) -> Result<Vec<u8>, TarError> {
        if bytes > limit {
            return Err(TarError::Bad { at, what: format!("{bytes} bytes where at most {limit} are taken") });
        }
        let mut content = vec![0; bytes as usize];
        self.read(offset, &mut content)?;
        Ok(content)
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), TarError> {
        let read = self.source.seek(SeekFrom::Start(at)).and_then(|_| self.source.read_exact(into));
        read.map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => TarError::Cut { at, what: "it has no end".to_owned() },
            _ => TarError::Bad { at, what: error.to_string() },
        })
    }

    /// Lines of `LENGTH KEY=VALUE`.
    fn pax(&mut self, at: u64, offset: u64, bytes: u64, extended: &mut Extended) -> Result<(), TarError> {
        let content = self.content(at, offset, bytes, MAX_EXTENDED)?;
        let bad = || TarError::Bad { at, what: "an extended header that is damaged".to_owned() };
        let mut rest = content.as_slice();
        while !rest.is_empty() {
            let space = rest.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
            let length: usize = text(&rest[..space], at)?.parse().map_err(|_| bad())?;
            if length <= space + 1 || length > rest.len() || rest[length - 1] != b'\n' {
                return Err(bad());
            }
            let (key, value) = {
                let record = &rest[space + 1..length - 1];
                record.split_at(record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?)
            };
            match (key, &value[1..]) {
                (b"path", name) => extended.name = Some(text(name, at)?),
                (b"size", size) => extended.bytes = Some(text(size, at)?.parse().map_err(|_| bad())?),
                (key, _) if key.starts_with(b"GNU.sparse") => {
                    return Err(TarError::Bad { at, what: "a sparse member".to_owned() });
                }
                _ => {}
            }
            rest = &rest[length..];
        }
        Ok(())
    }
}

/// Octal digits among spaces and zero bytes, or, with the highest bit set, a number in base 256 (GNU).
fn number(field: &[u8]) -> Option<u64> {
    if let [0x80, rest @ ..] = field {
        let (high, low) = rest.split_at(rest.len().checked_sub(8)?);
        return high
            .iter()
            .all(|byte| *byte == 0)
            .then(|| u64::from_be_bytes(low.try_into().unwrap_or_default()));
    }
    let digits = std::str::from_utf8(field).ok()?.trim_matches([' ', '\0']);
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}

/// The sum of a header's bytes, its own field taken as spaces.
fn checksum(header: &[u8; BLOCK as usize]) -> u64 {
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    let own: u64 = header[148..156].iter().map(|byte| u64::from(*byte)).sum();
    sum - own + 8 * u64::from(b' ')
}

fn header_name(header: &[u8; BLOCK as usize], at: u64) -> Result<String, TarError> {
    let field = |field: &[u8]| text(field.split(|byte| *byte == 0).next().unwrap_or_default(), at);
    let name = field(&header[..100])?;
    // GNU's own headers have times where ustar has the beginning of a long name.
    let prefix = if &header[257..263] == b"ustar\0" { field(&header[345..500])? } else { String::new() };
    Ok(if prefix.is_empty() { name } else { format!("{prefix}/{name}") })
}

fn text(bytes: &[u8], at: u64) -> Result<String, TarError> {
    let bad = || TarError::Bad { at, what: "a name that is not UTF-8".to_owned() };
    String::from_utf8(bytes.to_vec()).map_err(|_| bad())
}

/// Nobody uses a name as a path; an archive that hopes so is not one of pictures.
fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() as u64 > MAX_NAME {
        return Err("a name that is empty or too long");
    }
    let leads_away = name.starts_with('/') || name.split(['/', '\\']).any(|part| part == "..");
    match leads_away || name.contains(|c: char| c.is_control()) {
        true => Err("a name that leads elsewhere"),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
