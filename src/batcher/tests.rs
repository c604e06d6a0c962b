//! The shell against a gated engine: every ticket resolves, and every job is counted once.

mod staging;

use std::num::NonZeroUsize;

use super::*;
use crate::engine::synthetic::{Gate, SyntheticEngine};
use crate::modality::ByModality;
use crate::scheduler::Rejection;

const DIM: usize = 4;

pub(super) struct Bench {
    batcher: Batcher,
    gate: Gate,
    clock: Clock,
    metrics: Metrics,
}

impl Bench {
    pub(super) fn settings() -> Settings {
        Settings {
            max_batch_size: ByModality::both(NonZeroUsize::new(4).unwrap()),
            max_batch_tokens: NonZeroUsize::MAX,
            max_queue_delay: Duration::ZERO,
            max_queue_size: 8,
            interactive_target: Duration::from_millis(500),
            bulk_target: Duration::from_secs(1),
        }
    }

    /// One warm worker behind an open gate.
    async fn start() -> Bench {
        Bench::warm(SyntheticEngine::gated).await
    }

    async fn warm(engine: impl FnOnce(usize, Gate) -> SyntheticEngine) -> Bench {
        let gate = Gate::open();
        let bench = Bench::with(engine(DIM, gate.clone()), gate);
        bench.batcher.workers().wait_for(|workers| workers.counts.ready == 1).await.unwrap();
        bench
    }

    fn cold(gate: Gate) -> Bench {
        Bench::with(SyntheticEngine::gated(DIM, gate.clone()), gate)
    }

    fn with(engine: SyntheticEngine, gate: Gate) -> Bench {
        let (clock, metrics) = (Clock::start(), Metrics::new());
        let engine = OpenEngine::new("cpu", move || Ok(engine));
        let batcher = Batcher::start(options(clock, &metrics), vec![engine]).unwrap();
        Bench { batcher, gate, clock, metrics }
    }

    fn submit(&self, rows: usize) -> Vec<Ticket> {
        self.submit_by(rows, Timestamp::MAX)
    }

    fn submit_by(&self, rows: usize, deadline: Timestamp) -> Vec<Ticket> {
        let rows = (0..rows).map(|row| image(row as u8)).collect();
        self.batcher.handle().submit(rows, Class::Interactive, deadline, None).unwrap()
    }

    fn outcomes(&self) -> [u64; 5] {
        outcomes(&self.metrics)
    }
}

pub(super) fn options(clock: Clock, metrics: &Metrics) -> Options {
    Options {
        settings: Bench::settings(),
        text_lengths: vec![8],
        image_row_bytes: 12,
        clock,
        metrics: metrics.clone(),
        workers: watch::Sender::default(),
    }
}

