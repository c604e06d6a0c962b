use super::*;

const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();
const ONE: NonZeroUsize = NonZeroUsize::MIN;

fn labels(count: usize) -> Arc<[String]> {
    (0..count).map(|i| format!("label {i}")).collect()
}

fn logits(scale: f32, bias: Coefficient) -> Logits {
    Logits { scale: Coefficient::Shared(scale), bias, scores: Scores::Softmax }
}

/// Labels at the given angles, in quarter turns; the embedding points to angle 0.
fn at_angles(quarters: &[f32], logits: Logits) -> Classifier {
    let rows = quarters
        .iter()
        .flat_map(|q| {
            let angle = q * std::f32::consts::FRAC_PI_2;
            [angle.cos(), angle.sin()]
        })
        .collect();
    Classifier::from_unit_rows(labels(quarters.len()), TWO, rows, logits).unwrap()
}

/// `expected` is (index, similarity, score), best first.
#[track_caller]
fn check(classifier: &Classifier, top_k: Option<usize>, expected: &[(usize, f32, f32)]) {
    let top_k = top_k.map(|k| NonZeroUsize::new(k).unwrap());
    let [actual] = &classifier.classify(&[vec![1.0, 0.0]], top_k)[..] else {
        panic!("one for each embedding")
    };
    let indices: Vec<usize> = actual.iter().map(|p| p.index).collect();
    let expected_indices: Vec<usize> = expected.iter().map(|e| e.0).collect();
    assert_eq!(indices, expected_indices);
    let [similarities] = &dots(&classifier.matrix, &[vec![1.0, 0.0]])[..] else {
        panic!("one for each embedding")
    };
    for (actual, (index, similarity, score)) in actual.iter().zip(expected) {
        assert!((actual.similarity - similarity).abs() < 1e-6, "{actual:?}");
        assert!((actual.score - score).abs() < 1e-6, "{actual:?}");
        assert_eq!(classifier.logits.score(*index, similarities), actual.score, "one by itself");
    }
}

#[test]
fn scores_are_the_softmax_over_all_labels() {
    let shared = logits(2.0_f32.ln(), Coefficient::Shared(-3.0));
    let classifier = at_angles(&[1.0, 0.0, 2.0], shared);
    // Logits ln 2 x (0, 1, -1): scores in proportion 1 : 2 : 1/2.
    let best = [(1, 1.0, 4.0 / 7.0), (0, 0.0, 2.0 / 7.0), (2, -1.0, 1.0 / 7.0)];
    check(&classifier, None, &best);
    check(&classifier, Some(1), &best[..1]);
    check(&classifier, Some(2), &best[..2]);
    check(&classifier, Some(9), &best);
}

#[test]
fn scores_of_a_model_trained_so_are_the_sigmoid_of_each() {
    let sigmoid =
        Logits { scores: Scores::Sigmoid, ..logits(3.0_f32.ln(), Coefficient::Shared(-3.0_f32.ln())) };
    // Logits ln 3 x (1, 0, -1) - ln 3: odds of 1, 1/3 and 1/9.
    let best = [(1, 1.0, 0.5), (0, 0.0, 0.25), (2, -1.0, 0.1)];
    let classifier = at_angles(&[1.0, 0.0, 2.0], sigmoid);
    check(&classifier, None, &best);
    check(&classifier, Some(1), &best[..1]);
}

/// More than are compared in one pass.
#[test]
fn every_embedding_has_predictions_of_its_own() {
    let classifier = at_angles(&[0.0, 1.0, 2.0], logits(1.0, Coefficient::Shared(0.0)));
    let at = |quarter: usize| [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]][quarter % 3].to_vec();
    let embeddings: Vec<Vec<f32>> = (0..2 * TOGETHER + 1).map(at).collect();
    let best: Vec<usize> =
        classifier.classify(&embeddings, Some(ONE)).iter().map(|best| best[0].index).collect();
    assert_eq!(best, (0..embeddings.len()).map(|quarter| quarter % 3).collect::<Vec<_>>());
    assert!(classifier.classify(&[], None).is_empty());
}

#[test]
fn ties_are_in_label_order() {
    let classifier = at_angles(&[1.0, 0.0, 0.0, 0.0], logits(0.0, Coefficient::Shared(0.0)));
    let quarter = 0.25;
    let all = [(0, 0.0, quarter), (1, 1.0, quarter), (2, 1.0, quarter), (3, 1.0, quarter)];
    check(&classifier, None, &all);
    check(&classifier, Some(2), &all[..2]);
}

