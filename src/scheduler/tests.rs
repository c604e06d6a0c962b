mod admission;
mod batch;
mod buckets;
mod cost;
mod devices;
mod preparation;
mod share;
mod staging;
#[cfg(debug_assertions)]
mod transitions;

use super::cost::{Measurement, Sizes};
use super::*;

const MS: u64 = 1_000_000;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_nanos(millis * MS)
}

fn settings() -> Settings {
    Settings {
        max_batch_size: ByModality::both(NonZeroUsize::new(4).unwrap()),
        max_batch_tokens: NonZeroUsize::MAX,
        max_queue_delay: Duration::ZERO,
        max_queue_size: 100,
        interactive_target: Duration::from_millis(500),
        bulk_target: Duration::from_millis(1000),
    }
}

fn image(id: u64) -> Job {
    Job {
        id: JobId(id),
        modality: Modality::Image,
        tokens: 0,
        class: Class::Interactive,
        deadline: at(10_000),
    }
}

fn text(id: u64, tokens: u32) -> Job {
    Job { modality: Modality::Text, tokens, ..image(id) }
}

/// 10 ms per image and 1 ms per text of 10 tokens in a full batch of four; alone 13 and 1.3 ms.
fn cost() -> CostModel {
    let point = |modality, rows, tokens, micros| Measurement {
        modality,
        rows,
        tokens,
        elapsed: Duration::from_micros(micros),
    };
    CostModel::new(
        Sizes::Any,
        &[
            point(Modality::Image, 4, 0, 40_000),
            point(Modality::Image, 1, 0, 13_000),
            point(Modality::Text, 1, 10, 1_300),
            point(Modality::Text, 4, 10, 4_000),
        ],
    )
}

/// `workers` of them, all idle.
fn scheduler(settings: Settings, workers: usize) -> Scheduler {
    scheduler_by(cost(), settings, workers)
}

fn scheduler_by(cost: CostModel, settings: Settings, workers: usize) -> Scheduler {
    let mut scheduler = Scheduler::new(settings, &vec![DeviceId(0); workers]);
    scheduler.set_cost(DeviceId(0), cost);
    for worker in 0..workers {
        scheduler.worker_idle(WorkerId(worker));
    }
    scheduler
}

/// Everything the scheduler wants at `now`, in short: `0:image[1,2]best_size`, `expired 3`, `no worker 4`.
fn actions(scheduler: &mut Scheduler, now: Timestamp) -> Vec<String> {
    std::iter::from_fn(|| scheduler.poll(now))
        .map(|action| match action {
            Action::Dispatch(batch) => {
                let jobs: Vec<String> = batch.jobs.iter().map(|job| job.0.to_string()).collect();
                format!(
                    "{}:{}[{}]{}{}",
                    batch.worker.0,
                    batch.modality.as_str(),
                    jobs.join(","),
                    batch.close_reason.as_str(),
                    if batch.staged { " staged" } else { "" }
                )
            }
            Action::Drop(job, DropReason::Expired) => format!("expired {}", job.0),
            Action::Drop(job, DropReason::NoWorker) => format!("no worker {}", job.0),
        })
        .collect()
}

#[track_caller]
fn check(scheduler: &mut Scheduler, now: Timestamp, expected: &[&str]) {
    assert_eq!(actions(scheduler, now), expected, "at {now:?}");
}

#[test]
fn an_idle_worker_takes_a_lone_job_at_once() {
    let mut scheduler = scheduler(settings(), 1);
    scheduler.submit(at(0), &[image(1)]).unwrap();
    check(&mut scheduler, at(0), &["0:image[1]idle"]);
    assert_eq!(scheduler.next_wakeup(), None, "nothing is queued");
}

