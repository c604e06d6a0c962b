//! The engines of one server, as its workers have them: each on a thread of its own.
//!
//! It times what it is told to run; which batches are worth running is the caller's choice.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;

use super::Error;
use crate::app;
use crate::batcher::OpenEngine;
use crate::clip::image::ImagePreprocessor;
use crate::clip::text::TextTokenizer;
use crate::clock::Clock;
use crate::config::Config;
use crate::cpu_time::process_cpu;
use crate::engine::{Batch, Description, Engine, EngineError};

/// How the cores are shared out: `workers` sessions of `threads` threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Layout {
    pub(super) workers: NonZeroUsize,
    pub(super) threads: NonZeroUsize,
}

impl Layout {
    pub(super) fn of(config: &Config) -> Layout {
        Layout { workers: config.workers_per_device, threads: config.threads }
    }
}

/// Opened engines. Dropping it ends their threads and gives their memory back.
pub(super) struct Bank {
    pub(super) layout: Layout,
    pub(super) description: Description,
    workers: Vec<EngineThread>,
}

/// What a model makes rows with.
pub(super) struct Preprocessing {
    pub(super) images: ImagePreprocessor,
    texts: Option<TextTokenizer>,
    /// Height and width of the model's pictures.
    pub(super) size: [u32; 2],
}

/// One run of a batch size, by all workers at the same time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) rows_per_second: f64,
    pub(super) batch_seconds: f64,
    /// Of the whole process, all threads of the engines included.
    pub(super) cpu_seconds_per_row: f64,
}

/// Runs `batch` again and again, at least once, until `at_least` has passed.
struct Order {
    batch: Arc<Batch>,
    at_least: Duration,
}

struct Done {
    batches: usize,
    elapsed: Duration,
}

struct EngineThread {
    /// Dropped to end the thread.
    orders: Option<SyncSender<Order>>,
    results: Receiver<Result<Done, String>>,
    thread: Option<JoinHandle<()>>,
}

impl Preprocessing {
    pub(super) fn texts(&self) -> Result<&TextTokenizer, Error> {
        self.texts.as_ref().ok_or_else(|| Error::Other("the model has no text encoder".to_owned()))
    }
}

impl Bank {
    /// Loads the model of `config` and opens its engines with `layout`.
    pub(super) fn open(config: &Config, layout: Layout) -> Result<(Bank, Preprocessing), Error> {
        let config = Config { workers_per_device: layout.workers, threads: layout.threads, ..config.clone() };
        let served = app::load::load(&config)?;
        let tokenizer = |spec| TextTokenizer::new(&served.tokenizer_json, spec, config.limits.text_bytes);
        let preprocessing = Preprocessing {
            size: [served.spec.image.height, served.spec.image.width],
            images: ImagePreprocessor::new(served.spec.image, config.image_limits),
            texts: served.spec.text.as_ref().map(tokenizer).transpose().map_err(app::StartError::from)?,
        };
        let clock = Clock::start();
        let mut description = None;
        let mut workers = Vec::new();
        for open in served.engines {
            let (worker, opened) = EngineThread::start(clock, open)?;
            description = Some(opened);
            workers.push(worker);
        }
        let description = description.ok_or_else(|| Error::Other("no worker".to_owned()))?;
        Ok((Bank { layout, description, workers }, preprocessing))
    }

    pub(super) fn run(&self, batch: Batch, at_least: Duration) -> Result<Run, Error> {
        let batch = Arc::new(batch);
        let cpu = process_cpu();
        for worker in &self.workers {
            worker.order(Order { batch: batch.clone(), at_least })?;
        }
        let done: Vec<Done> = self.workers.iter().map(EngineThread::result).collect::<Result<_, _>>()?;
        let cpu = (process_cpu() - cpu).as_secs_f64();
        let batches: usize = done.iter().map(|done| done.batches).sum();
        let busy: f64 = done.iter().map(|done| done.elapsed.as_secs_f64()).sum();
        // Workers end at different times; each is as fast as it was while it ran.
        let rate = |done: &Done| (done.batches * batch.rows()) as f64 / done.elapsed.as_secs_f64();
        Ok(Run {
            rows_per_second: done.iter().map(rate).sum(),
            batch_seconds: busy / batches as f64,
            cpu_seconds_per_row: cpu / (batches * batch.rows()) as f64,
        })
    }
}

impl EngineThread {
    fn start(clock: Clock, open: OpenEngine) -> Result<(EngineThread, Description), Error> {
        let (orders, ordered) = sync_channel::<Order>(1);
        let (result, results) = sync_channel(1);
        let (opened, description) = sync_channel(1);
        let work = move || {
            let mut engine = match open.open() {
                Ok(engine) => engine,
                Err(error) => {
                    let _ = opened.send(Err(error));
                    return;
                }
            };
            let _ = opened.send(Ok(engine.description().clone()));
            for order in ordered {
                let done = run(&mut *engine, &order, clock).map_err(|error| error.to_string());
                let _ = result.send(done);
            }
        };
        let thread = std::thread::Builder::new().name("bench-engine".to_owned()).spawn(work);
        let thread = thread.map_err(|error| Error::Other(format!("cannot start a thread: {error}")))?;
        let worker = EngineThread { orders: Some(orders), results, thread: Some(thread) };
        let description = description.recv().map_err(|_| lost())?.map_err(app::StartError::from)?;
        Ok((worker, description))
    }

    fn order(&self, order: Order) -> Result<(), Error> {
        self.orders.as_ref().and_then(|orders| orders.send(order).ok()).ok_or_else(lost)
    }

    fn result(&self) -> Result<Done, Error> {
        self.results.recv().map_err(|_| lost())?.map_err(Error::Other)
    }
}

impl Drop for EngineThread {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // An error is a panic, which the caller has noticed by the missing result.
            let _ = thread.join();
        }
    }
}

fn run(engine: &mut dyn Engine, order: &Order, clock: Clock) -> Result<Done, EngineError> {
    let mut input = engine.input()?;
    let start = clock.now();
    let mut batches = 0;
    loop {
        // Putting rows together is part of what a batch takes.
        input.fill(&order.batch)?;
        engine.run(&input)?;
        batches += 1;
        let elapsed = clock.now().since(start);
        if elapsed >= order.at_least {
            return Ok(Done { batches, elapsed });
        }
    }
}

fn lost() -> Error {
    Error::Other("an engine's thread ended; the log says why".to_owned())
}
