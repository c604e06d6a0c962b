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

use crate::bench::{MAX_BATCH, PACE, batcher, image, millis, percentile, settings, spinning};

const ROUNDS: usize = 21;
/// Per round and arm.
const SPAN: Duration = Duration::from_millis(500);

/// Rows per second with plenty outstanding, the two arms in turns.
pub(crate) fn throughput() {
    println!("| engine | raw, rows/s | through the batcher, rows/s | ratio, median (least to most) |");
    println!("|---|---|---|---|");
    let clock = Clock::start();
    compare("spinning", clock, spinning(clock, PACE), spinning(clock, PACE), image());
    let pixels = ImageRow(vec![120; 64 * 64 * 3].into());
    compare("embedded model", clock, embedded(), embedded(), Row::Image(pixels));
}

fn compare(name: &str, clock: Clock, raw: OpenEngine, served: OpenEngine, row: Row) {
    let Row::Image(pixels) = &row else { panic!("images are compared") };
    let mut raw = raw().expect("the engine opens");
    let sizes = [1, 2, 4, 8, MAX_BATCH].map(|rows| Batch::Images(vec![pixels.clone(); rows]));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("threads start");
    let batcher = runtime.block_on(batcher(clock, settings(), served, pixels.0.len()));
    let mut bare = sizes.each_ref().map(|_| Vec::new());
    let mut through = Vec::new();
    for _ in 0..ROUNDS {
        for (rates, batch) in bare.iter_mut().zip(&sizes) {
            rates.push(rows_per_second(clock, &mut *raw, batch));
        }
        through.push(runtime.block_on(saturated(clock, &batcher, &row)));
    }
    // The batch that is best for the bare engine, by the medians: the best of all runs would be luck.
    let (rows, best) = sizes
        .iter()
        .zip(&bare)
        .map(|(batch, rates)| (batch.rows(), rates))
        .max_by(|a, b| median(a.1).total_cmp(&median(b.1)))
        .expect("there are sizes");
    let ratios: Vec<f64> = through.iter().zip(best).map(|(through, bare)| through / bare).collect();
    println!(
        "| {name} | {:.0} in batches of {rows} | {:.0} | {:.3} ({:.3} to {:.3}) |",
        median(best),
        median(&through),
        median(&ratios),
        ratios.iter().copied().fold(f64::INFINITY, f64::min),
        ratios.iter().copied().fold(0.0, f64::max),
    );
    batcher.drain();
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn rows_per_second(clock: Clock, engine: &mut dyn Engine, batch: &Batch) -> f64 {
    let (start, mut rows) = (clock.now(), 0);
    while clock.now().since(start) < SPAN / 2 {
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
