//! What CLIP means: pictures and texts become rows, embeddings become similarities and scores.
//!
//! Pure: no files, clock, threads or logs. Nothing here knows a model's weights, only its
//! [`spec`], so the same bytes give the same row on every machine.
//!
//! The reference is open_clip 3.3 on Pillow: whatever differs from it is said where it differs,
//! and `tests/fixtures/parity` holds its output to compare with.

/// Part of a model's fingerprint. To be raised with every change here after which some picture gives another
/// row, or some text other tokens.
pub const PREPROCESSING_VERSION: u32 = 2;

pub mod classifier;
pub mod embedding;
pub mod image;
pub mod prompt;
pub mod row;
pub mod spec;
pub mod text;
