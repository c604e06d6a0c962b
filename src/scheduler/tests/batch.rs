//! What runs together.

use super::*;

/// 1.5 ms for a batch and 0.06 ms per token, padding included.
fn text_cost() -> CostModel {
    CostModel::new(
        Sizes::Any,
        &[(1, 5, 1_800), (4, 80, 20_700)].map(|(rows, tokens, micros)| Measurement {
            modality: Modality::Text,
            rows,
            tokens,
            elapsed: Duration::from_micros(micros),
        }),
    )
}

/// The batches that one worker runs one after another.
fn batches(settings: Settings, jobs: &[Job]) -> Vec<Vec<u64>> {
    let mut scheduler = scheduler_by(text_cost(), settings, 1);
    scheduler.submit(at(0), jobs).unwrap();
    std::iter::from_fn(|| {
        let Some(Action::Dispatch(batch)) = scheduler.poll(at(0)) else { return None };
        scheduler.batch_done(at(0), WorkerId(0));
        let mut ids: Vec<u64> = batch.jobs.into_iter().map(|JobId(id)| id).collect();
        ids.sort();
        Some(ids)
    })
    .collect()
}

#[test]
fn texts_of_like_length_run_together() {
    let lengths = [70, 5, 6, 72, 5, 71, 6, 69];
    let jobs: Vec<Job> = (0..).zip(lengths).map(|(id, tokens)| text(id, tokens)).collect();
    assert_eq!(batches(settings(), &jobs), [[0, 3, 5, 7], [1, 2, 4, 6]]);
}

#[test]
fn a_long_text_runs_alone_rather_than_with_short_ones() {
    let jobs: Vec<Job> = (0..4).map(|id| text(id, if id == 0 { 77 } else { 4 })).collect();
    assert_eq!(batches(settings(), &jobs), [vec![0], vec![1, 2, 3]]);
}

#[test]
fn the_most_urgent_of_equals_go_first() {
    let jobs: Vec<Job> = (0..10).map(|id| text(id, 10)).collect();
    assert_eq!(batches(settings(), &jobs), [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
}

#[test]
fn padding_counts_against_the_token_budget() {
    let narrow = Settings { max_batch_tokens: NonZeroUsize::new(30).unwrap(), ..settings() };
    let jobs = [text(0, 40), text(1, 15), text(2, 14), text(3, 16)];
    assert_eq!(batches(narrow, &jobs), [vec![0], vec![1, 2], vec![3]], "40 alone, 2 x 15, not 2 x 16");
}

#[test]
fn what_is_overdue_does_not_wait_for_its_like() {
    let overdue = Settings { interactive_target: Duration::from_millis(40), ..settings() };
    let mut scheduler = scheduler(overdue, 1);
    scheduler.set_cost(DeviceId(0), text_cost());
    let lengths = [70, 5, 6, 72, 5, 71];
    let jobs: Vec<Job> = (0..).zip(lengths).map(|(id, tokens)| text(id, tokens)).collect();
    for job in &jobs {
        scheduler.submit(at(job.id.0), &[*job]).unwrap();
    }
    let Some(Action::Dispatch(batch)) = scheduler.poll(at(60)) else { panic!("six texts wait") };
    assert_eq!(batch.jobs, [0, 1, 2, 3].map(JobId));
}

#[test]
fn a_large_request_does_not_hold_up_a_small_one() {
    let mut scheduler = scheduler(settings(), 1);
    let request: Vec<Job> = (0..80).map(|id| Job { deadline: at(60_000), ..image(id) }).collect();
    scheduler.submit(at(0), &request).unwrap();
    check(&mut scheduler, at(0), &["0:image[0,1,2,3]best_size"]);
    scheduler.submit(at(1), &[image(100)]).unwrap();
    // The rows of the large request are due every 40 ms from 500 on, the small one's at 501.
    scheduler.batch_done(at(40), WorkerId(0));
    check(&mut scheduler, at(40), &["0:image[100,4,5,6]best_size"]);
}
