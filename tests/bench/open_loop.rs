//! Arrivals that do not wait for answers, timed from when they were meant to be sent.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use clipd::batcher::{Batcher, Handle, JobError, Row};
use clipd::class::Class;
use clipd::clock::{Clock, Timestamp};
use clipd::scheduler::outlook::Arrival;
use clipd::scheduler::{Rejection, Settings};

use crate::bench::{
    MAX_BATCH, PACE, image, mean, millis, percentile, poisson, settings, spinning_batcher, text,
};
use crate::ideal;

const SECONDS: f64 = 8.0;

/// What became of an arrival, and how long after its intended time.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Done(Duration),
    Refused(Duration),
    Late,
}

/// Rows per second at the best batch.
fn capacity() -> f64 {
    MAX_BATCH as f64 / (PACE.per_batch + PACE.per_row * MAX_BATCH as u32).as_secs_f64()
}

/// What is sent, and to which batcher.
struct Load {
    settings: Settings,
    row: Row,
    timeout: Option<Duration>,
    /// Callers who always have an image under way.
    image_clients: usize,
}

impl Load {
    fn of_images(timeout: Option<Duration>) -> Load {
        Load { settings: settings(), row: image(), timeout, image_clients: 0 }
    }
}

/// Sends one row at each of `arrivals`; answers come in the order of arrival.
fn play(load: Load, arrivals: &[Duration]) -> Vec<Outcome> {
    let Load { settings, row, timeout, image_clients } = load;
    let clock = Clock::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("threads start");
    let batcher = runtime.block_on(spinning_batcher(clock, settings));
    let clients: Vec<_> = (0..image_clients).map(|_| runtime.spawn(client(batcher.handle()))).collect();
    let outcomes = Arc::new(Mutex::new(vec![Outcome::Late; arrivals.len()]));
    let start = clock.now().saturating_add(Duration::from_millis(50));
    let mut calls = Vec::new();
    for (index, arrival) in arrivals.iter().enumerate() {
        let intended = start.saturating_add(*arrival);
        wait_until(clock, intended);
        let deadline = timeout.map_or(Timestamp::MAX, |timeout| intended.saturating_add(timeout));
        let (handle, row, outcomes) = (batcher.handle(), row.clone(), outcomes.clone());
        calls.push(runtime.spawn(async move {
            let outcome = call(clock, &handle, row, intended, deadline).await;
            outcomes.lock().expect("no caller panics")[index] = outcome;
        }));
    }
    for call in calls {
        runtime.block_on(call).expect("no caller panics");
    }
    clients.iter().for_each(|client| client.abort());
    Batcher::drain(batcher);
    let outcomes = outcomes.lock().expect("no caller panics");
    outcomes.clone()
}

/// Until it is aborted.
async fn client(handle: Handle) {
    while let Ok(tickets) = handle.submit(vec![image()], Class::Interactive, Timestamp::MAX, None) {
        for ticket in tickets {
            ticket.await.expect("the job is done");
        }
    }
}

async fn call(clock: Clock, handle: &Handle, row: Row, intended: Timestamp, deadline: Timestamp) -> Outcome {
    let arrival = Arrival { modality: row.modality(), rows: 1, class: Class::Interactive, deadline };
    let since = || clock.now().since(intended);
    if handle.refusal(&arrival).is_some() {
        return Outcome::Refused(since());
    }
    let Ok(mut tickets) = handle.submit(vec![row], Class::Interactive, deadline, None) else {
        return Outcome::Refused(since());
    };
    match tickets.remove(0).await {
        Ok(_) if clock.now() <= deadline => Outcome::Done(since()),
        Err(JobError::Rejected(Rejection::TooLate { .. } | Rejection::QueueFull { .. })) => {
            Outcome::Refused(since())
        }
        Ok(_) | Err(_) => Outcome::Late,
    }
}

#[expect(clippy::disallowed_methods, reason = "a load generator keeps to the time")]
fn wait_until(clock: Clock, at: Timestamp) {
    const IMPRECISE: Duration = Duration::from_micros(200);
    let left = at.since(clock.now());
    if left > IMPRECISE {
        std::thread::sleep(left - IMPRECISE);
    }
    while clock.now() < at {
        std::hint::spin_loop();
    }
}

