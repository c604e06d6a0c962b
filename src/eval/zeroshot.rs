//! Figures of pictures and classes, as clip_benchmark 1.6.2 defines them (`metrics/zeroshot_classification.py`).
//!
//! A class's row is the mean of its prompts' unit embeddings, of length 1 again; a picture's answer is the class with
//! the largest cosine. acc1 and acc5 are shares of pictures, mean_per_class_recall is scikit-learn's
//! `balanced_accuracy_score`, and mean_average_precision is over classes, those without pictures included as zero.

use super::Error;
use super::data::{Truth, Zeroshot};
use super::matrix::{Matrix, Standing};
use super::measure::{Basis, Measure};
use super::numbers::{Interval, mean, weight, wilson};
use super::task::{Evaluated, Group, Line, Query};
use crate::clip::classifier::Logits;
use crate::clip::embedding::normalize;

/// Pictures x classes whose orders are kept for a bootstrap of the mean average precision, in eight bytes each; with
/// more there is no interval.
const MAX_ORDERS: usize = 20_000_000;

/// The rows of the classes. `prompts` are the embeddings of each class's prompts, class by class.
pub(super) fn class_rows(data: &Zeroshot, prompts: &Matrix) -> Result<Matrix, Error> {
    let mut rows = Matrix::new(prompts.columns);
    let mut next = 0;
    for (class, texts) in data.classes.iter().zip(data.prompts.of_classes(&data.classes)) {
        let mut sum = vec![0.0; prompts.columns];
        for prompt in next..next + texts.len() {
            sum.iter_mut().zip(prompts.row(prompt)).for_each(|(sum, value)| *sum += value);
        }
        next += texts.len();
        // The sum has the direction of the mean.
        normalize(&mut sum).map_err(|error| Error::Other(format!("class {class:?}: {error}")))?;
        rows.values.extend(sum);
    }
    Ok(rows)
}

/// `kept` are the pictures in question, and `images` their embeddings, in that order.
pub(super) fn evaluate<'a>(
    data: &'a Zeroshot,
    classes: &Matrix,
    images: &Matrix,
    kept: &[usize],
    logits: Option<&Logits>,
) -> Evaluated<'a> {
    let lines = images.scored(classes, |row, scores| {
        let standing = Standing::of(scores, data.truth.of(kept[row]));
        let first = standing.first;
        let score = logits.map_or(scores[first], |logits| logits.score(first, scores));
        Line::new(Query::Picture(kept[row]), standing, score)
    });
    match &data.truth {
        Truth::One(truth) => single(data, truth, lines),
        Truth::Several(truth) => several(data, truth, classes, images, lines),
    }
}

/// Of pictures with one class each; `truth` is that of all pictures.
pub(super) fn single<'a>(data: &'a Zeroshot, truth: &'a [u32], lines: Vec<Line>) -> Evaluated<'a> {
    let of = |line: &Line| truth[line.query.position()] as usize;
    let within = |k: usize| lines.iter().map(|line| (1..=k).contains(&line.rank)).collect::<Vec<bool>>();
    let share = |hits: &[bool]| hits.iter().filter(|hit| **hit).count() as f64 / hits.len() as f64;
    let mut measures = Vec::new();
    for (name, k) in [("acc1", 1), ("acc5", 5)] {
        let hits = within(k);
        // As in the suite, there is no acc5 of fewer than five classes.
        let value = if data.classes.len() < k { f64::NAN } else { share(&hits) };
        measures.push(Measure { name: name.to_owned(), value, basis: Basis::Hits(hits) });
    }
    let answers: Vec<(usize, usize, bool)> =
        lines.iter().map(|line| (line.query.position(), of(line), line.first == of(line))).collect();
    let classes = data.classes.len();
    let recall = move |resample: Option<u32>| {
        // Of each class, pictures and hits: beside each other, so that there is one look-up.
        let mut counts = vec![[0_u32; 2]; classes];
        for (picture, class, hit) in &answers {
            let times = resample.map_or(1, |resample| weight(resample, *picture));
            let [pictures, hits] = &mut counts[*class];
            *pictures += times;
            *hits += times * u32::from(*hit);
        }
        let share = |[pictures, hits]: [u32; 2]| f64::from(hits) / f64::from(pictures);
        let with_pictures = counts.into_iter().filter(|[pictures, _]| *pictures > 0);
        mean(&with_pictures.map(share).collect::<Vec<f64>>())
    };
    measures.push(Measure {
        name: "mean_per_class_recall".to_owned(),
        value: recall(None),
        basis: Basis::Resampled(Box::new(move |resample| recall(Some(resample)))),
    });
    let mut groups: Vec<Group> = data.classes.iter().map(|name| Group::new(name)).collect();
    for line in &lines {
        groups[of(line)].add(line);
    }
    Evaluated { measures, lines, groups }
}

