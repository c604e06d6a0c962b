//! The next batch of a busy worker.

use super::*;

/// One worker with a second input. Its batches take 2 ms from being closed to being ready.
fn staging() -> Scheduler {
    let mut scheduler = scheduler(settings(), 1);
    scheduler.enable_staging(DeviceId(0));
    for _ in 0..200 {
        scheduler.observe_lead(DeviceId(0), Duration::from_millis(2));
    }
    scheduler
}

#[test]
fn the_next_batch_closes_in_time_to_be_put_together() {
    let mut scheduler = staging();
    scheduler.submit(at(0), &[image(1)]).unwrap();
    check(&mut scheduler, at(0), &["0:image[1]idle"]);
    scheduler.submit(at(1), &[image(2)]).unwrap();
    check(&mut scheduler, at(1), &[]);
    // The end, 13 ms, less 2 ms and a timer's lateness.
    let closes = at(11).saturating_sub(Duration::from_micros(100));
    let wakeup = scheduler.next_wakeup().unwrap();
    assert!(wakeup.since(closes) < Duration::from_micros(1), "{wakeup:?}");
    scheduler.submit(at(10), &[image(3)]).unwrap();
    check(&mut scheduler, at(10), &[]);
    check(&mut scheduler, at(11), &["0:image[2,3]idle staged"]);
    scheduler.submit(at(12), &[image(4)]).unwrap();
    check(&mut scheduler, at(12), &[]);
    assert_eq!(scheduler.next_wakeup(), Some(at(10_000).saturating_sub(Duration::from_micros(11_700))));
    scheduler.batch_done(at(14), WorkerId(0));
    check(&mut scheduler, at(14), &[]);
    assert!(!scheduler.is_quiet(), "the staged batch runs");
    scheduler.batch_done(at(40), WorkerId(0));
    check(&mut scheduler, at(40), &["0:image[4]idle"]);
}

#[test]
fn predictions_that_are_often_wrong_close_it_earlier() {
    let mut scheduler = staging();
    for _ in 0..200 {
        for millis in [10, 16] {
            let elapsed = Duration::from_millis(millis);
            let ran = Measurement { modality: Modality::Image, rows: 1, tokens: 0, elapsed };
            scheduler.observe(DeviceId(0), &ran);
        }
    }
    scheduler.submit(at(0), &[image(1)]).unwrap();
    check(&mut scheduler, at(0), &["0:image[1]idle"]);
    scheduler.submit(at(0), &[image(2)]).unwrap();
    check(&mut scheduler, at(7), &[]);
    check(&mut scheduler, at(8), &["0:image[2]idle staged"]);
}

#[test]
fn predictions_of_texts_that_are_wrong_do_not_close_images_earlier() {
    let mut scheduler = staging();
    for _ in 0..200 {
        for micros in [800, 1_600] {
            let elapsed = Duration::from_micros(micros);
            let ran = Measurement { modality: Modality::Text, rows: 1, tokens: 10, elapsed };
            scheduler.observe(DeviceId(0), &ran);
        }
    }
    let error = |modality| scheduler.cost(DeviceId(0)).error(modality);
    assert!(error(Modality::Text) > 0.2 && error(Modality::Image) == 0.0, "{}", error(Modality::Text));
    scheduler.submit(at(0), &[image(1)]).unwrap();
    check(&mut scheduler, at(0), &["0:image[1]idle"]);
    scheduler.submit(at(0), &[image(2), text(3, 10)]).unwrap();
    check(&mut scheduler, at(10), &[]);
    check(&mut scheduler, at(11), &["0:text[3]idle staged"]);
    scheduler.batch_done(at(13), WorkerId(0));
    check(&mut scheduler, at(13), &["0:image[2]idle staged"]);
    // And not those that were staged: this one runs until 27.
    scheduler.batch_done(at(14), WorkerId(0));
    scheduler.submit(at(14), &[image(4)]).unwrap();
    check(&mut scheduler, at(24), &[]);
    check(&mut scheduler, at(25), &["0:image[4]idle staged"]);
}

#[test]
fn an_idle_worker_goes_before_one_that_will_be() {
    let mut scheduler = scheduler(settings(), 2);
    scheduler.enable_staging(DeviceId(0));
    scheduler.submit(at(0), &[image(1)]).unwrap();
    check(&mut scheduler, at(0), &["0:image[1]idle"]);
    scheduler.submit(at(20), &[image(2)]).unwrap();
    check(&mut scheduler, at(20), &["1:image[2]idle"]);
    scheduler.submit(at(20), &[image(3)]).unwrap();
    check(&mut scheduler, at(20), &["0:image[3]idle staged"]);
}

#[test]
fn what_a_staged_batch_could_not_do_in_time_is_not_in_it() {
    let mut scheduler = staging();
    scheduler.submit(at(0), &(1..=4).map(image).collect::<Vec<_>>()).unwrap();
    check(&mut scheduler, at(0), &["0:image[1,2,3,4]best_size"]);
    // The run ends at 40, and nothing is done in less than 11.7 ms.
    let hopeless = Job { deadline: at(51), ..image(5) };
    scheduler.queues[Modality::Image.index()].push(at(1), at(501), hopeless);
    check(&mut scheduler, at(39), &[]);
    scheduler.submit(at(39), &[image(6)]).unwrap();
    check(&mut scheduler, at(39), &["0:image[6]idle staged"]);
    check(&mut scheduler, at(40), &["expired 5"]);
}

#[test]
fn an_abandoned_batch_makes_room_for_the_next() {
    let mut scheduler = staging();
    scheduler.submit(at(0), &[image(1)]).unwrap();
    check(&mut scheduler, at(0), &["0:image[1]idle"]);
    scheduler.submit(at(12), &[image(2)]).unwrap();
    check(&mut scheduler, at(12), &["0:image[2]idle staged"]);
    scheduler.batch_abandoned(WorkerId(0));
    scheduler.submit(at(12), &[image(3)]).unwrap();
    check(&mut scheduler, at(12), &["0:image[3]idle staged"]);
    scheduler.batch_done(at(13), WorkerId(0));
    scheduler.batch_abandoned(WorkerId(0));
    assert!(scheduler.is_quiet());
}

#[test]
fn admission_counts_what_is_staged() {
    let mut scheduler = staging();
    scheduler.submit(at(0), &[image(1)]).unwrap();
    check(&mut scheduler, at(0), &["0:image[1]idle"]);
    scheduler.submit(at(12), &(2..=5).map(image).collect::<Vec<_>>()).unwrap();
    check(&mut scheduler, at(12), &["0:image[2,3,4,5]best_size staged"]);
    // 1 ms and 40 ms are left to run, then 13 ms: 54 ms, of 0.8 x the time.
    let mut by =
        |millis: u64| scheduler.submit(at(12), &[Job { deadline: at(12 + millis), ..image(9) }]).is_ok();
    assert!(!by(67));
    assert!(by(68));
}
