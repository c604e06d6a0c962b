//! Modalities share device time.

use super::*;

#[test]
fn modalities_share_device_time_not_batches() {
    let mut scheduler = scheduler(settings(), 1);
    let jobs: Vec<Job> = (0..100).map(|id| if id < 20 { image(id) } else { text(id, 10) }).collect();
    scheduler.submit(at(0), &jobs).unwrap();
    let mut sequence = String::new();
    for step in 0..11 {
        let Some(Action::Dispatch(batch)) = scheduler.poll(at(step)) else { panic!("work is waiting") };
        sequence.push(if batch.modality == Modality::Image { 'I' } else { 't' });
        scheduler.batch_done(at(step), WorkerId(0));
    }
    // A full batch of images costs 40 ms, one of texts 4 ms: ten for one.
    assert_eq!(sequence, "Itttttttttt");
}

#[test]
fn a_text_does_not_wait_behind_the_backlog_of_images() {
    let mut scheduler = scheduler(settings(), 1);
    scheduler.submit(at(0), &(0..40).map(image).collect::<Vec<_>>()).unwrap();
    check(&mut scheduler, at(0), &["0:image[0,1,2,3]best_size"]);
    scheduler.batch_done(at(40), WorkerId(0));
    check(&mut scheduler, at(40), &["0:image[4,5,6,7]best_size"]);
    scheduler.submit(at(50), &[text(100, 10)]).unwrap();
    scheduler.batch_done(at(80), WorkerId(0));
    check(&mut scheduler, at(80), &["0:text[100]idle"]);
}

#[test]
fn a_modality_that_was_idle_has_earned_no_credit() {
    let mut scheduler = scheduler(settings(), 1);
    // Images alone for a second of device time, then a flood of texts.
    scheduler.submit(at(0), &(0..100).map(image).collect::<Vec<_>>()).unwrap();
    for step in 0..20 {
        assert!(matches!(scheduler.poll(at(step)), Some(Action::Dispatch(_))));
        scheduler.batch_done(at(step), WorkerId(0));
    }
    scheduler.submit(at(20), &(100..200).map(|id| text(id, 10)).collect::<Vec<_>>()).unwrap();
    let mut texts = 0;
    while let Some(Action::Dispatch(batch)) = scheduler.poll(at(21)) {
        if batch.modality == Modality::Image {
            break;
        }
        texts += 1;
        scheduler.batch_done(at(21), WorkerId(0));
    }
    assert!(texts <= 11, "{texts} batches of text before an image: more than one image batch is worth");
}

#[test]
fn a_deadline_without_slack_overrides_the_share() {
    let mut scheduler = scheduler(settings(), 1);
    scheduler.submit(at(0), &(1..=8).map(|id| text(id, 10)).collect::<Vec<_>>()).unwrap();
    check(&mut scheduler, at(0), &["0:text[1,2,3,4]best_size"]);
    scheduler.batch_done(at(4), WorkerId(0));
    // Then images spend 40 ms, so it is the turn of the other four texts.
    scheduler.submit(at(4), &(10..14).map(image).collect::<Vec<_>>()).unwrap();
    check(&mut scheduler, at(4), &["0:image[10,11,12,13]best_size"]);
    scheduler.batch_done(at(5), WorkerId(0));
    scheduler.submit(at(5), &[Job { deadline: at(30), ..image(30) }]).unwrap();
    let next = actions(&mut scheduler, at(16));
    assert!(next[0].contains("30"), "due at 30, takes 13 ms: {next:?}");
}

#[test]
fn waiting_for_company_earns_no_credit() {
    let delay = Settings { max_queue_delay: Duration::from_millis(10), max_queue_size: 10_000, ..settings() };
    let mut scheduler = scheduler(delay, 1);
    scheduler.submit(at(0), &(0..1000).map(image).collect::<Vec<_>>()).unwrap();
    // A lone text at a time: images run while it waits for company.
    let mut now = 0;
    for id in 1000..1050 {
        scheduler.submit(at(now), &[text(id, 10)]).unwrap();
        while !actions(&mut scheduler, at(now))[0].contains("text") {
            now += 40;
            scheduler.batch_done(at(now), WorkerId(0));
        }
        now += 1;
        scheduler.batch_done(at(now), WorkerId(0));
    }
    scheduler.submit(at(now), &(2000..4000).map(|id| text(id, 10)).collect::<Vec<_>>()).unwrap();
    assert_no_modality_runs_alone(&mut scheduler, at(now));
}

#[test]
fn what_a_deadline_took_is_forgotten_when_all_is_done() {
    let mut scheduler = scheduler(Settings { max_queue_size: 10_000, ..settings() }, 1);
    scheduler.submit(at(0), &(0..8).map(|id| text(id, 10)).collect::<Vec<_>>()).unwrap();
    // Each batch of four has to start when the one before it ends.
    let hurried = |row: u64| Job { deadline: at(40 * (row / 4 + 1)), ..image(100 + row) };
    scheduler.submit(at(0), &(0..80).map(hurried).collect::<Vec<_>>()).unwrap();
    let mut now = 0;
    while let Some(Action::Dispatch(batch)) = scheduler.poll(at(now)) {
        now += if batch.modality == Modality::Image { 40 } else { 4 };
        scheduler.batch_done(at(now), WorkerId(0));
    }
    assert!(scheduler.is_quiet());
    let jobs: Vec<Job> = (1000..3000).map(|id| if id < 2000 { image(id) } else { text(id, 10) }).collect();
    scheduler.submit(at(1000), &jobs).unwrap();
    assert_no_modality_runs_alone(&mut scheduler, at(1000));
}

/// A batch of images is worth ten of texts.
#[track_caller]
fn assert_no_modality_runs_alone(scheduler: &mut Scheduler, now: Timestamp) {
    let mut texts = 0;
    while let Some(Action::Dispatch(batch)) = scheduler.poll(now) {
        if batch.modality == Modality::Image {
            break;
        }
        texts += 1;
        scheduler.batch_done(now, WorkerId(0));
    }
    assert!(texts <= 11, "{texts} batches of text before an image: more than one image batch is worth");
}