#[test]
fn batches_grow_while_the_worker_is_busy() {
    let mut scheduler = scheduler(settings(), 1);
    scheduler.submit(at(0), &[image(1)]).unwrap();
    check(&mut scheduler, at(0), &["0:image[1]idle"]);
    for id in 2..=7 {
        scheduler.submit(at(id), &[image(id)]).unwrap();
        check(&mut scheduler, at(id), &[]);
    }
    scheduler.batch_done(at(10), WorkerId(0));
    check(&mut scheduler, at(10), &["0:image[2,3,4,5]best_size"]);
    scheduler.batch_done(at(50), WorkerId(0));
    check(&mut scheduler, at(50), &["0:image[6,7]idle"]);
}

#[test]
fn a_large_request_spreads_over_the_idle_workers() {
    let mut scheduler = scheduler(settings(), 3);
    let jobs: Vec<Job> = (1..=9).map(image).collect();
    scheduler.submit(at(0), &jobs).unwrap();
    check(
        &mut scheduler,
        at(0),
        &["0:image[1,2,3,4]best_size", "1:image[5,6,7,8]best_size", "2:image[9]idle"],
    );
}

#[test]
fn a_delay_collects_company() {
    let delay = Settings { max_queue_delay: Duration::from_millis(5), ..settings() };
    let mut scheduler = scheduler(delay, 1);
    scheduler.submit(at(0), &[image(1)]).unwrap();
    check(&mut scheduler, at(0), &[]);
    assert_eq!(scheduler.next_wakeup(), Some(at(5)));
    scheduler.submit(at(3), &[image(2)]).unwrap();
    check(&mut scheduler, at(4), &[]);
    assert_eq!(scheduler.next_wakeup(), Some(at(5)), "the first job's delay counts");
    check(&mut scheduler, at(5), &["0:image[1,2]delay"]);
}

#[test]
fn a_full_batch_does_not_wait_for_the_delay() {
    let delay = Settings { max_queue_delay: Duration::from_millis(5), ..settings() };
    let mut scheduler = scheduler(delay, 1);
    scheduler.submit(at(0), &(1..=4).map(image).collect::<Vec<_>>()).unwrap();
    check(&mut scheduler, at(0), &["0:image[1,2,3,4]best_size"]);
}

#[test]
fn a_deadline_ends_the_delay_in_time() {
    let delay = Settings { max_queue_delay: Duration::from_secs(1), ..settings() };
    let mut scheduler = scheduler(delay, 1);
    scheduler.submit(at(0), &[Job { deadline: at(50), ..image(1) }]).unwrap();
    check(&mut scheduler, at(0), &[]);
    assert_eq!(
        scheduler.next_wakeup(),
        Some(at(50).saturating_sub(Duration::from_micros(14_300))),
        "13 ms and a tenth"
    );
    check(&mut scheduler, at(35), &[]);
    check(&mut scheduler, at(36), &["0:image[1]deadline"]);
}

#[test]
fn earlier_deadlines_go_first_within_a_modality() {
    let fifo_after = Settings { interactive_target: Duration::from_secs(60), ..settings() };
    let mut scheduler = scheduler(fifo_after, 1);
    let jobs = [
        Job { deadline: at(3000), ..image(1) },
        Job { deadline: at(1000), ..image(2) },
        Job { deadline: at(2000), ..image(3) },
        image(4),
        image(5),
    ];
    scheduler.submit(at(0), &jobs).unwrap();
    check(&mut scheduler, at(0), &["0:image[2,3,1,4]best_size"]);
}

#[test]
fn bulk_gives_way_until_its_target() {
    let mut scheduler = scheduler(settings(), 1);
    let bulk: Vec<Job> = (1..=4).map(|id| Job { class: Class::Bulk, ..text(id, 10) }).collect();
    scheduler.submit(at(0), &[image(100)]).unwrap();
    check(&mut scheduler, at(0), &["0:image[100]idle"]);
    scheduler.submit(at(1), &bulk).unwrap();
    scheduler.submit(at(400), &[text(5, 10), text(6, 10)]).unwrap();
    scheduler.submit(at(502), &[text(7, 10)]).unwrap();
    scheduler.batch_done(at(503), WorkerId(0));
    // Bulk is due at 1001: after the texts of 400, due at 900, and before that of 502, due at 1002.
    check(&mut scheduler, at(503), &["0:text[5,6,1,2]best_size"]);
    scheduler.batch_done(at(504), WorkerId(0));
    check(&mut scheduler, at(504), &["0:text[3,4,7]idle"]);
}

