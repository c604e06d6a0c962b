//! What the encoders take: one row per input, of one modality. Cheap to clone.

use std::sync::Arc;

use bytes::Bytes;

/// One picture, ready for the image encoder: RGB bytes, row by row, `height * width * 3` long.
/// Normalisation happens inside the graph. It may be a part of the message that it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRow(pub Bytes);

/// One text, ready for the text encoder: token ids from start to end token, not padded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow(pub Arc<[u32]>);
