//! Who may call: API keys by the hash of their secret, and what each may take.
//!
//! A key is found by the SHA-256 of what a client sends, never by comparing secrets one by one: the time that takes
//! says nothing about any secret. Secrets have 256 random bits, so a fast hash is as good as a slow one. The file of
//! keys is read again when it changes ([`reload`]); one that is broken changes nothing. It knows no edge, and no call:
//! headers come in, and a [`Key`] goes out.

pub mod file;
mod limits;
pub mod reload;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use http::HeaderMap;
use metrics::Counter;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::clock::Clock;
use crate::telemetry::metrics::Metrics;
use file::{Entry, KeyFileError};
use limits::Bounds;
pub use limits::{Exceeded, Limits, Quota};

/// What a secret begins with, so that scanners of code find those that leaked.
pub const PREFIX: &str = "clipd_";

/// Headers of a key, the first as `Bearer SECRET`.
const AUTHORIZATION: &str = "authorization";
const API_KEY: &str = "x-api-key";

pub(crate) type Hash = [u8; 32];

pub(crate) fn hash(secret: &[u8]) -> Hash {
    Sha256::digest(secret).into()
}

/// Neither which part was wrong nor whether there is such a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no valid API key: send authorization: Bearer KEY")]
pub struct Unknown;

/// A key and what its holder uses at the moment.
pub struct Key {
    entry: Entry,
    bounds: Bounds,
    pub(crate) meters: Meters,
}

/// By the name of the key.
pub(crate) struct Meters {
    pub(crate) rows: Counter,
    pub(crate) bytes: Counter,
}

impl Key {
    fn new(entry: Entry, metrics: &Metrics) -> Key {
        let name = entry.name.as_str();
        let meters = Meters { rows: metrics.key_rows(name), bytes: metrics.key_bytes(name) };
        meters.rows.increment(0);
        Key { bounds: Bounds::new(&entry.limits), meters, entry }
    }

    pub fn name(&self) -> &str {
        &self.entry.name
    }

    /// Whether all that it asks for is bulk work.
    pub fn is_bulk(&self) -> bool {
        self.entry.bulk
    }

    pub(crate) fn bounds(&self) -> &Bounds {
        &self.bounds
    }
}

/// The keys in force. Cheap to clone.
#[derive(Clone)]
pub struct Keys(Arc<Shared>);

struct Shared {
    table: RwLock<HashMap<Hash, Arc<Key>>>,
    clock: Clock,
    metrics: Metrics,
}

impl Keys {
    /// Those of a file's text.
    pub fn parse(text: &str, clock: Clock, metrics: &Metrics) -> Result<Keys, KeyFileError> {
        let keys = Keys(Arc::new(Shared { table: RwLock::default(), clock, metrics: metrics.clone() }));
        keys.replace(text)?;
        let shared = keys.clone();
        metrics.sample_keys(move || shared.len());
        Ok(keys)
    }

    /// From now on those of this text. A key that stays as it is keeps what its holder has used.
    pub fn replace(&self, text: &str) -> Result<(), KeyFileError> {
        let entries = file::parse(text)?;
        let mut table = self.0.table.write().unwrap_or_else(PoisonError::into_inner);
        let keys = entries.into_iter().map(|entry| {
            let same = table.get(&entry.hash).filter(|key| key.entry == entry).cloned();
            (entry.hash, same.unwrap_or_else(|| Arc::new(Key::new(entry, &self.0.metrics))))
        });
        *table = keys.collect();
        Ok(())
    }

    /// Whose key the headers have.
    pub fn identify(&self, headers: &HeaderMap) -> Result<Arc<Key>, Unknown> {
        let hash = hash(secret(headers).ok_or(Unknown)?);
        let table = self.0.table.read().unwrap_or_else(PoisonError::into_inner);
        let key = table.get(&hash).ok_or(Unknown)?;
        // What a map compares it may compare byte by byte.
        let same: bool = key.entry.hash.ct_eq(&hash).into();
        let expired = key.entry.expires.is_some_and(|end| self.0.clock.unix_seconds() >= end);
        if same && !expired { Ok(key.clone()) } else { Err(Unknown) }
    }

    fn len(&self) -> usize {
        self.0.table.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// What the client sends as its key.
fn secret(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let (scheme, secret) = value.as_bytes().split_at_checked("bearer ".len())?;
        return scheme.eq_ignore_ascii_case(b"bearer ").then(|| secret.trim_ascii());
    }
    headers.get(API_KEY).map(|value| value.as_bytes().trim_ascii())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let value = HeaderValue::from_str(value).unwrap();
        [(http::HeaderName::from_static(name), value)].into_iter().collect()
    }

    fn keys(entries: &[(&str, &str, &str)]) -> String {
        let entry = |(name, secret, more): &(&str, &str, &str)| {
            let hash: String = hash(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
            format!("[[keys]]\nname = \"{name}\"\nsha256 = \"{hash}\"\n{more}\n")
        };
        entries.iter().map(entry).collect()
    }

    #[test]
    fn a_key_is_found_by_its_secret_however_it_is_sent() {
        let text = keys(&[
            ("a", "clipd_a", ""),
            ("b", "clipd_b", "expires = 2001-01-01"),
            ("c", "clipd_c", "expires = 2999-12-31T00:00:00Z"),
        ]);
        let keys = Keys::parse(&text, Clock::start(), &Metrics::new()).unwrap();
        let name = |headers: &HeaderMap| keys.identify(headers).map(|key| key.name().to_owned());
        assert_eq!(name(&headers(AUTHORIZATION, "Bearer clipd_a")), Ok("a".to_owned()));
        assert_eq!(name(&headers(AUTHORIZATION, "bearer  clipd_c ")), Ok("c".to_owned()));
        assert_eq!(name(&headers(API_KEY, "clipd_a")), Ok("a".to_owned()));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "clipd_a",
            "Basic clipd_a",
            "Bearer clipd_",
            "Bearer clipd_aa",
            "Bearer clipd_b",
        ] {
            assert_eq!(name(&headers(AUTHORIZATION, wrong)), Err(Unknown), "{wrong:?}");
        }
        assert_eq!(name(&HeaderMap::new()), Err(Unknown));
        let hash: String = hash(b"clipd_a").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(name(&headers(API_KEY, &hash)), Err(Unknown), "a hash is no secret");
    }

    #[test]
    fn a_key_that_stays_keeps_what_was_used() {
        let limited = |rate: u32| format!("limits = {{ requests_per_second = {rate}, burst = 1 }}");
        let text = |rate: u32| keys(&[("a", "clipd_a", &limited(rate))]);
        let keys = Keys::parse(&text(1), Clock::start(), &Metrics::new()).unwrap();
        let take = || keys.identify(&headers(API_KEY, "clipd_a")).unwrap().bounds().take_request().is_ok();
        assert!(take() && !take());
        keys.replace(&text(1)).unwrap();
        assert!(!take(), "the same key");
        assert!(keys.replace("nonsense").is_err());
        assert!(!take(), "a broken file changes nothing");
        keys.replace(&text(2)).unwrap();
        assert!(take(), "another limit");
        keys.replace("").unwrap();
        assert!(keys.identify(&headers(API_KEY, "clipd_a")).is_err());
    }

    #[test]
    fn no_made_up_key_passes() {
        let text = keys(&[("a", "clipd_a", "")]);
        let keys = Keys::parse(&text, Clock::start(), &Metrics::new()).unwrap();
        for number in 0..10_000 {
            assert!(keys.identify(&headers(API_KEY, &format!("{PREFIX}{number:064x}"))).is_err());
        }
    }
}
