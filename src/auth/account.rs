//! Whom a call is counted for: the holder of a key, an address, or nobody.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::keys::Key;
use super::limits::{Bounds, Exceeded, Quota};

/// Cheap to clone. By default nobody's, which has no limits.
#[derive(Clone, Default)]
pub struct Account {
    key: Option<Arc<Key>>,
    bounds: Option<Arc<Bounds>>,
}

impl Account {
    pub(super) fn of_key(key: Arc<Key>) -> Account {
        Account { bounds: Some(key.bounds().clone()), key: Some(key) }
    }

    pub(super) fn of_address(bounds: Arc<Bounds>) -> Account {
        Account { key: None, bounds: Some(bounds) }
    }

    /// That of the key.
    pub fn name(&self) -> Option<&str> {
        self.key.as_ref().map(|key| key.name())
    }

    /// Whether all that it asks for is bulk work.
    pub fn is_bulk(&self) -> bool {
        self.key.as_ref().is_some_and(|key| key.is_bulk())
    }

    /// A place for a call or a stream. `None`: there is no limit.
    pub fn place(&self, stream: bool) -> Result<Option<OwnedSemaphorePermit>, Exceeded> {
        self.bounds.as_ref().map_or(Ok(None), |bounds| bounds.place(stream))
    }

    /// Counts a call. `None`: there is no limit.
    pub fn take_request(&self) -> Result<Option<Quota>, Exceeded> {
        self.bounds.as_ref().map_or(Ok(None), |bounds| bounds.take_request())
    }

    /// Counts rows. More at once than a second has are counted as that many.
    pub fn take_rows(&self, rows: usize) -> Result<(), Exceeded> {
        self.bounds.as_ref().map_or(Ok(()), |bounds| bounds.take_rows(rows))?;
        if let Some(key) = &self.key {
            key.meters.rows.increment(rows as u64);
        }
        Ok(())
    }

    /// Counts bytes of its requests.
    pub fn sent(&self, bytes: usize) {
        if let Some(key) = &self.key {
            key.meters.bytes.increment(bytes as u64);
        }
    }
}
