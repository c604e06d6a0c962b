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
use clipd::engine::buckets::Buckets;
use clipd::engine::input::Input;
use clipd::engine::synthetic::Pace;
use clipd::engine::{Batch, Description, Engine, EngineError};
use ndarray::Array2;

use crate::bench::{MAX_BATCH, PACE, batcher, image, millis, percentile, settings, spinning};

/// Turns of both arms.
const ROUNDS: usize = 5;
/// Of one arm in a turn. The first and the last batches through the batcher are small, so it is many batches long.
const SPAN: Duration = Duration::from_secs(1);

/// Rows per second with plenty outstanding, the arms in turns: a bare loop on an input that is ready, and the batcher,
/// whose next batch is put together when the engine is idle, or while it runs.
pub(crate) fn throughput() {
    println!("| engine | raw, rows/s | put together when idle / raw | put together before / raw |");
    println!("|---|---|---|---|");
    let clock = Clock::start();
    compare("spinning", clock, || spinning(clock, PACE), &image());
    // Sixteen rows take half a millisecond to copy.
    let large = Row::Image(ImageRow(vec![7; 320_000].into()));
    compare("spinning, rows of 320 kB", clock, || spinning(clock, PACE), &large);
    let short = Pace { per_batch: PACE.per_batch / 4, per_row: PACE.per_row / 4 };
    compare("spinning, a quarter as long", clock, || spinning(clock, short), &large);
    let pixels = ImageRow(vec![120; 64 * 64 * 3].into());
    // With a thread for every core there is none left for the batcher and its callers, which the bare loop lacks.
    for (name, flags) in [("embedded model", &[][..]), ("embedded model, one thread", &["--threads=1"])] {
        compare(name, clock, || embedded(flags), &Row::Image(pixels.clone()));
    }
}

/// An engine that is told whether its next input is put together while one runs.
struct Told {
    engine: Box<dyn Engine>,
    stages: bool,
}

impl Engine for Told {
    fn input(&mut self) -> Result<Input, EngineError> {
        self.engine.input()
    }

    fn run(&mut self, input: &Input) -> Result<Array2<f32>, EngineError> {
        self.engine.run(input)
    }

    fn buckets(&self) -> Option<&Buckets> {
        self.engine.buckets()
    }

    fn stages(&self) -> bool {
        self.stages
    }

    fn description(&self) -> &Description {
        self.engine.description()
    }
}

fn compare(name: &str, clock: Clock, engine: impl Fn() -> OpenEngine, row: &Row) {
    let Row::Image(pixels) = row else { panic!("images are compared") };
    let mut raw = engine().open().expect("the engine opens");
    let sizes = [1, 2, 4, 8, MAX_BATCH].map(|rows| Batch::Images(vec![pixels.clone(); rows]));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("threads start");
    let batchers = [false, true].map(|stages| {
        let engine = engine();
        let told = OpenEngine::new("cpu", move || Ok(Told { engine: engine.open()?, stages }));
        runtime.block_on(batcher(clock, settings(), told, pixels.0.len()))
    });
    let mut rates = sizes.each_ref().map(|_| Vec::new());
    for _ in 0..5 {
        for (rates, batch) in rates.iter_mut().zip(&sizes) {
            rates.push(rows_per_second(clock, &mut *raw, batch, SPAN / 5));
        }
    }
    let speed = |size: &usize| median(&rates[*size]);
    let best = (0..sizes.len()).max_by(|a, b| speed(a).total_cmp(&speed(b))).expect("there are sizes");
    let (mut bare, mut ratios) = (Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..ROUNDS {
        let alone = rows_per_second(clock, &mut *raw, &sizes[best], SPAN);
        bare.push(alone);
        for (ratios, batcher) in ratios.iter_mut().zip(&batchers) {
            ratios.push(runtime.block_on(saturated(clock, batcher, row)) / alone);
        }
    }
    let [idle, before] = ratios.map(|ratios| {
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        format!("{:.3} ({least:.3} to {most:.3})", median(&ratios))
    });
    println!("| {name} | {:.0} in batches of {} | {idle} | {before} |", median(&bare), sizes[best].rows());
    batchers.into_iter().for_each(Batcher::drain);
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn rows_per_second(clock: Clock, engine: &mut dyn Engine, batch: &Batch, span: Duration) -> f64 {
    let mut input = engine.input().expect("there is memory");
    input.fill(batch).expect("it fits");
    let (start, mut rows) = (clock.now(), 0);
    while clock.now().since(start) < span {
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
                    .submit(vec![row.clone()], Class::Interactive, Timestamp::MAX, None)
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
            input.fill(&batch).expect("it fits");
            bare.run(&input).expect("the engine runs");
            let alone = clock.now().since(start);
            let start = clock.now();
            let tickets = handle
                .submit(vec![Row::Image(pixels.clone())], Class::Interactive, Timestamp::MAX, None)
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
