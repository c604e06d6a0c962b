//! The batch that is put together while another one runs.

use super::*;

/// One warm worker with two inputs, whose gate holds a batch of one row.
async fn held() -> (Bench, Vec<Ticket>) {
    let bench = Bench::warm(|dim, gate| SyntheticEngine::gated(dim, gate).staging()).await;
    bench.gate.close();
    let running = bench.submit(1);
    bench.gate.wait_started(1);
    (bench, running)
}

/// The gate holds the first of them, so the others are staged.
async fn until_batches(bench: &Bench, batches: usize) {
    let closed = || {
        let text = bench.metrics.render();
        let samples = text.lines().filter(|line| line.starts_with("clip_batches_total{"));
        samples.map(|line| line.rsplit_once(' ').unwrap().1.parse::<usize>().unwrap()).sum::<usize>()
    };
    while closed() < batches {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn it_runs_when_the_worker_is_free() {
    let (bench, running) = held().await;
    let staged = bench.submit(2);
    until_batches(&bench, 2).await;
    let waiting = bench.submit(8);
    bench.gate.open_again();
    for tickets in [running, staged, waiting] {
        assert!(resolve(tickets).await.iter().all(Result::is_ok));
    }
    assert_eq!(bench.outcomes(), [11, 0, 0, 0, 0]);
}

#[tokio::test]
async fn a_job_whose_deadline_passes_meanwhile_does_not_start() {
    let (bench, running) = held().await;
    let soon = bench.clock.now().saturating_add(Duration::from_millis(30));
    let rows = vec![image(1), image(2)];
    let late = bench.batcher.handle().submit(rows, Class::Interactive, soon, None).unwrap();
    let patient = bench.submit(1);
    until_batches(&bench, 2).await;
    while bench.clock.now() <= soon {
        tokio::task::yield_now().await;
    }
    bench.gate.open_again();
    assert!(resolve(running).await[0].is_ok());
    assert_eq!(resolve(late).await, vec![Err(JobError::Expired); 2]);
    assert_eq!(resolve(patient).await, resolve(bench.submit(1)).await, "the same row, the same embedding");
    assert_eq!(bench.outcomes(), [3, 2, 0, 0, 0]);
}

#[tokio::test]
async fn a_lost_worker_answers_it() {
    let (bench, running) = held().await;
    bench.gate.panic_next();
    let staged = bench.submit(2);
    until_batches(&bench, 2).await;
    let waiting = bench.submit(3);
    bench.gate.open_again();
    for tickets in [running, staged, waiting] {
        let rows = tickets.len();
        assert_eq!(resolve(tickets).await, vec![Err(JobError::WorkerLost); rows]);
    }
    assert_eq!(bench.outcomes(), [0, 0, 0, 0, 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_it() {
    let (bench, running) = held().await;
    let staged = bench.submit(2);
    until_batches(&bench, 2).await;
    let Bench { batcher, gate, .. } = bench;
    let drained = std::thread::spawn(move || batcher.drain());
    gate.open_again();
    for tickets in [running, staged] {
        assert!(resolve(tickets).await.iter().all(Result::is_ok));
    }
    drained.join().unwrap();
}
