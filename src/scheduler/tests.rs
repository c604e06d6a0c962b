mod share;

use super::cost::Measurement;
use super::*;

const MS: u64 = 1_000_000;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_nanos(millis * MS)
}

fn settings() -> Settings {
    Settings {
        max_batch_size: NonZeroUsize::new(4).unwrap(),
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

/// 10 ms per image, 1 ms per text of 10 tokens.
fn cost() -> CostModel {
    let point = |modality, rows, tokens, millis| Measurement {
        modality,
        rows,
        tokens,
        elapsed: Duration::from_millis(millis),
    };
    CostModel::new(&[
        point(Modality::Image, 4, 0, 40),
        point(Modality::Image, 1, 0, 10),
        point(Modality::Text, 1, 10, 1),
        point(Modality::Text, 4, 10, 4),
    ])
}

/// `workers` of them, all idle.
fn scheduler(settings: Settings, workers: usize) -> Scheduler {
    let mut scheduler = Scheduler::new(settings, NonZeroUsize::new(workers).unwrap());
    scheduler.set_cost(cost());
    for worker in 0..workers {
        scheduler.worker_idle(WorkerId(worker));
    }
    scheduler
}

/// Everything the scheduler wants at `now`, in short: `0:image[1,2]full`, `expired 3`, `no worker 4`.
fn actions(scheduler: &mut Scheduler, now: Timestamp) -> Vec<String> {
    std::iter::from_fn(|| scheduler.poll(now))
        .map(|action| match action {
            Action::Dispatch(batch) => {
                let jobs: Vec<String> = batch.jobs.iter().map(|job| job.0.to_string()).collect();
                format!(
                    "{}:{}[{}]{}",
                    batch.worker.0,
                    batch.modality.as_str(),
                    jobs.join(","),
                    batch.close_reason.as_str()
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
    scheduler.worker_idle(WorkerId(0));
    check(&mut scheduler, at(10), &["0:image[2,3,4,5]full"]);
    scheduler.worker_idle(WorkerId(0));
    check(&mut scheduler, at(50), &["0:image[6,7]idle"]);
}

#[test]
fn a_large_request_spreads_over_the_idle_workers() {
    let mut scheduler = scheduler(settings(), 3);
    let jobs: Vec<Job> = (1..=9).map(image).collect();
    scheduler.submit(at(0), &jobs).unwrap();
    check(&mut scheduler, at(0), &["0:image[1,2,3,4]full", "1:image[5,6,7,8]full", "2:image[9]idle"]);
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
    check(&mut scheduler, at(0), &["0:image[1,2,3,4]full"]);
}

#[test]
fn a_deadline_ends_the_delay_in_time() {
    let delay = Settings { max_queue_delay: Duration::from_secs(1), ..settings() };
    let mut scheduler = scheduler(delay, 1);
    scheduler.submit(at(0), &[Job { deadline: at(50), ..image(1) }]).unwrap();
    check(&mut scheduler, at(0), &[]);
    assert_eq!(scheduler.next_wakeup(), Some(at(40)), "an image takes 10 ms");
    check(&mut scheduler, at(39), &[]);
    check(&mut scheduler, at(40), &["0:image[1]deadline"]);
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
    check(&mut scheduler, at(0), &["0:image[2,3,1,4]full"]);
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
    scheduler.worker_idle(WorkerId(0));
    // Bulk is due at 1001: after the texts of 400, due at 900, and before that of 502, due at 1002.
    check(&mut scheduler, at(503), &["0:text[5,6,1,2]full"]);
    scheduler.worker_idle(WorkerId(0));
    check(&mut scheduler, at(504), &["0:text[3,4,7]idle"]);
}

#[test]
fn an_expired_job_is_dropped_and_never_starts() {
    let mut scheduler = scheduler(settings(), 1);
    scheduler.submit(at(0), &[image(1)]).unwrap();
    check(&mut scheduler, at(0), &["0:image[1]idle"]);
    scheduler.submit(at(1), &[Job { deadline: at(20), ..image(2) }, image(3)]).unwrap();
    assert_eq!(scheduler.next_wakeup(), Some(at(20)), "all workers are busy, but a deadline nears");
    check(&mut scheduler, at(19), &[]);
    check(&mut scheduler, at(20), &["expired 2"]);
    scheduler.worker_idle(WorkerId(0));
    check(&mut scheduler, at(21), &["0:image[3]idle"]);
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
    scheduler.worker_idle(WorkerId(0));
    check(&mut scheduler, at(2), &["0:image[3]idle"]);
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
        Err(Rejection::QueueFull { retry_after: Duration::from_millis(40) }),
        "three images wait: one batch of at most four, 40 ms"
    );
    assert_eq!(scheduler.queued(Modality::Text), 0, "none of the four was admitted");
    scheduler.submit(at(0), &[text(8, 10), image(9), image(10)]).unwrap();
    assert_eq!(scheduler.queued(Modality::Image), 5);
    assert_eq!(scheduler.queued(Modality::Text), 1);
}

#[test]
fn nothing_is_admitted_before_a_worker_is_warm() {
    let mut scheduler = Scheduler::new(settings(), NonZeroUsize::new(2).unwrap());
    assert_eq!(scheduler.submit(at(0), &[image(1)]), Err(Rejection::Starting));
    scheduler.worker_idle(WorkerId(1));
    scheduler.submit(at(0), &[image(1)]).unwrap();
    check(&mut scheduler, at(0), &["1:image[1]idle"]);
    assert_eq!(scheduler.worker_counts(), WorkerCounts { starting: 1, ready: 1, lost: 0 });
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
    check(&mut scheduler, at(0), &["0:image[1,2,3,4]full"]);
    scheduler.begin_drain();
    assert_eq!(scheduler.submit(at(1), &[image(6)]), Err(Rejection::Draining));
    assert!(!scheduler.is_quiet());
    scheduler.worker_idle(WorkerId(0));
    check(&mut scheduler, at(2), &["0:image[5]drain"]);
    scheduler.worker_idle(WorkerId(0));
    assert!(scheduler.is_quiet());
}

#[test]
fn cost_is_interpolated() {
    let check = |modality, rows, tokens, micros| {
        assert_eq!(
            cost().predict(modality, rows, tokens),
            Duration::from_micros(micros),
            "{rows} x {tokens}"
        );
    };
    check(Modality::Image, 1, 0, 10_000);
    check(Modality::Image, 2, 0, 20_000);
    check(Modality::Image, 8, 0, 80_000);
    check(Modality::Text, 2, 10, 2_000);
    check(Modality::Text, 1, 5, 1_000);
    check(Modality::Text, 4, 20, 8_000);
    assert_eq!(CostModel::default().predict(Modality::Image, 4, 0), Duration::ZERO);
}