fn done(outcomes: &[Outcome]) -> Vec<Duration> {
    let done = |outcome: &Outcome| if let Outcome::Done(after) = outcome { Some(*after) } else { None };
    outcomes.iter().filter_map(done).collect()
}

pub(crate) fn against_the_ideal() {
    println!("| load | ideal: mean, p99 in ms | clipd: mean, p99 in ms | ratio: mean, p99 |");
    println!("|---|---|---|---|");
    for load in [0.3, 0.6, 0.9] {
        let arrivals = poisson(load * capacity(), SECONDS, 1);
        let mut ideal = ideal::latencies(&arrivals, PACE, MAX_BATCH);
        let mut real = done(&play(Load::of_images(None), &arrivals));
        assert_eq!(real.len(), arrivals.len(), "all were answered");
        let (ideal, real) = (summary(&mut ideal), summary(&mut real));
        println!(
            "| {load} | {:.2}, {:.2} | {:.2}, {:.2} | {:.2}, {:.2} |",
            ideal.0,
            ideal.1,
            real.0,
            real.1,
            real.0 / ideal.0,
            real.1 / ideal.1
        );
    }
}

/// Mean and 99th percentile in milliseconds.
fn summary(times: &mut [Duration]) -> (f64, f64) {
    (millis(mean(times)), millis(percentile(times, 0.99)))
}

/// Baseline at load 0.6, then twice the capacity, then the baseline again.
pub(crate) fn overload() {
    const SLO: Duration = Duration::from_millis(200);
    let span = |rate: f64, from: f64, seed| {
        let arrivals = poisson(rate * capacity(), SECONDS, seed);
        arrivals.into_iter().map(move |at| at + Duration::from_secs_f64(from))
    };
    let arrivals: Vec<Duration> =
        span(0.6, 0.0, 1).chain(span(2.0, SECONDS, 2)).chain(span(0.6, 2.0 * SECONDS, 3)).collect();
    let outcomes = play(Load::of_images(Some(SLO)), &arrivals);
    let between = |from: f64, to: f64| -> Vec<Outcome> {
        let inside = |at: &Duration| (from..to).contains(&at.as_secs_f64());
        arrivals.iter().zip(&outcomes).filter(|(at, _)| inside(at)).map(|(_, outcome)| *outcome).collect()
    };
    let (before, during) = (between(0.0, SECONDS), between(SECONDS, 2.0 * SECONDS));
    let after = between(2.0 * SECONDS + 2.0, 3.0 * SECONDS);
    let refused = |outcome: &Outcome| if let Outcome::Refused(after) = outcome { Some(*after) } else { None };
    let mut refusals: Vec<Duration> = during.iter().filter_map(refused).collect();
    let late = during.iter().filter(|outcome| matches!(outcome, Outcome::Late)).count();
    let goodput = done(&during).len() as f64 / SECONDS;
    let p99 = |outcomes: &[Outcome]| millis(percentile(&mut done(outcomes), 0.99));
    println!("| figure | value |");
    println!("|---|---|");
    println!("| goodput at twice the capacity / capacity | {:.3} |", goodput / capacity());
    println!("| p99 of what was accepted, of an SLO of {} ms | {:.1} ms |", SLO.as_millis(), p99(&during));
    println!("| accepted and late | {late} of {} |", during.len());
    println!("| refused | {}, p99 after {:.2} ms |", refusals.len(), millis(percentile(&mut refusals, 0.99)));
    println!("| p99 at load 0.6 before; from 2 s after | {:.1} ms; {:.1} ms |", p99(&before), p99(&after));
}

/// Now and then a text, while images take all that is left.
pub(crate) fn texts_beside_images() {
    let arrivals = poisson(20.0, 2.0 * SECONDS, 5);
    let load = Load { row: text(), image_clients: 4 * MAX_BATCH, ..Load::of_images(None) };
    let mut latencies = done(&play(load, &arrivals));
    assert_eq!(latencies.len(), arrivals.len(), "all were answered");
    let run = |rows: usize| millis(PACE.per_batch + PACE.per_row * rows as u32);
    let (mean, p99) = summary(&mut latencies);
    println!("| texts | mean | p99 | 1.2 x the longest run of images + 2 x a text |");
    println!("|---|---|---|---|");
    let bound = 1.2 * run(MAX_BATCH) + 2.0 * run(1);
    println!("| {} | {mean:.1} ms | {p99:.1} ms | {bound:.1} ms |", arrivals.len());
}
