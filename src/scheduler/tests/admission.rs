//! What is admitted, and what is refused with which hint.

use super::*;

#[test]
fn nothing_is_admitted_before_a_worker_is_warm() {
    let mut scheduler = Scheduler::new(settings(), &[DeviceId(0); 2]);
    assert_eq!(scheduler.submit(at(0), &[image(1)]), Err(Rejection::Starting));
    scheduler.worker_idle(WorkerId(1));
    scheduler.submit(at(0), &[image(1)]).unwrap();
    check(&mut scheduler, at(0), &["1:image[1]idle"]);
    assert_eq!(scheduler.worker_counts(), WorkerCounts { starting: 1, ready: 1, lost: 0 });
}

#[test]
fn admission_is_all_or_none_and_per_modality() {
    let small = Settings { max_queue_size: 5, ..settings() };
    let mut scheduler = scheduler(small, 1);
    scheduler.submit(at(0), &[image(0)]).unwrap();
    check(&mut scheduler, at(0), &["0:image[0]idle"]);
    scheduler.submit(at(0), &[image(1), image(2), image(3)]).unwrap();
    let rejection = scheduler.submit(at(0), &[text(4, 10), image(5), image(6), image(7)]);
    assert_eq!(
        rejection,
        Err(Rejection::QueueFull { retry_after: Duration::from_millis(31) }),
        "three images wait, and run for 31 ms"
    );
    assert_eq!(scheduler.queued(Modality::Text), 0, "none of the four was admitted");
    scheduler.submit(at(0), &[text(8, 10), image(9), image(10)]).unwrap();
    assert_eq!(scheduler.queued(Modality::Image), 5);
    assert_eq!(scheduler.queued(Modality::Text), 1);
}

/// A row of `modality` with `timeout` ms at 0, when four images run and four texts wait.
#[track_caller]
fn check_admission(modality: Modality, class: Class, timeout: u64, refused_by: Option<u64>) {
    let mut scheduler = scheduler(settings(), 1);
    scheduler.submit(at(0), &[image(0), image(1), image(2), image(3)]).unwrap();
    check(&mut scheduler, at(0), &["0:image[0,1,2,3]best_size"]);
    let bulk = |id| Job { class: Class::Bulk, ..text(id, 10) };
    scheduler.submit(at(0), &[bulk(4), bulk(5), bulk(6), bulk(7)]).unwrap();
    let job = Job { class, deadline: at(timeout), ..text(9, 10) };
    let job = if modality == Modality::Image { Job { tokens: 0, modality, ..job } } else { job };
    let expected = match refused_by {
        None => Ok(()),
        Some(micros) => Err(Rejection::TooLate { retry_after: Duration::from_micros(micros) }),
    };
    assert_eq!(scheduler.submit(at(0), &[job]), expected, "{modality:?} within {timeout} ms");
}

#[test]
fn what_would_be_done_too_late_is_refused() {
    // Behind what runs: 40 + 1.3 ms, of 0.8 x 52 = 41.6 and 0.8 x 50 = 40.
    check_admission(Modality::Text, Class::Interactive, 52, None);
    check_admission(Modality::Text, Class::Interactive, 50, Some(1_300));
    // Bulk does not overtake bulk: 4 ms more.
    check_admission(Modality::Text, Class::Bulk, 52, Some(3_700));
    check_admission(Modality::Text, Class::Bulk, 57, None);
    check_admission(Modality::Image, Class::Interactive, 66, Some(200));
    check_admission(Modality::Image, Class::Interactive, 67, None);
}

#[test]
fn an_idle_worker_takes_what_seems_hopeless_since_the_prediction_may_be_wrong() {
    let mut scheduler = scheduler(settings(), 1);
    let hurried = Job { deadline: at(14), ..image(1) };
    scheduler.submit(at(0), &[hurried]).unwrap();
    check(&mut scheduler, at(0), &["0:image[1]idle"]);
}

#[test]
fn several_workers_share_what_waits() {
    let check = |workers, timeout, admitted| {
        let mut scheduler = scheduler(settings(), workers);
        let images = |from: u64, rows: u64| (from..from + rows).map(image).collect::<Vec<_>>();
        scheduler.submit(at(0), &images(0, 4 * workers as u64)).unwrap();
        actions(&mut scheduler, at(0));
        scheduler.submit(at(0), &images(100, 32)).unwrap();
        let admission = scheduler.submit(at(0), &[Job { deadline: at(timeout), ..image(999) }]);
        assert_eq!(admission.is_ok(), admitted, "{workers} workers, {timeout} ms: {admission:?}");
    };
    // 40 ms run, then eight batches of 40 ms, then 13 ms: 373 ms, or 133 ms with four workers.
    check(1, 460, false);
    check(1, 470, true);
    check(4, 160, false);
    check(4, 170, true);
}