/// `completed`, `expired`, `cancelled`, `rejected`, `failed`.
pub(super) fn outcomes(metrics: &Metrics) -> [u64; 5] {
    let text = metrics.render();
    ["completed", "expired", "cancelled", "rejected", "failed"].map(|outcome| {
        let sample = format!("clip_jobs_total{{outcome=\"{outcome}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&sample)).map_or(0, |value| value.parse().unwrap())
    })
}

/// What the threads of a batcher of one device share, for a test of one of them.
pub(super) fn shared() -> Arc<Shared> {
    let metrics = Metrics::new();
    Arc::new(Shared {
        clock: Clock::start(),
        next_id: AtomicU64::new(0),
        outlook: watch::Sender::new(Scheduler::new(Bench::settings(), &[DeviceId(0)]).outlook()),
        costs: watch::Sender::default(),
        devices: vec!["cpu".to_owned()],
        outcomes: Outcomes::new(&metrics),
        metrics,
    })
}

/// An image that nobody hurries, and where its answer arrives.
pub(super) fn submission(id: u64) -> (Submission, oneshot::Receiver<Result<Embedded, JobError>>) {
    let (reply, receiver) = oneshot::channel();
    let (row, deadline) = (image(0), Timestamp::MAX);
    let (modality, tokens, class) = (row.modality(), row.tokens(), Class::Interactive);
    let job = Job { id: JobId(id), modality, tokens, class, deadline };
    let answer = Answer { arrival: Timestamp::default(), deadline, span: None, reply };
    (Submission { job, payload: Payload { row, answer } }, receiver)
}

fn image(seed: u8) -> Row {
    Row::Image(ImageRow(vec![seed; 12].into()))
}

fn text(length: usize) -> Row {
    Row::Text(TokenRow(vec![1; length].into()))
}

async fn resolve(tickets: Vec<Ticket>) -> Vec<Result<Vec<f32>, JobError>> {
    let outcomes = futures_util::future::join_all(tickets).await;
    outcomes.into_iter().map(|outcome| outcome.map(|embedded| embedded.values)).collect()
}

#[tokio::test]
async fn rows_of_both_modalities_come_back_to_their_tickets() {
    let bench = Bench::start().await;
    let rows = vec![image(1), text(3), image(2), text(5), image(1)];
    let tickets = bench.batcher.handle().submit(rows, Class::Interactive, Timestamp::MAX, None).unwrap();
    let values: Vec<Vec<f32>> = resolve(tickets).await.into_iter().map(Result::unwrap).collect();
    assert!(values.iter().all(|values| values.len() == DIM));
    assert_eq!(values[0], values[4], "the same row has the same embedding in another batch");
    let different = [0, 1, 2, 3];
    for a in different {
        for b in different {
            assert_eq!(values[a] == values[b], a == b, "{a} {b}");
        }
    }
    assert_eq!(bench.outcomes(), [5, 0, 0, 0, 0]);
}

#[tokio::test]
async fn more_than_the_queue_holds_is_rejected_whole() {
    let bench = Bench::start().await;
    bench.gate.close();
    let running = bench.submit(1);
    bench.gate.wait_started(1);
    let waiting = bench.submit(6);
    let refused = resolve(bench.submit(3)).await;
    for outcome in refused {
        let Err(JobError::Rejected(Rejection::QueueFull { .. })) = outcome else { panic!("{outcome:?}") };
    }
    bench.gate.open_again();
    assert!(resolve(running).await.iter().all(Result::is_ok));
    assert!(resolve(waiting).await.iter().all(Result::is_ok));
    assert_eq!(bench.outcomes(), [7, 0, 0, 3, 0]);
}

#[tokio::test]
async fn an_expired_job_is_answered_while_the_worker_is_busy() {
    let bench = Bench::start().await;
    bench.gate.close();
    let running = bench.submit(1);
    bench.gate.wait_started(1);
    let soon = bench.clock.now().saturating_add(Duration::from_millis(20));
    assert_eq!(resolve(bench.submit_by(2, soon)).await, vec![Err(JobError::Expired); 2]);
    bench.gate.open_again();
    assert!(resolve(running).await[0].is_ok());
    assert_eq!(bench.outcomes(), [1, 2, 0, 0, 0]);
}

#[tokio::test]
async fn a_dropped_ticket_cancels_its_job_and_frees_its_place() {
    let bench = Bench::start().await;
    bench.gate.close();
    let running = bench.submit(1);
    bench.gate.wait_started(1);
    drop(bench.submit(8));
    let waiting = bench.submit(8);
    bench.gate.open_again();
    assert!(resolve(running).await[0].is_ok());
    assert!(resolve(waiting).await.iter().all(Result::is_ok), "there was room for all eight");
    assert_eq!(bench.outcomes(), [9, 0, 8, 0, 0]);
}

#[tokio::test]
async fn a_ticket_dropped_during_its_batch_does_no_harm() {
    let bench = Bench::start().await;
    bench.gate.close();
    let running = bench.submit(2);
    bench.gate.wait_started(1);
    drop(running);
    bench.gate.open_again();
    assert!(resolve(bench.submit(1)).await[0].is_ok());
    assert_eq!(bench.outcomes(), [3, 0, 0, 0, 0]);
}

#[tokio::test]
async fn a_failed_batch_fails_its_jobs_only() {
    let bench = Bench::start().await;
    bench.gate.fail_next();
    let Err(JobError::Failed(cause)) = &resolve(bench.submit(1)).await[0] else { panic!() };
    assert!(cause.contains("made this batch fail"), "{cause}");
    assert!(resolve(bench.submit(1)).await[0].is_ok());
    assert_eq!(bench.outcomes(), [1, 0, 0, 0, 1]);
}

#[tokio::test]
async fn a_worker_that_fails_again_and_again_is_lost() {
    let bench = Bench::start().await;
    for _ in 0..3 {
        bench.gate.fail_next();
        assert!(resolve(bench.submit(1)).await[0].is_err());
    }
    let mut workers = bench.batcher.workers();
    let lost = workers.wait_for(|workers| workers.counts.lost == 1).await.unwrap();
    assert!(lost.last_error.as_ref().unwrap().contains("3 batches failed in a row"), "{lost:?}");
}

#[tokio::test]
async fn a_lost_worker_answers_its_batch_and_what_waits() {
    let bench = Bench::start().await;
    bench.gate.close();
    bench.gate.panic_next();
    let running = bench.submit(1);
    bench.gate.wait_started(1);
    let waiting = bench.submit(3);
    bench.gate.open_again();
    assert_eq!(resolve(running).await, vec![Err(JobError::WorkerLost)]);
    assert_eq!(resolve(waiting).await, vec![Err(JobError::WorkerLost); 3]);
    let after = resolve(bench.submit(1)).await;
    assert_eq!(after, vec![Err(JobError::Rejected(Rejection::NoWorker))]);
    assert_eq!(bench.outcomes(), [0, 0, 0, 1, 4]);
}

#[tokio::test]
async fn a_cold_batcher_refuses() {
    let gate = Gate::open();
    gate.close();
    let bench = Bench::cold(gate);
    assert_eq!(resolve(bench.submit(1)).await, vec![Err(JobError::Rejected(Rejection::Starting))]);
    bench.gate.open_again();
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_answers_everything_and_joins() {
    let bench = Bench::start().await;
    bench.gate.close();
    let running = bench.submit(1);
    bench.gate.wait_started(1);
    let waiting = bench.submit(7);
    let handle = bench.batcher.handle();
    let metrics = bench.metrics.clone();
    let drained = std::thread::spawn(move || bench.batcher.drain());
    bench.gate.open_again();
    assert!(resolve(running).await[0].is_ok());
    assert!(resolve(waiting).await.iter().all(Result::is_ok));
    drained.join().unwrap();
    let late = handle.submit(vec![image(0)], Class::Interactive, Timestamp::MAX, None);
    assert_eq!(late.unwrap_err(), JobError::Rejected(Rejection::Draining));
    assert!(metrics.render().contains("clip_queue_rows{modality=\"image\"} 0"));
}