#[test]
fn a_bias_per_label_moves_that_label() {
    let bias = Coefficient::PerLabel([0.0, 3.0_f32.ln()].into());
    let classifier = at_angles(&[0.0, 0.0], logits(1.0, bias));
    check(&classifier, None, &[(1, 1.0, 0.75), (0, 1.0, 0.25)]);
}

#[test]
fn a_large_scale_does_not_overflow() {
    let classifier = at_angles(&[2.0, 0.0], logits(1e30, Coefficient::Shared(0.0)));
    check(&classifier, None, &[(1, 1.0, 1.0), (0, -1.0, 0.0)]);
}

#[test]
fn prompts_are_normalised_averaged_and_normalised_again() {
    // Without the first normalisation the second template would outweigh the first.
    let prompts = [1.0, 0.0, 0.0, 100.0, /* next label */ 0.0, 1.0, 0.0, 1.0];
    let one = logits(1.0, Coefficient::Shared(0.0));
    let classifier = Classifier::from_prompts(labels(2), TWO, TWO, &prompts, one).unwrap();
    let half = std::f32::consts::FRAC_1_SQRT_2;
    let total = half.exp() + 1.0;
    let expected = [(0, half, half.exp() / total), (1, 0.0, 1.0 / total)];
    check(&classifier, None, &expected);
    assert_eq!(classifier.labels()[1], "label 1");
}

#[test]
fn what_cannot_be_a_classifier_is_refused() {
    #[track_caller]
    fn check(count: usize, rows: &[f32], logits: Logits, message: &str) {
        let error = Classifier::from_unit_rows(labels(count), TWO, rows.to_vec(), logits);
        assert_eq!(error.unwrap_err().to_string(), message);
    }
    let plain = || logits(1.0, Coefficient::Shared(0.0));
    check(0, &[], plain(), "a classifier needs at least one label");
    check(2, &[1.0, 0.0], plain(), "2 labels need 4 numbers, got 2");
    check(1, &[1.0, 0.5], plain(), "the row of label \"label 0\" is not of length 1");
    check(1, &[f32::NAN, 0.0], plain(), "the row of label \"label 0\" is not of length 1");
    check(1, &[1.0, 0.0], logits(f32::INFINITY, Coefficient::Shared(0.0)), "scale and bias must be finite");
    check(
        1,
        &[1.0, 0.0],
        logits(1.0, Coefficient::PerLabel([0.0, 0.0].into())),
        "1 labels need as many scales and biases, got 2",
    );
    let opposite = [1.0, 0.0, -1.0, 0.0];
    let error = Classifier::from_prompts(labels(1), TWO, TWO, &opposite, plain()).unwrap_err();
    let message = "the embeddings of label \"label 0\" cancel out or are not finite";
    assert_eq!(error.to_string(), message);
    let error = Classifier::from_prompts(labels(1), ONE, TWO, &opposite, plain()).unwrap_err();
    assert_eq!(error.to_string(), "1 labels need 2 numbers, got 4");
}

#[test]
fn a_linear_head_gives_the_logits_it_was_trained_for() {
    let weights = vec![3.0, 4.0, 0.0, 0.0, -2.0, 0.0];
    let head = Classifier::from_head(labels(3), TWO, weights, vec![0.5, 1.0, 0.0]).unwrap();
    // For the embedding [1, 0]: 3 + 0.5, 0 + 1, -2 + 0.
    let exp = [3.5_f32, 1.0, -2.0].map(f32::exp);
    let score = |index: usize| exp[index] / exp.iter().sum::<f32>();
    check(&head, None, &[(0, 0.6, score(0)), (1, 0.0, score(1)), (2, -1.0, score(2))]);
}

#[test]
fn a_linear_head_must_fit_its_labels() {
    let head = |weights, biases| Classifier::from_head(labels(2), TWO, weights, biases).unwrap_err();
    let short = ClassifierError::Shape { labels: 2, expected: 4, actual: 3 };
    assert_eq!(head(vec![1.0; 3], vec![0.0; 2]), short);
    let biases = ClassifierError::CoefficientCount { labels: 2, actual: 1 };
    assert_eq!(head(vec![1.0; 4], vec![0.0]), biases);
    assert_eq!(head(vec![1.0, f32::NAN, 1.0, 1.0], vec![0.0; 2]), ClassifierError::NotFinite);
}
