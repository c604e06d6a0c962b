//! The file of keys: TOML with a table for each, and in it the hash of a secret, which itself is nowhere, or the
//! name in a certificate (host or URI) that its holder shows instead.
//!
//! ```toml
//! [[keys]]
//! name = "search"
//! sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
//! expires = 2027-12-31
//! bulk = false
//! limits = { requests_per_second = 50, burst = 100, rows_per_second = 500, concurrent_requests = 64, streams = 4 }
//!
//! [[keys]]
//! name = "indexer"
//! certificate = "indexer.example.org"
//! ```

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::Deserialize;
use toml::value::Datetime;
use toml_edit::{DocumentMut, Item};

use super::limits::Limits;
use super::{Hash, PREFIX, hash};

/// More would be more metric labels than Prometheus likes.
const MAX_KEYS: usize = 10_000;

const MAX_NAME_BYTES: usize = 64;

/// Why a file of keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("{0}")]
    Syntax(#[from] Box<toml::de::Error>),
    #[error("{0}")]
    Edit(#[from] Box<toml_edit::TomlError>),
    #[error("key {name:?}: {message}")]
    Key { name: String, message: String },
    #[error("{count} keys are more than the limit of {MAX_KEYS}")]
    TooMany { count: usize },
    #[error("there is no key {0:?}")]
    NoSuchKey(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

/// A key as its file has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub name: String,
    pub(super) hash: Option<Hash>,
    /// A name in the certificate of its holder.
    pub certificate: Option<String>,
    /// In seconds since 1970.
    pub expires: Option<u64>,
    /// Whether all that it asks for is bulk work.
    pub bulk: bool,
    pub limits: Limits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    keys: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    sha256: Option<String>,
    certificate: Option<String>,
    expires: Option<Datetime>,
    #[serde(default)]
    bulk: bool,
    #[serde(default)]
    limits: Limits,
}

/// What only one key has.
#[derive(PartialEq, Eq, Hash)]
enum Holds {
    Secret(Hash),
    Certificate(String),
}

pub fn parse(text: &str) -> Result<Vec<Entry>, KeyFileError> {
    let File { keys } = toml::from_str(text).map_err(Box::new)?;
    if keys.len() > MAX_KEYS {
        return Err(KeyFileError::TooMany { count: keys.len() });
    }
    let (mut names, mut holds) = (HashSet::new(), HashSet::new());
    keys.into_iter()
        .map(|Written { name, sha256, certificate, expires, bulk, limits }| {
            let wrong = |message: &str| KeyFileError::Key { name: name.clone(), message: message.to_owned() };
            check_name(&name).map_err(wrong)?;
            let digits = || wrong("sha256 must have 64 hexadecimal digits");
            let hash = sha256.map(|sha256| unhex(&sha256).ok_or_else(digits)).transpose()?;
            if hash.is_none() && certificate.is_none() {
                return Err(wrong("has neither sha256 nor certificate"));
            }
            let known = [hash.map(Holds::Secret), certificate.clone().map(Holds::Certificate)];
            if !names.insert(name.clone()) || !known.into_iter().flatten().all(|held| holds.insert(held)) {
                return Err(wrong("is there twice"));
            }
            limits.check().map_err(wrong)?;
            let expires = match expires {
                Some(at) => {
                    Some(seconds(at).ok_or_else(|| wrong("expires must be a date, or a date and a time"))?)
                }
                None => None,
            };
            Ok(Entry { name, hash, certificate, expires, bulk, limits })
        })
        .collect()
}

fn check_name(name: &str) -> Result<(), &'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(plain) {
        return Err("a name has 1 to 64 letters, digits, and - _ .");
    }
    Ok(())
}

fn unhex(text: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    if text.len() != 2 * hash.len() || !text.is_ascii() {
        return None;
    }
    for (index, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(hash)
}

fn hex(hash: &[u8]) -> String {
    hash.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// In seconds since 1970; a day begins at midnight, UTC.
fn seconds(at: Datetime) -> Option<u64> {
    let text = match (at.date, at.time) {
        (Some(_), Some(_)) => at.to_string(),
        (Some(date), None) => format!("{date}T00:00:00Z"),
        (None, _) => return None,
    };
    let time = humantime::parse_rfc3339_weak(&text).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// What a key is to be; see [`Entry`].
#[derive(Clone, Debug, Default)]
pub struct NewKey<'a> {
    pub name: &'a str,
    pub certificate: Option<&'a str>,
    /// A day, or a day and a time.
    pub expires: Option<&'a str>,
    pub bulk: bool,
    pub limits: Limits,
}

/// Appends a key to a file, which is made if it is not there, and returns its secret, which is nowhere else. A key with
/// a `certificate` has none.
pub fn add(path: &Path, new: &NewKey<'_>) -> Result<Option<String>, KeyFileError> {
    let NewKey { name, certificate, expires, bulk, limits } = new;
    let secret = if certificate.is_none() { Some(secret()?) } else { None };
    let mut text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error.into()),
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let _ = writeln!(text, "\n[[keys]]\nname = {}", quoted(name));
    if let Some(secret) = &secret {
        let _ = writeln!(text, "sha256 = \"{}\"", hex(&hash(secret.as_bytes())));
    }
    if let Some(certificate) = certificate {
        let _ = writeln!(text, "certificate = {}", quoted(certificate));
    }
    if let Some(expires) = expires {
        let _ = writeln!(text, "expires = {expires}");
    }
    if *bulk {
        text.push_str("bulk = true\n");
    }
    if *limits != Limits::default() {
        let _ = writeln!(text, "limits = {limits}");
    }
    parse(&text)?;
    write(path, text.trim_start())?;
    Ok(secret)
}

fn secret() -> Result<String, KeyFileError> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(KeyFileError::Random)?;
    Ok(format!("{PREFIX}{}", hex(&random)))
}

