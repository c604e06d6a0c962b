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

/// Turns of both arms.
const ROUNDS: usize = 25;
/// Of one arm in a turn. The first and the last batches through the batcher are small, so it is many batches long.
const SPAN: Duration = Duration::from_secs(1);

/// Rows per second with plenty outstanding, the two arms in turns.
pub(crate) fn throughput() {
    println!("| engine | raw, rows/s | through the batcher, rows/s | ratio, median (least to most) |");
    println!("|---|---|---|---|");
    let clock = Clock::start();
    compare("spinning", clock, spinning(clock, PACE), spinning(clock, PACE), image());
    let pixels = ImageRow(vec![120; 64 * 64 * 3].into());
    // With a thread for every core there is none left for the batcher and its callers, which the bare loop lacks.
    for (name, flags) in [("embedded model", &[][..]), ("embedded model, one thread", &["--threads=1"])] {
        compare(name, clock, embedded(flags), embedded(flags), Row::Image(pixels.clone()));
    }
}

fn compare(name: &str, clock: Clock, raw: OpenEngine, served: OpenEngine, row: Row) {
    let Row::Image(pixels) = &row else { panic!("images are compared") };
    let mut raw = raw.open().expect("the engine opens");
    let sizes = [1, 2, 4, 8, MAX_BATCH].map(|rows| Batch::Images(vec![pixels.clone(); rows]));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("threads start");
    let batcher = runtime.block_on(batcher(clock, settings(), served, pixels.0.len()));
    let mut rates = sizes.each_ref().map(|_| Vec::new());
    for _ in 0..5 {
        for (rates, batch) in rates.iter_mut().zip(&sizes) {
            rates.push(rows_per_second(clock, &mut *raw, batch, SPAN / 5));
        }
    }
    let speed = |size: &usize| median(&rates[*size]);
    let best = (0..sizes.len()).max_by(|a, b| speed(a).total_cmp(&speed(b))).expect("there are sizes");
    let (mut bare, mut through, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let alone = rows_per_second(clock, &mut *raw, &sizes[best], SPAN);
        let served = runtime.block_on(saturated(clock, &batcher, &row));
        bare.push(alone);
        through.push(served);
        ratios.push(served / alone);
    }
    println!(
        "| {name} | {:.0} in batches of {} | {:.0} | {:.3} ({:.3} to {:.3}) |",
        median(&bare),
        sizes[best].rows(),
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

fn rows_per_second(clock: Clock, engine: &mut dyn Engine, batch: &Batch, span: Duration) -> f64 {
    let mut input = engine.input().expect("there is memory");
    let (start, mut rows) = (clock.now(), 0);
    while clock.now().since(start) < span {
        input.fill(batch);
        engine.run(&input).expect("the engine runs");
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
    let mut bare = embedded(&[]).open().expect("the engine opens");
    let batch = Batch::Images(vec![pixels.clone()]);
    let mut input = bare.input().expect("there is memory");
    let mut added: Vec<Duration> = runtime.block_on(async {
        let batcher = batcher(clock, settings(), embedded(&[]), pixels.0.len()).await;
        let handle = batcher.handle();
        let mut added = Vec::new();
        for _ in 0..PAIRS {
            let start = clock.now();
            input.fill(&batch);
            bare.run(&input).expect("the engine runs");
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

/// The engine that `serve` would run on the CPU, with more flags.
fn embedded(flags: &[&str]) -> OpenEngine {
    let arguments = ["clipd", "serve", "--device=cpu"].iter().chain(flags);
    let Ok(Cli { command: Command::Serve(flags), .. }) = Cli::try_parse_from(arguments) else {
        panic!("the flags are right")
    };
    let config = Config::from_flags(&flags).expect("the configuration is right");
    let mut served = app::load::load(&config).expect("the model loads");
    served.engines.remove(0)
}
