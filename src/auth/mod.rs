//! Who may call, and what each caller may take: by API keys, or where there are none, by addresses.
//!
//! A key is found by the name in a certificate that its holder's connection was made with, or by the SHA-256 of what a
//! client sends, never by comparing secrets one by one: the time that takes says nothing about any secret. Secrets have
//! 256 random bits, so a fast hash is as good as a slow one. The file of keys is read again when it changes
//! ([`reload`]); one that is broken changes nothing. It knows no edge, and no call: headers come in, and an [`Account`]
//! goes out.

mod account;
mod addresses;
pub mod file;
mod keys;
mod limits;
pub mod reload;

use std::net::IpAddr;

use http::HeaderMap;
use sha2::{Digest, Sha256};

pub use account::Account;
pub use addresses::Addresses;
pub use keys::Keys;
pub use limits::{Exceeded, Limits, Quota};

/// What a secret begins with, so that scanners of code find those that leaked.
pub const PREFIX: &str = "clipd_";

type Hash = [u8; 32];

fn hash(secret: &[u8]) -> Hash {
    Sha256::digest(secret).into()
}

/// Neither which part was wrong nor whether there is such a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no valid API key: send authorization: Bearer KEY")]
pub struct Unknown;

/// Who may call. Cheap to clone.
#[derive(Clone)]
pub enum Callers {
    /// Everybody, as much as there is.
    All,
    Keyed(Keys),
    /// Everybody, each address within its limits.
    Bounded(Addresses),
}

impl Callers {
    /// Whom a call is counted for, by its headers and its connection: the address, and the names in its certificate.
    pub fn account(
        &self,
        headers: &HeaderMap,
        from: Option<(IpAddr, &[String])>,
    ) -> Result<Account, Unknown> {
        match self {
            Callers::All => Ok(Account::default()),
            Callers::Keyed(keys) => {
                let names = from.map_or(&[][..], |(_, names)| names);
                Ok(Account::of_key(keys.identify(headers, names)?))
            }
            Callers::Bounded(addresses) => Ok(from
                .map(|(address, _)| Account::of_address(addresses.bounds(address)))
                .unwrap_or_default()),
        }
    }

    /// Whether calls have the name of a key.
    pub fn are_named(&self) -> bool {
        matches!(self, Callers::Keyed(_))
    }
}