fn several<'a>(
    data: &'a Zeroshot,
    truth: &'a [Vec<bool>],
    classes: &Matrix,
    images: &Matrix,
    lines: Vec<Line>,
) -> Evaluated<'a> {
    let kept: Vec<usize> = lines.iter().map(|line| line.query.position()).collect();
    let few = kept.len() * data.classes.len() <= MAX_ORDERS;
    // For each class its pictures, those with the highest scores first: whether each is of it, and its row.
    let ordered = classes.scored(images, |class, scores| {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        let order: Vec<(bool, u32)> =
            order.into_iter().map(|row| (truth[kept[row]][class], row as u32)).collect();
        (average_precision(&order, |_| 1), if few { order } else { Vec::new() })
    });
    let (precisions, orders): (Vec<f64>, Vec<_>) = ordered.into_iter().unzip();
    let groups = data
        .classes
        .iter()
        .zip(&precisions)
        .enumerate()
        .map(|(class, (name, precision))| {
            let mut group = Group::new(name);
            lines.iter().filter(|line| truth[line.query.position()][class]).for_each(|line| group.add(line));
            Group { average_precision: Some(*precision), ..group }
        })
        .collect();
    let basis = Basis::Resampled(Box::new(move |resample| match few {
        true => {
            let weights: Vec<u32> = kept.iter().map(|picture| weight(resample, *picture)).collect();
            let of = |order: &Vec<(bool, u32)>| average_precision(order, |row| weights[row as usize]);
            mean(&orders.iter().map(of).collect::<Vec<f64>>())
        }
        false => f64::NAN,
    }));
    // The suite counts in f32.
    let value = f64::from(mean(&precisions) as f32);
    Evaluated {
        measures: vec![Measure { name: "mean_average_precision".to_owned(), value, basis }],
        lines,
        groups,
    }
}

/// The mean of the precision at each right picture, a picture counted `times` over.
fn average_precision(order: &[(bool, u32)], times: impl Fn(u32) -> u32) -> f64 {
    let (mut seen, mut right, mut sum) = (0.0, 0.0, 0.0);
    for (is_right, picture) in order {
        for _ in 0..times(*picture) {
            seen += 1.0;
            if *is_right {
                right += 1.0;
                sum += right / seen;
            }
        }
    }
    sum / f64::max(right, 1.0)
}

/// How a class did, for reports.
pub(super) fn interval(group: &Group) -> Option<Interval> {
    wilson(group.hits, group.inputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clip::classifier::Coefficient;
    use crate::clip::spec::Scores;
    use crate::eval::data::{Problems, Prompts};

    #[test]
    fn precision_at_each_right_picture() {
        // Right at 1 and 3: (1/1 + 2/3) / 2.
        let order = [(true, 0), (false, 1), (true, 2), (false, 3)];
        assert!((average_precision(&order, |_| 1) - 5.0 / 6.0).abs() < 1e-12);
        // The second picture left out: right at 1 and 2.
        assert_eq!(average_precision(&order, |picture| u32::from(picture != 1)), 1.0);
        assert_eq!(average_precision(&[(false, 0)], |_| 1), 0.0);
    }

    #[test]
    fn an_answers_probability_is_the_models() {
        let data = Zeroshot {
            name: "two".to_owned(),
            classes: ["a", "b"].map(str::to_owned).to_vec(),
            prompts: Prompts::OfEach(Vec::new()),
            pictures: Vec::new().into(),
            truth: Truth::One(vec![0]),
            problems: Problems::default(),
        };
        let classes = Matrix { columns: 2, values: vec![1.0, 0.0, 0.0, 1.0] };
        let image = Matrix { columns: 2, values: vec![0.6, 0.8] };
        // Logits 5 x 0.8 - 2 and 5 x 0.6 - 2.
        for (scores, expected) in
            [(Scores::Sigmoid, 1.0 / (1.0 + (-2.0_f32).exp())), (Scores::Softmax, 0.731_058_6)]
        {
            let logits = Logits { scale: Coefficient::Shared(5.0), bias: Coefficient::Shared(-2.0), scores };
            let line = evaluate(&data, &classes, &image, &[0], Some(&logits)).lines[0];
            assert_eq!((line.first, line.rank), (1, 2));
            assert!((line.score - expected).abs() < 1e-6, "{scores:?}: {line:?}");
        }
    }
}
