//! Numbers that differ, for names and for jitter. Secrets have a source of their own.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Costs no system call.
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
