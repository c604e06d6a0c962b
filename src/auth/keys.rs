//! The keys in force, each found by what its holder shows.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use http::HeaderMap;
use metrics::Counter;
use subtle::ConstantTimeEq;

use super::file::{self, Entry, KeyFileError};
use super::limits::Bounds;
use super::{Hash, Unknown, hash};
use crate::clock::Clock;
use crate::telemetry::metrics::Metrics;

/// Headers of a key, the first as `Bearer SECRET`.
const AUTHORIZATION: &str = "authorization";
const API_KEY: &str = "x-api-key";

/// A key and what its holder uses at the moment.
pub struct Key {
    entry: Entry,
    bounds: Arc<Bounds>,
    pub(super) meters: Meters,
}

/// By the name of the key.
pub(super) struct Meters {
    pub(super) rows: Counter,
    pub(super) bytes: Counter,
}

impl Key {
    fn new(entry: Entry, metrics: &Metrics) -> Key {
        let name = entry.name.as_str();
        let meters = Meters { rows: metrics.key_rows(name), bytes: metrics.key_bytes(name) };
        meters.rows.increment(0);
        Key { bounds: Arc::new(Bounds::new(&entry.limits)), meters, entry }
    }

    pub fn name(&self) -> &str {
        &self.entry.name
    }

    /// Whether all that it asks for is bulk work.
    pub fn is_bulk(&self) -> bool {
        self.entry.bulk
    }

    pub(super) fn bounds(&self) -> &Arc<Bounds> {
        &self.bounds
    }
}

/// The keys in force. Cheap to clone.
#[derive(Clone)]
pub struct Keys(Arc<Shared>);

struct Shared {
    table: RwLock<Table>,
    clock: Clock,
    metrics: Metrics,
}

#[derive(Default)]
struct Table {
    keys: Vec<Arc<Key>>,
    secrets: HashMap<Hash, Arc<Key>>,
    certificates: HashMap<String, Arc<Key>>,
}

impl Table {
    fn new(keys: Vec<Arc<Key>>) -> Table {
        let secrets = keys.iter().filter_map(|key| Some((key.entry.hash?, key.clone()))).collect();
        let certificates =
            keys.iter().filter_map(|key| Some((key.entry.certificate.clone()?, key.clone()))).collect();
        Table { keys, secrets, certificates }
    }

    fn of_secret(&self, secret: &[u8]) -> Option<&Arc<Key>> {
        let hash = hash(secret);
        let key = self.secrets.get(&hash)?;
        // What a map compares it may compare byte by byte.
        let same: bool = key.entry.hash?.ct_eq(&hash).into();
        same.then_some(key)
    }
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
        let now: HashMap<&str, &Arc<Key>> = table.keys.iter().map(|key| (key.name(), key)).collect();
        let keys = entries.into_iter().map(|entry| match now.get(entry.name.as_str()) {
            Some(same) if same.entry == entry => (*same).clone(),
            _ => Arc::new(Key::new(entry, &self.0.metrics)),
        });
        *table = Table::new(keys.collect());
        Ok(())
    }

    /// Whose key the headers have; if they have none, by the `names` in the certificate of their connection.
    pub fn identify(&self, headers: &HeaderMap, names: &[String]) -> Result<Arc<Key>, Unknown> {
        let table = self.0.table.read().unwrap_or_else(PoisonError::into_inner);
        let key = if has_secret(headers) {
            secret(headers).and_then(|secret| table.of_secret(secret))
        } else {
            names.iter().find_map(|name| table.certificates.get(name))
        };
        let expired = |key: &Key| key.entry.expires.is_some_and(|end| self.0.clock.unix_seconds() >= end);
        key.filter(|key| !expired(key)).cloned().ok_or(Unknown)
    }

    fn len(&self) -> usize {
        self.0.table.read().unwrap_or_else(PoisonError::into_inner).keys.len()
    }
}

fn has_secret(headers: &HeaderMap) -> bool {
    headers.contains_key(AUTHORIZATION) || headers.contains_key(API_KEY)
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

    use super::super::PREFIX;
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
        let name = |headers: &HeaderMap| keys.identify(headers, &[]).map(|key| key.name().to_owned());
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
    fn a_certificate_stands_for_a_secret_and_not_beside_one() {
        let mut text = keys(&[("a", "clipd_a", "")]);
        text += "[[keys]]\nname = \"b\"\ncertificate = \"b.example.org\"\n";
        let keys = Keys::parse(&text, Clock::start(), &Metrics::new()).unwrap();
        let name = |headers: &HeaderMap, certificate: &str| {
            let names = ["c.example.org".to_owned(), certificate.to_owned()];
            keys.identify(headers, &names).map(|key| key.name().to_owned())
        };
        let none = HeaderMap::new();
        assert_eq!(name(&none, "b.example.org"), Ok("b".to_owned()));
        assert_eq!(name(&none, "B"), Err(Unknown));
        assert_eq!(name(&none, "a"), Err(Unknown), "the name of a key is no certificate's");
        assert_eq!(name(&headers(API_KEY, "clipd_a"), "b.example.org"), Ok("a".to_owned()));
        assert_eq!(name(&headers(API_KEY, "clipd_x"), "b.example.org"), Err(Unknown));
    }

    #[test]
    fn a_key_that_stays_keeps_what_was_used() {
        let limited = |rate: u32| format!("limits = {{ requests_per_second = {rate}, burst = 1 }}");
        let text = |rate: u32| keys(&[("a", "clipd_a", &limited(rate))]);
        let keys = Keys::parse(&text(1), Clock::start(), &Metrics::new()).unwrap();
        let take =
            || keys.identify(&headers(API_KEY, "clipd_a"), &[]).unwrap().bounds().take_request().is_ok();
        assert!(take() && !take());
        keys.replace(&text(1)).unwrap();
        assert!(!take(), "the same key");
        assert!(keys.replace("nonsense").is_err());
        assert!(!take(), "a broken file changes nothing");
        keys.replace(&text(2)).unwrap();
        assert!(take(), "another limit");
        keys.replace("").unwrap();
        assert!(keys.identify(&headers(API_KEY, "clipd_a"), &[]).is_err());
    }

    #[test]
    fn no_made_up_key_passes() {
        let text = keys(&[("a", "clipd_a", "")]);
        let keys = Keys::parse(&text, Clock::start(), &Metrics::new()).unwrap();
        for number in 0..10_000 {
            assert!(keys.identify(&headers(API_KEY, &format!("{PREFIX}{number:064x}")), &[]).is_err());
        }
    }
}
