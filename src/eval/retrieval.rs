//! Figures of pictures and captions, as clip_benchmark 1.6.2 defines them (`metrics/zeroshot_retrieval.py`): the
//! share of captions whose picture is among the first k pictures, and of pictures of which at least one caption is
//! among the first k captions.

use std::collections::HashMap;

use super::data::Retrieval;
use super::matrix::{Matrix, Standing};
use super::measure::{Basis, Measure};
use super::task::{Evaluated, Line, Query};

/// `pictures` and `captions` are the ones in question, `images` and `texts` their embeddings, in these orders. A
/// caption's picture is among them.
pub(super) fn evaluate<'a>(
    data: &'a Retrieval,
    recall_k: &[u32],
    (pictures, images): (&[usize], &Matrix),
    (captions, texts): (&[usize], &Matrix),
) -> Evaluated<'a> {
    let rows: HashMap<usize, usize> =
        pictures.iter().enumerate().map(|(row, picture)| (*picture, row)).collect();
    let picture_of: Vec<usize> =
        captions.iter().map(|caption| rows[&(data.picture_of[*caption] as usize)]).collect();
    let line = |query, standing: Standing, scores: &[f32], answers: &[usize]| {
        let score = scores[standing.first];
        Line::new(query, Standing { first: answers[standing.first], ..standing }, score)
    };
    let of_captions = texts.scored(images, |row, scores| {
        let standing = Standing::of(scores, [picture_of[row]]);
        line(Query::Text(captions[row]), standing, scores, pictures)
    });
    let of_pictures = images.scored(texts, |row, scores| {
        let begin = picture_of.partition_point(|of| *of < row);
        let own = picture_of[begin..].iter().take_while(|of| **of == row).count();
        let standing = Standing::of(scores, begin..begin + own);
        line(Query::Picture(pictures[row]), standing, scores, captions)
    });
    let mut measures = Vec::new();
    for k in recall_k {
        for (way, lines) in [("image", &of_captions), ("text", &of_pictures)] {
            let hits: Vec<bool> = lines.iter().map(|line| (1..=*k as usize).contains(&line.rank)).collect();
            let count = hits.iter().filter(|hit| **hit).count();
            // The suite divides in f32.
            let value = f64::from(count as f32 / hits.len() as f32);
            let name = format!("{way}_retrieval_recall@{k}");
            measures.push(Measure { name, value, basis: Basis::Hits(hits) });
        }
    }
    let lines = of_pictures.into_iter().chain(of_captions).collect();
    Evaluated { measures, lines, groups: Vec::new() }
}