#[test]
fn an_expired_job_is_dropped_and_never_starts() {
    let mut scheduler = scheduler(settings(), 1);
    scheduler.submit(at(0), &[image(1)]).unwrap();
    check(&mut scheduler, at(0), &["0:image[1]idle"]);
    scheduler.submit(at(1), &[Job { deadline: at(60), ..image(2) }]).unwrap();
    scheduler.submit(at(1), &[image(3)]).unwrap();
    let hopeless = at(60).saturating_sub(Duration::from_micros(11_700));
    assert_eq!(scheduler.next_wakeup(), Some(hopeless), "13 ms less a tenth before the deadline");
    check(&mut scheduler, at(48), &[]);
    check(&mut scheduler, at(49), &["expired 2"]);
    scheduler.batch_done(at(50), WorkerId(0));
    check(&mut scheduler, at(50), &["0:image[3]idle"]);
}

#[test]
fn a_job_that_arrives_expired_is_dropped() {
    let mut scheduler = scheduler(settings(), 1);
    scheduler.submit(at(5), &[Job { deadline: at(5), ..image(1) }]).unwrap();
    check(&mut scheduler, at(5), &["expired 1"]);
}

#[test]
fn a_cancelled_job_is_forgotten() {
    let mut scheduler = scheduler(settings(), 1);
    scheduler.submit(at(0), &[image(1)]).unwrap();
    check(&mut scheduler, at(0), &["0:image[1]idle"]);
    scheduler.submit(at(1), &[image(2), image(3)]).unwrap();
    assert!(scheduler.cancel(JobId(2)));
    assert!(!scheduler.cancel(JobId(2)), "only once");
    assert!(!scheduler.cancel(JobId(1)), "it runs already");
    assert_eq!(scheduler.queued(Modality::Image), 1);
    scheduler.batch_done(at(2), WorkerId(0));
    check(&mut scheduler, at(2), &["0:image[3]idle"]);
}

#[test]
fn one_lost_worker_leaves_the_rest_working() {
    let mut scheduler = scheduler(settings(), 2);
    scheduler.worker_lost(WorkerId(0));
    scheduler.submit(at(0), &[image(1)]).unwrap();
    check(&mut scheduler, at(0), &["1:image[1]idle"]);
}

#[test]
fn without_workers_every_job_is_answered_and_none_admitted() {
    let mut scheduler = scheduler(settings(), 1);
    scheduler.submit(at(0), &[image(1)]).unwrap();
    check(&mut scheduler, at(0), &["0:image[1]idle"]);
    scheduler.submit(at(1), &[image(2), text(3, 5)]).unwrap();
    scheduler.worker_lost(WorkerId(0));
    check(&mut scheduler, at(2), &["no worker 2", "no worker 3"]);
    assert_eq!(scheduler.submit(at(3), &[image(4)]), Err(Rejection::NoWorker));
    assert!(scheduler.is_quiet());
}

#[test]
fn drain_runs_what_is_queued_without_waiting() {
    let delay = Settings { max_queue_delay: Duration::from_secs(1), ..settings() };
    let mut scheduler = scheduler(delay, 1);
    scheduler.submit(at(0), &(1..=5).map(image).collect::<Vec<_>>()).unwrap();
    check(&mut scheduler, at(0), &["0:image[1,2,3,4]best_size"]);
    scheduler.begin_drain();
    assert_eq!(scheduler.submit(at(1), &[image(6)]), Err(Rejection::Draining));
    assert!(!scheduler.is_quiet());
    scheduler.batch_done(at(2), WorkerId(0));
    check(&mut scheduler, at(2), &["0:image[5]drain"]);
    scheduler.batch_done(at(3), WorkerId(0));
    assert!(scheduler.is_quiet());
}
