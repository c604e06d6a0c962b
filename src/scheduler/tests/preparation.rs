//! Who is prepared next, and who is refused or dropped.

use super::*;
use crate::scheduler::preparation::{Place, Preparation, Request, Step};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn line(threads: usize) -> Preparation {
    Preparation::new(NonZeroUsize::new(threads).unwrap(), ms(500), ms(3000))
}

/// One input that takes 10 ms at a pace of 1.
fn request(class: Class, deadline: u64) -> Request<'static> {
    const EFFORTS: &[Duration] = &[Duration::from_millis(10)];
    Request { efforts: EFFORTS, class, deadline: at(deadline) }
}

fn join(line: &mut Preparation, now: u64, class: Class, deadline: u64) -> Place {
    line.join(at(now), &request(class, deadline))[0]
}

/// Runs what starts at `now`, one after the other, for `took` ms each; returns the order.
fn run(line: &mut Preparation, now: u64, took: u64) -> Vec<Step> {
    let mut now = at(now);
    let mut steps = Vec::new();
    while let Some(step) = line.next(now, ms(0)) {
        if let Step::Start(place) = step {
            now = now.saturating_add(ms(took));
            line.done(now, place);
        }
        steps.push(step);
    }
    steps
}

#[test]
fn the_most_urgent_goes_first() {
    let mut line = line(1);
    let bulk = join(&mut line, 0, Class::Bulk, 60_000);
    let patient = join(&mut line, 0, Class::Interactive, 60_000);
    let later = join(&mut line, 1, Class::Interactive, 60_000);
    let urgent = join(&mut line, 2, Class::Interactive, 200);
    assert_eq!(run(&mut line, 3, 10), [urgent, patient, later, bulk].map(Step::Start));
}

#[test]
fn a_large_request_lets_others_in_between() {
    let mut line = line(1);
    let large = Request { efforts: &[ms(10); 3], ..request(Class::Interactive, 60_000) };
    let [first, second, third] = line.join(at(0), &large).try_into().unwrap();
    let single = join(&mut line, 5, Class::Interactive, 60_000);
    assert_eq!(run(&mut line, 5, 10), [first, single, second, third].map(Step::Start));
}

/// Whether a request with `timeout` ms is admitted behind two that take 10 ms on one thread.
#[track_caller]
fn check_admission(timeout: u64, class: Class, refused_by: Option<u64>) {
    let mut line = line(1);
    for _ in 0..2 {
        join(&mut line, 0, Class::Interactive, 30);
    }
    let answer = line.admit(at(0), &request(class, timeout), ms(0));
    let refusal = refused_by.map(|millis| Rejection::TooLate { retry_after: ms(millis) });
    assert_eq!(answer.err(), refusal, "{class:?} within {timeout} ms");
}

#[test]
fn what_would_be_ready_too_late_is_refused() {
    // 30 ms, of 0.8 x 35 = 28 and 0.8 x 40 = 32.
    check_admission(35, Class::Interactive, Some(2));
    check_admission(40, Class::Interactive, None);
    check_admission(40, Class::Bulk, None);
    // It overtakes the others, and is alone.
    check_admission(20, Class::Interactive, None);
    check_admission(10, Class::Interactive, Some(2));
}

#[test]
fn an_attempt_that_costs_nobody_anything_is_made_and_learned_from() {
    let mut line = line(2);
    let place = line.admit(at(0), &request(Class::Interactive, 1), ms(0)).unwrap()[0];
    assert_eq!(line.next(at(0), ms(0)), Some(Step::Start(place)));
    assert_eq!(line.completion(at(0), &request(Class::Interactive, 100)), ms(15), "5 until a thread is free");
    line.done(at(40), place);
    assert_eq!(line.completion(at(40), &request(Class::Interactive, 100)), ms(40));
}

#[test]
fn a_failure_frees_its_thread_and_teaches_nothing() {
    let mut line = line(1);
    let broken = join(&mut line, 0, Class::Interactive, 1000);
    let next = join(&mut line, 0, Class::Interactive, 1000);
    assert_eq!(line.next(at(0), ms(0)), Some(Step::Start(broken)));
    assert_eq!(line.next(at(0), ms(0)), None);
    line.leave(broken);
    assert_eq!(line.next(at(0), ms(0)), Some(Step::Start(next)));
    line.leave(next);
    assert_eq!(line.completion(at(0), &request(Class::Interactive, 1000)), ms(10));
}

#[test]
fn what_cannot_be_ready_in_time_is_dropped_for_who_can() {
    let mut line = line(1);
    let [late, in_time, alone, expired] =
        [9, 10, 19, 20].map(|deadline| join(&mut line, 0, Class::Interactive, deadline));
    assert_eq!(line.next(at(0), ms(0)), Some(Step::Drop(late)));
    assert_eq!(line.next(at(0), ms(0)), Some(Step::Start(in_time)));
    line.done(at(10), in_time);
    line.leave(expired);
    assert_eq!(line.next(at(10), ms(0)), Some(Step::Start(alone)), "an attempt");
    line.done(at(20), alone);
    let expired = join(&mut line, 20, Class::Interactive, 20);
    assert_eq!(line.next(at(20), ms(0)), Some(Step::Drop(expired)));
}
