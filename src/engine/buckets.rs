//! The sizes of batches that an engine runs, where these are not free: a CUDA graph replays one shape.

use std::num::NonZeroUsize;

use crate::clip::spec::{PaddedTo, TextSpec};
use crate::modality::{ByModality, Modality};

/// A batch has one of these numbers of rows, and its texts one of these lengths; others are padded up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets {
    /// Rising.
    pub rows: ByModality<Vec<usize>>,
    /// Tokens, rising.
    pub lengths: Vec<usize>,
}

/// Lengths of texts below the context length: captions have 8 to 24 tokens, and padding to the next length
/// costs a third at most.
const LENGTHS: [usize; 5] = [8, 16, 24, 32, 48];

impl Buckets {
    /// Without lengths there are no texts.
    pub fn up_to(max_batch_size: ByModality<NonZeroUsize>, lengths: Vec<usize>) -> Buckets {
        let ByModality { image, text } = max_batch_size;
        Buckets { rows: ByModality { image: doubling(image.get()), text: doubling(text.get()) }, lengths }
    }

    /// The place of so many images among the rows.
    pub(super) fn place_of_images(&self, rows: usize) -> usize {
        place(&self.rows[Modality::Image], rows)
    }

    /// The places of so many texts, and of the longest of them.
    pub(super) fn place_of_texts(&self, rows: usize, length: usize) -> (usize, usize) {
        (place(&self.rows[Modality::Text], rows), place(&self.lengths, length))
    }
}

/// The lengths of a model's texts.
pub fn bucket_lengths(texts: &TextSpec) -> Vec<usize> {
    let context_length = texts.context_length;
    let all_are_full = matches!(texts.padding.rows, PaddedTo::Context(_));
    let shorter = LENGTHS.into_iter().filter(|length| !all_are_full && *length < context_length);
    shorter.chain([context_length]).collect()
}

/// 1, 2, 4, ... and the largest.
pub fn doubling(largest: usize) -> Vec<usize> {
    std::iter::successors(Some(1), |size| Some(size * 2))
        .take_while(|size| *size < largest)
        .chain([largest])
        .collect()
}

/// Nothing is larger than the largest.
fn place(sizes: &[usize], size: usize) -> usize {
    sizes.iter().position(|each| *each >= size).expect("batches are no larger than the largest bucket")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clip::spec::{Padding, Side, Tokenization};

    #[test]
    fn a_batch_is_padded_to_the_next_bucket() {
        let rows = |rows| NonZeroUsize::new(rows).unwrap();
        let texts = TextSpec {
            context_length: 32,
            vocab_size: 100,
            tokenization: Tokenization::Clip,
            padding: Padding::CLIP,
        };
        let buckets = Buckets::up_to(ByModality { image: rows(3), text: rows(24) }, bucket_lengths(&texts));
        let rows = ByModality { image: vec![1, 2, 3], text: vec![1, 2, 4, 8, 16, 24] };
        assert_eq!(buckets, Buckets { rows, lengths: vec![8, 16, 24, 32] });
        assert_eq!([1, 2, 3].map(|rows| buckets.place_of_images(rows)), [0, 1, 2]);
        for (size, bucket) in [((1, 1), (1, 8)), ((3, 9), (4, 16)), ((17, 32), (24, 32)), ((24, 8), (24, 8))]
        {
            let (row, column) = buckets.place_of_texts(size.0, size.1);
            assert_eq!((buckets.rows.text[row], buckets.lengths[column]), bucket);
        }
        let full = Padding { id: 1, rows: PaddedTo::Context(Side::Right) };
        assert_eq!(bucket_lengths(&TextSpec { padding: full, ..texts }), [32]);
    }
}
