//! The cost model.

use super::*;

#[test]
fn between_measured_points_cost_is_linear() {
    let check = |modality, rows, tokens, micros| {
        assert_eq!(
            cost().predict(modality, rows, tokens),
            Duration::from_micros(micros),
            "{rows} x {tokens}"
        );
    };
    check(Modality::Image, 1, 0, 13_000);
    check(Modality::Image, 2, 0, 22_000);
    check(Modality::Image, 8, 0, 80_000);
    check(Modality::Text, 2, 10, 2_200);
    check(Modality::Text, 1, 5, 1_300);
    check(Modality::Text, 4, 20, 8_000);
    assert_eq!(CostModel::default().predict(Modality::Image, 4, 0), Duration::ZERO);
}

fn ran(rows: usize, millis: u64) -> Measurement {
    Measurement { modality: Modality::Image, rows, tokens: 0, elapsed: Duration::from_millis(millis) }
}

#[test]
fn service_corrects_the_warm_up() {
    let mut cost = cost();
    for _ in 0..50 {
        cost.observe(&ran(4, 60));
    }
    let learned = cost.predict(Modality::Image, 4, 0).as_secs_f64();
    assert!((learned - 0.060).abs() < 0.001, "{learned}");
    assert_eq!(cost.predict(Modality::Image, 1, 0), Duration::from_millis(13), "the other point stays");
    for _ in 0..100 {
        cost.observe(&ran(2, 25));
    }
    let between = cost.predict(Modality::Image, 2, 0).as_secs_f64();
    assert!((between - 0.025).abs() < 0.001, "{between}");
}

#[test]
fn more_work_never_takes_less_time() {
    let mut cost = cost();
    for _ in 0..100 {
        cost.observe(&ran(1, 70));
    }
    let (one, four) = (cost.predict(Modality::Image, 1, 0), cost.predict(Modality::Image, 4, 0));
    assert!(one > Duration::from_millis(69) && four >= one, "{one:?}, {four:?}");
}

#[test]
fn one_batch_that_was_held_up_changes_little() {
    let mut cost = cost();
    cost.observe(&ran(4, 10_000));
    let learned = cost.predict(Modality::Image, 4, 0);
    assert!(learned <= Duration::from_millis(44), "{learned:?}");
}

#[test]
fn nothing_is_learned_before_the_warm_up() {
    let mut cost = CostModel::default();
    cost.observe(&ran(4, 10));
    assert_eq!(cost, CostModel::default());
}

#[test]
fn bigger_batches_are_not_always_better() {
    let check = |points: &[(usize, u64)], longest: u64, expected: usize| {
        let points: Vec<Measurement> = points.iter().map(|(rows, millis)| ran(*rows, *millis)).collect();
        let best = CostModel::new(Sizes::Any, &points).best_images(8, Duration::from_millis(longest));
        assert_eq!(best, expected, "{points:?}");
    };
    // Twice as fast per row with every doubling.
    check(&[(1, 40), (2, 42), (4, 44), (8, 46)], 1000, 8);
    // int8 on a CPU: four are best, eight are worse again.
    check(&[(1, 40), (2, 70), (4, 110), (8, 260)], 1000, 4);
    // Nothing to gain: the smallest answers first.
    check(&[(1, 100), (2, 200), (4, 399), (8, 797)], 1000, 1);
    // Nobody waits for a batch of more than the longest run, but for a single row.
    check(&[(1, 40), (2, 42), (4, 44), (8, 46)], 44, 4);
    check(&[(1, 40), (2, 42), (4, 44), (8, 46)], 10, 1);
}
