//! What must never happen is noticed.

use super::*;

const WORKER: WorkerId = WorkerId(0);
const RUN: Run = Run { modality: Modality::Image, time: Duration::from_millis(13) };

/// Its only worker runs image 1.
fn busy() -> Scheduler {
    let mut scheduler = scheduler(settings(), 1);
    scheduler.submit(at(0), &[image(1)]).unwrap();
    check(&mut scheduler, at(0), &["0:image[1]idle"]);
    scheduler
}

/// And it has a next batch.
fn staged() -> Scheduler {
    let mut scheduler = busy();
    scheduler.workers.stage(WORKER, RUN);
    scheduler
}

fn lost() -> Scheduler {
    let mut scheduler = busy();
    scheduler.worker_lost(WORKER);
    scheduler
}

#[test]
#[should_panic(expected = "becomes ready, but is Lost")]
fn a_lost_worker_does_not_become_ready() {
    lost().worker_idle(WORKER);
}

#[test]
#[should_panic(expected = "finishes a batch, but is Lost")]
fn a_lost_worker_finishes_nothing() {
    lost().batch_done(at(13), WORKER);
}

#[test]
#[should_panic(expected = "starts a batch, but is Lost")]
fn a_lost_worker_starts_nothing() {
    lost().workers.start(WORKER, at(13), None);
}

#[test]
#[should_panic(expected = "is lost once more")]
fn a_worker_is_lost_once() {
    lost().worker_lost(WORKER);
}

#[test]
#[should_panic(expected = "becomes ready, but is Busy")]
fn a_worker_becomes_ready_once() {
    busy().worker_idle(WORKER);
}

#[test]
#[should_panic(expected = "starts a batch, but is Busy")]
fn a_busy_worker_starts_nothing_else() {
    busy().workers.start(WORKER, at(13), None);
}

#[test]
#[should_panic(expected = "finishes a batch, but is Idle")]
fn a_batch_is_done_once() {
    let mut scheduler = busy();
    scheduler.batch_done(at(13), WORKER);
    scheduler.batch_done(at(13), WORKER);
}

#[test]
#[should_panic(expected = "it is Idle")]
fn an_idle_worker_has_no_batch_to_abandon() {
    scheduler(settings(), 1).batch_abandoned(WORKER);
}

#[test]
#[should_panic(expected = "is given a next batch, but is Idle")]
fn an_idle_worker_has_no_next_batch() {
    scheduler(settings(), 1).workers.stage(WORKER, RUN);
}

#[test]
#[should_panic(expected = "is given a next batch, but is Busy")]
fn a_worker_has_one_next_batch() {
    staged().workers.stage(WORKER, RUN);
}

#[test]
#[should_panic(expected = "JobId(2) is submitted once more")]
fn a_job_is_submitted_once() {
    let mut scheduler = busy();
    scheduler.submit(at(1), &[image(2)]).unwrap();
    let _ = scheduler.submit(at(1), &[text(2, 10)]);
}

#[test]
#[should_panic(expected = "JobId(1) is queued twice")]
fn a_job_is_queued_once() {
    let mut queue = Queue::default();
    queue.push(at(0), at(1), image(1));
    queue.push(at(0), at(2), image(1));
}
