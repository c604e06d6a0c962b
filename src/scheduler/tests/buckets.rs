//! Devices that run batches of certain sizes only.

use super::*;

/// Buckets of 1, 2, 4 and 8 images, which take 1 ms and so much for each row, padding included.
fn buckets(micros_per_row: u64) -> CostModel {
    let points = [1, 2, 4, 8].map(|rows| Measurement {
        modality: Modality::Image,
        rows,
        tokens: 0,
        elapsed: Duration::from_micros(1_000 + micros_per_row * rows as u64),
    });
    CostModel::new(Sizes::Buckets, &points)
}

#[test]
fn a_batch_takes_as_long_as_its_bucket() {
    let cost = buckets(1_000);
    for (rows, millis) in [(1, 2), (2, 3), (3, 5), (4, 5), (5, 9), (8, 9)] {
        assert_eq!(cost.predict(Modality::Image, rows, 0), Duration::from_millis(millis), "{rows}");
    }
}

#[test]
fn texts_are_padded_in_both_directions() {
    let point = |rows, tokens, millis| Measurement {
        modality: Modality::Text,
        rows,
        tokens,
        elapsed: Duration::from_millis(millis),
    };
    let mut cost =
        CostModel::new(Sizes::Buckets, &[point(1, 8, 1), point(1, 77, 2), point(4, 8, 3), point(4, 77, 9)]);
    let check = |cost: &CostModel, rows, tokens, millis| {
        assert_eq!(
            cost.predict(Modality::Text, rows, tokens),
            Duration::from_millis(millis),
            "{rows} {tokens}"
        );
    };
    for (rows, tokens, millis) in [(1, 1, 1), (1, 9, 2), (2, 8, 3), (2, 9, 9), (4, 77, 9)] {
        check(&cost, rows, tokens, millis);
    }
    // What was learned of a bucket does not count for one that has more rows and fewer tokens.
    (0..200).for_each(|_| cost.observe(&point(1, 77, 8)));
    assert!(cost.predict(Modality::Text, 1, 77) > Duration::from_millis(7));
    check(&cost, 4, 8, 3);
    check(&cost, 4, 77, 9);
}

#[test]
fn padding_is_weighed_against_another_batch() {
    let check = |micros_per_row, waiting, rows| {
        assert_eq!(buckets(micros_per_row).images_now(waiting), rows, "{micros_per_row} us, {waiting}");
    };
    // 8 + 1 ms together, or 4 + 1 and 1 + 1 ms one after the other.
    check(1_000, 5, 4);
    check(1_000, 6, 4);
    check(1_000, 7, 7);
    check(1_000, 3, 3);
    check(1_000, 4, 4);
    check(1_000, 1, 1);
    // Where rows cost little, all go together.
    check(100, 5, 5);
    // Without buckets there is no padding.
    assert_eq!(cost().images_now(3), 3);
}

#[test]
fn what_does_not_fill_a_bucket_waits_for_the_next_batch() {
    let eight = ByModality::both(NonZeroUsize::new(8).unwrap());
    let mut scheduler = scheduler_by(buckets(1_000), Settings { max_batch_size: eight, ..settings() }, 1);
    scheduler.submit(at(0), &(1..=5).map(image).collect::<Vec<_>>()).unwrap();
    check(&mut scheduler, at(0), &["0:image[1,2,3,4]idle"]);
    scheduler.batch_done(at(5), WorkerId(0));
    check(&mut scheduler, at(5), &["0:image[5]idle"]);
}
