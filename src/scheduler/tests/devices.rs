//! Devices of different speed.

use super::*;

/// Takes four times as long.
fn slow() -> CostModel {
    let slower = |point: Measurement| Measurement { elapsed: point.elapsed * 4, ..point };
    CostModel::new(Sizes::Any, &cost().points().map(slower).collect::<Vec<_>>())
}

/// Two devices with an idle worker each.
fn fast_and(second: CostModel) -> Scheduler {
    let mut scheduler = Scheduler::new(settings(), &[DeviceId(0), DeviceId(1)]);
    scheduler.set_cost(DeviceId(0), cost());
    scheduler.set_cost(DeviceId(1), second);
    scheduler.worker_idle(WorkerId(0));
    scheduler.worker_idle(WorkerId(1));
    scheduler
}

#[test]
fn each_device_learns_from_its_own_batches() {
    let mut scheduler = fast_and(slow());
    let before = scheduler.cost(DeviceId(0)).clone();
    let elapsed = Duration::from_millis(300);
    let ran = Measurement { modality: Modality::Image, rows: 4, tokens: 0, elapsed };
    scheduler.observe(DeviceId(1), &ran);
    assert_eq!(scheduler.cost(DeviceId(0)), &before);
    assert!(scheduler.cost(DeviceId(1)).predict(Modality::Image, 4, 0) > Duration::from_millis(160));
}

#[test]
fn what_a_second_worker_measures_does_not_undo_what_was_learned() {
    let mut scheduler = Scheduler::new(settings(), &[DeviceId(0); 2]);
    scheduler.set_cost(DeviceId(0), cost());
    scheduler.worker_idle(WorkerId(0));
    let elapsed = Duration::from_millis(60);
    let ran = Measurement { modality: Modality::Image, rows: 4, tokens: 0, elapsed };
    (0..50).for_each(|_| scheduler.observe(DeviceId(0), &ran));
    let learned = scheduler.cost(DeviceId(0)).clone();
    scheduler.set_cost(DeviceId(0), slow());
    scheduler.worker_idle(WorkerId(1));
    assert_eq!(scheduler.cost(DeviceId(0)), &learned);
}

#[test]
fn a_batch_is_as_large_as_is_good_on_its_device() {
    // Nobody waits more than half a second for four images, but for three.
    let mut scheduler = fast_and(CostModel::new(
        Sizes::Any,
        &[(1, 200), (4, 560)].map(|(rows, millis)| Measurement {
            modality: Modality::Image,
            rows,
            tokens: 0,
            elapsed: Duration::from_millis(millis),
        }),
    ));
    scheduler.submit(at(0), &(1..=7).map(image).collect::<Vec<_>>()).unwrap();
    check(&mut scheduler, at(0), &["0:image[1,2,3,4]best_size", "1:image[5,6,7]best_size"]);
}

#[test]
fn a_slow_device_counts_as_a_part_of_a_fast_one() {
    let check = |timeout, admitted| {
        let mut scheduler = fast_and(slow());
        scheduler.submit(at(0), &(0..8).map(image).collect::<Vec<_>>()).unwrap();
        actions(&mut scheduler, at(0));
        scheduler.submit(at(0), &(100..120).map(image).collect::<Vec<_>>()).unwrap();
        let admission = scheduler.submit(at(0), &[Job { deadline: at(timeout), ..image(999) }]);
        assert_eq!(admission.is_ok(), admitted, "{timeout} ms: {admission:?}");
    };
    // 40 ms run, then five batches of 40 ms on what is worth 1.25 workers, then 13 ms: 213 ms, of 0.8 x the time.
    check(260, false);
    check(270, true);
}
