//! Embeddings in rows, and the scores of all rows of one matrix with all rows of another, in blocks.

use std::borrow::Cow;

use super::cores;
use crate::clip::embedding::dots;

/// Rows of one length.
#[derive(Clone, Debug, Default)]
pub(super) struct Matrix {
    pub(super) columns: usize,
    pub(super) values: Vec<f32>,
}

/// Queries that are scored in one pass over the candidates.
const TOGETHER: usize = 8;

impl Matrix {
    pub(super) fn new(columns: usize) -> Matrix {
        Matrix { columns, values: Vec::new() }
    }

    pub(super) fn rows(&self) -> usize {
        self.values.len().checked_div(self.columns).unwrap_or(0)
    }

    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }

    /// The rows at these positions, which are different ones in order; all of them are not copied.
    pub(super) fn select(&self, rows: &[usize]) -> Cow<'_, Matrix> {
        if rows.len() == self.rows() {
            return Cow::Borrowed(self);
        }
        let values = rows.iter().flat_map(|row| self.row(*row)).copied().collect();
        Cow::Owned(Matrix { columns: self.columns, values })
    }

    /// For each row, what `reduce` makes of its position and its dot products with all rows of `candidates`. Runs
    /// on all cores; no more scores are held than those of a few rows for each.
    pub(super) fn scored<T: Send>(
        &self,
        candidates: &Matrix,
        reduce: impl Fn(usize, &[f32]) -> T + Sync,
    ) -> Vec<T> {
        cores::on_all(self.rows(), |part| {
            let mut results = Vec::with_capacity(part.len());
            for first in part.clone().step_by(TOGETHER) {
                let rows = first..(first + TOGETHER).min(part.end);
                let queries: Vec<Vec<f32>> = rows.clone().map(|row| self.row(row).to_vec()).collect();
                let scores = dots(&candidates.values, &queries);
                results.extend(rows.zip(scores).map(|(row, scores)| reduce(row, &scores)));
            }
            results
        })
    }
}

/// How well one query did among its candidates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Standing {
    /// The candidate with the highest score; of equal ones the first.
    pub(super) first: usize,
    /// Of the best right candidate, from 1. 0: there is none.
    pub(super) rank: usize,
    /// The best right score less the best wrong one. Within rounding of zero, the rank is chance.
    pub(super) margin: f32,
}

impl Standing {
    /// `right` are the right candidates in order.
    pub(super) fn of(scores: &[f32], right: impl IntoIterator<Item = usize>) -> Standing {
        let (mut best, mut wrong, mut next) = (None, f32::NEG_INFINITY, 0);
        for candidate in right {
            wrong = largest(wrong, &scores[next..candidate]);
            next = candidate + 1;
            if best.is_none_or(|best: usize| scores[candidate] > scores[best]) {
                best = Some(candidate);
            }
        }
        wrong = largest(wrong, &scores[next..]);
        let top = best.map_or(wrong, |best| wrong.max(scores[best]));
        let first = scores.iter().position(|score| *score == top).unwrap_or(0);
        let Some(best) = best else { return Standing { first, rank: 0, margin: f32::NEG_INFINITY } };
        let score = scores[best];
        let better = scores.iter().filter(|other| **other > score).count();
        let equal = scores[..best].iter().filter(|other| **other == score).count();
        Standing { first, rank: 1 + better + equal, margin: score - wrong }
    }
}

fn largest(least: f32, scores: &[f32]) -> f32 {
    scores.iter().copied().fold(least, |largest, score| if score > largest { score } else { largest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_meets_every_candidate() {
        let queries = Matrix { columns: 2, values: (0..40).map(|value| value as f32).collect() };
        let candidates = Matrix { columns: 2, values: vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0] };
        let scores = queries.scored(&candidates, |row, scores| (row, scores.to_vec()));
        let expected: Vec<(usize, Vec<f32>)> = (0..20)
            .map(|row| (row, [2 * row, 2 * row + 1, 4 * row + 1].map(|score| score as f32).to_vec()))
            .collect();
        assert_eq!(scores, expected);
        assert_eq!(queries.select(&[1, 3]).values, [2.0, 3.0, 6.0, 7.0]);
        assert_eq!(queries.select(&(0..20).collect::<Vec<_>>()).values, queries.values);
        assert!(Matrix::new(2).scored(&candidates, |row, _| row).is_empty());
    }

    #[test]
    fn the_best_right_one_has_the_rank() {
        let standing = Standing::of(&[0.1, 0.5, 0.3, 0.5], [0, 2]);
        assert_eq!((standing.first, standing.rank), (1, 3));
        assert!((standing.margin + 0.2).abs() < 1e-6);
        // Of equal ones the first stands first.
        assert_eq!(Standing::of(&[0.5, 0.5], [1]).rank, 2);
        assert_eq!(Standing::of(&[0.5, 0.5], [0]).rank, 1);
        assert_eq!(Standing::of(&[0.5, 0.1], [1]).margin, 0.1 - 0.5);
        let without = Standing::of(&[0.1, 0.5], []);
        assert_eq!((without.first, without.rank, without.margin), (1, 0, f32::NEG_INFINITY));
        let all = Standing::of(&[0.1, 0.5], [0, 1]);
        assert_eq!((all.first, all.rank, all.margin), (1, 1, f32::INFINITY));
    }
}
