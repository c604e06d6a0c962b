//! The batcher against a bare loop of the same engine.

use std::time::Duration;

use clap::Parser;
use clipd::app;
use clipd::batcher::{Batcher, OpenEngine, Row};
use clipd::class::Class;
use clipd::clip::row::ImageRow;
use clipd::clock::{Clock, Timestamp};
use clipd::config::Config;
use clipd::config::flags::{Cli, Command};
use clipd::engine::{Batch, Engine};

use crate::bench::{MAX_BATCH, PACE, batcher, millis, percentile, row, settings, spinning};

const ROUNDS: usize = 5;
/// Per round and arm.
const SPAN: Duration = Duration::from_secs(2);

/// Rows per second with plenty outstanding, the two arms in turns.
pub(crate) fn throughput() {
    println!("| engine | raw, rows/s | through the batcher, rows/s | ratio, median (least to most) |");
    println!("|---|---|---|---|");
    let clock = Clock::start();
    compare("spinning", clock, spinning(clock, PACE), spinning(clock, PACE), row());
    let pixels = ImageRow(vec![120; 64 * 64 * 3].into());
    compare("embedded model", clock, embedded(), embedded(), Row::Image(pixels));
}

fn compare(name: &str, clock: Clock, raw: OpenEngine, served: OpenEngine, row: Row) {
    let Row::Image(pixels) = &row else { panic!("images are compared") };
    let mut raw = raw().expect("the engine opens");
    // Whatever batch is best for the bare engine.
    let sizes = [1, 2, 4, 8, MAX_BATCH].map(|rows| Batch::Images(vec![pixels.clone(); rows]));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("threads start");
    let batcher = runtime.block_on(batcher(clock, settings(), served, pixels.0.len()));
    let mut ratios = Vec::new();
    let (mut best_raw, mut best_served) = (0.0, 0.0);
    for _ in 0..ROUNDS {
        let best = sizes.iter().map(|batch| rows_per_second(clock, &mut *raw, batch)).fold(0.0, f64::max);
        let served = runtime.block_on(saturated(clock, &batcher, &row));
        ratios.push(served / best);
        best_raw = f64::max(best_raw, best);
        best_served = f64::max(best_served, served);
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "| {name} | {best_raw:.0} | {best_served:.0} | {:.3} ({:.3} to {:.3}) |",
        ratios[ROUNDS / 2],
        ratios[0],
        ratios[ROUNDS - 1]
    );
    batcher.drain();
}

fn rows_per_second(clock: Clock, engine: &mut dyn Engine, batch: &Batch) -> f64 {
    let (start, mut rows) = (clock.now(), 0);
    while clock.now().since(start) < SPAN / 5 {
        engine.run(batch).expect("the engine runs");
        rows += batch.rows();
    }
    rows as f64 / clock.now().since(start).as_secs_f64()
}

/// Four full batches are outstanding all the time.
async fn saturated(clock: Clock, batcher: &Batcher, row: &Row) -> f64 {
    let (handle, start) = (batcher.handle(), clock.now());
    let callers = (0..4 * MAX_BATCH).map(|_| {
        let (handle, row) = (handle.clone(), row.clone());
        tokio::spawn(async move {
            let mut done = 0;
            while clock.now().since(start) < SPAN {
                let tickets = handle
                    .submit(vec![row.clone()], Class::Interactive, Timestamp::MAX)
                    .expect("there is room");
                for ticket in tickets {
                    ticket.await.expect("the job is done");
                    done += 1;
                }
            }
            done
        })
    });
    let mut rows = 0;
    for caller in callers.collect::<Vec<_>>() {
        rows += caller.await.expect("callers do not panic");
    }
    rows as f64 / clock.now().since(start).as_secs_f64()
}

/// One row at a time, bare and through the batcher in turns: what the way there and back adds.
pub(crate) fn idle_latency() {
    const PAIRS: usize = 2_000;
    println!("| engine | added, p50 | added, p99 |");
    println!("|---|---|---|");
    let clock = Clock::start();
    let pixels = ImageRow(vec![120; 64 * 64 * 3].into());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("threads start");
    let mut bare = embedded()().expect("the engine opens");
    let batch = Batch::Images(vec![pixels.clone()]);
    let mut added: Vec<Duration> = runtime.block_on(async {
        let batcher = batcher(clock, settings(), embedded(), pixels.0.len()).await;
        let handle = batcher.handle();
        let mut added = Vec::new();
        for _ in 0..PAIRS {
            let start = clock.now();
            bare.run(&batch).expect("the engine runs");
            let alone = clock.now().since(start);
            let start = clock.now();
            let tickets = handle
                .submit(vec![Row::Image(pixels.clone())], Class::Interactive, Timestamp::MAX)
                .expect("there is room");
            for ticket in tickets {
                ticket.await.expect("the job is done");
            }
            added.push(clock.now().since(start).saturating_sub(alone));
        }
        batcher.drain();
        added
    });
    let (p50, p99) = (percentile(&mut added, 0.5), percentile(&mut added, 0.99));
    println!("| embedded model | {:.3} ms | {:.3} ms |", millis(p50), millis(p99));
}

/// The engine that `serve` would run on the CPU.
fn embedded() -> OpenEngine {
    let Ok(Cli { command: Command::Serve(flags), .. }) =
        Cli::try_parse_from(["clipd", "serve", "--device=cpu"])
    else {
        panic!("the flags are right")
    };
    let config = Config::from_flags(&flags).expect("the configuration is right");
    let mut served = app::load(&config).expect("the model loads");
    served.engines.remove(0)
}