/// As TOML.
fn quoted(text: &str) -> toml_edit::Value {
    text.into()
}

/// Takes a key out of a file; all else, comments too, stays.
pub fn revoke(path: &Path, name: &str) -> Result<(), KeyFileError> {
    let text = std::fs::read_to_string(path)?;
    let mut document: DocumentMut = text.parse().map_err(Box::new)?;
    let keys = document.get_mut("keys").and_then(Item::as_array_of_tables_mut);
    let place = keys
        .as_ref()
        .and_then(|keys| keys.iter().position(|key| key.get("name").and_then(Item::as_str) == Some(name)));
    match (keys, place) {
        (Some(keys), Some(place)) => keys.remove(place),
        _ => return Err(KeyFileError::NoSuchKey(name.to_owned())),
    };
    write(path, &document.to_string())
}

/// All of it or nothing, and readable to its owner alone.
fn write(path: &Path, text: &str) -> Result<(), KeyFileError> {
    let beside = path.with_extension("new");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(std::fs::rename(&beside, path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_added_listed_and_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let named = |name| NewKey { name, ..NewKey::default() };
        let limits = Limits { requests_per_second: Some(5.0), streams: Some(2), ..Limits::default() };
        let search =
            NewKey { expires: Some("2030-01-01"), bulk: true, limits: limits.clone(), ..named("search") };
        let first = add(&path, &search).unwrap().unwrap();
        let second = add(&path, &named("batch")).unwrap().unwrap();
        assert!(first.starts_with(PREFIX) && first.len() == PREFIX.len() + 64 && first != second);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&first[PREFIX.len()..]), "the secret is nowhere");
        let keys = parse(&text).unwrap();
        assert_eq!(keys[0].limits, limits);
        assert_eq!((keys[0].expires, keys[0].bulk), (Some(1_893_456_000), true));
        assert_eq!(keys[1].hash, Some(hash(second.as_bytes())));
        assert!(add(&path, &named("batch")).is_err(), "a name is there once");
        assert!(add(&path, &named("a b")).is_err());
        assert!(add(&path, &NewKey { expires: Some("soon"), ..named("c") }).is_err());
        let certificate = Some("spiffe://example.org/indexer");
        assert_eq!(
            add(&path, &NewKey { certificate, ..named("indexer") }).unwrap(),
            None,
            "it has no secret"
        );
        assert!(add(&path, &NewKey { certificate, ..named("d") }).is_err(), "a certificate is of one key");
        let last = parse(&std::fs::read_to_string(&path).unwrap()).unwrap().pop().unwrap();
        assert_eq!((last.hash, last.certificate.as_deref()), (None, certificate));
        revoke(&path, "indexer").unwrap();

        std::fs::write(&path, format!("# ours\n{text}")).unwrap();
        revoke(&path, "search").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# ours") || text.contains("batch"), "{text}");
        assert_eq!(parse(&text).unwrap().len(), 1);
        assert!(matches!(revoke(&path, "search"), Err(KeyFileError::NoSuchKey(_))));
    }

    #[test]
    fn what_is_wrong_names_the_key() {
        let good = hex(&hash(b"a"));
        let check = |text: &str, says: &str| {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        };
        check("keys = 3", "invalid type");
        check("[[keys]]\nname = \"a\"", "neither sha256 nor certificate");
        check("[[keys]]\nname = \"a\"\nsha256 = \"12\"", "key \"a\": sha256");
        check(&format!("[[keys]]\nname = \"a\"\nsha256 = \"{good}\"\nsecret = \"b\""), "secret");
        check(&format!("[[keys]]\nname = \"a\"\nsha256 = \"{good}\"\nexpires = 10:00:00"), "expires");
        check(
            &format!(
                "[[keys]]\nname = \"a\"\nsha256 = \"{good}\"\n[[keys]]\nname = \"b\"\nsha256 = \"{good}\""
            ),
            "twice",
        );
        check(
            &format!("[[keys]]\nname = \"a\"\nsha256 = \"{good}\"\nlimits = {{ requests_per_second = 0 }}"),
            "more than zero",
        );
        check(&format!("[[keys]]\nname = \"a\"\nsha256 = \"{good}\"\nlimits = {{ burst = 3 }}"), "burst");
    }
}
