//! An engine without a model: embeddings are made from the row's bytes, and a batch takes as long as told.
//!
//! It stands in for [`super::onnx`] where a test or a benchmark needs a certain state or speed: a [`Gate`] holds a
//! batch inside `run`, and makes the next one fail or panic; a [`Pace`] says what batches count as taking, and keeps
//! the thread busy for as long if it is to. It is no measure of accuracy.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ndarray::Array2;

use super::buckets::Buckets;
use super::input::Input;
use super::{Description, Engine, EngineError};
use crate::clock::Clock;
use crate::modality::Modality;

/// Every so many bytes of an image count: an engine that takes no time must not hash for long.
const SAMPLED: usize = 97;

/// Same row, same embedding, whatever the batch.
pub struct SyntheticEngine {
    embed_dim: usize,
    gate: Gate,
    /// What batches count as taking.
    pace: Pace,
    /// Batches really take that long.
    spins: Option<Clock>,
    stages: bool,
    description: Description,
}

/// How long a batch takes: a straight line over its rows.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub per_batch: Duration,
    pub per_row: Duration,
}

/// Of an engine that is said to be fast: rows that wait run together rather than one after the other.
const FAST: Pace = Pace { per_batch: Duration::from_millis(1), per_row: Duration::from_micros(1) };

impl Pace {
    fn of(self, rows: usize) -> Duration {
        self.per_batch + self.per_row * u32::try_from(rows).unwrap_or(u32::MAX)
    }
}

impl SyntheticEngine {
    /// Every batch passes `gate`. It has one input: what is not in the batch that the gate holds waits in the queue.
    pub fn gated(embed_dim: usize, gate: Gate) -> SyntheticEngine {
        let description =
            Description { device: "cpu".into(), engine: "synthetic".into(), precision: "fp32".into() };
        SyntheticEngine { embed_dim, gate, pace: FAST, spins: None, stages: false, description }
    }

    /// The same, whose batches are said to take as long as this.
    pub fn paced(self, pace: Pace) -> SyntheticEngine {
        SyntheticEngine { pace, ..self }
    }

    /// The same, said to be on another device than the CPU.
    pub fn on(mut self, device: &str) -> SyntheticEngine {
        device.clone_into(&mut self.description.device);
        self
    }

    /// The same, with its next batch put together while one runs.
    pub fn staging(self) -> SyntheticEngine {
        SyntheticEngine { stages: true, ..self }
    }

    /// Every batch takes as long as `pace` says, and spends it computing: it does not sleep.
    pub fn spinning(embed_dim: usize, clock: Clock, pace: Pace) -> SyntheticEngine {
        SyntheticEngine { spins: Some(clock), ..SyntheticEngine::gated(embed_dim, Gate::open()).paced(pace) }
    }
}

impl Engine for SyntheticEngine {
    fn input(&mut self) -> Result<Input, EngineError> {
        Ok(Input::new(None, 0))
    }

    fn run(&mut self, input: &Input) -> Result<Array2<f32>, EngineError> {
        let start = self.spins.map(|clock| clock.now());
        self.gate.pass(input.rows())?;
        let seeds = seeds(input);
        let embeddings =
            Array2::from_shape_fn((seeds.len(), self.embed_dim), |(row, column)| element(seeds[row], column));
        if let (Some(start), Some(clock)) = (start, self.spins) {
            let end = start.saturating_add(self.pace.of(input.rows()));
            while clock.now() < end {
                std::hint::spin_loop();
            }
        }
        Ok(embeddings)
    }

    fn declared(&self, input: &Input) -> Option<Duration> {
        Some(self.pace.of(input.rows()))
    }

    fn buckets(&self) -> Option<&Buckets> {
        None
    }

    fn stages(&self) -> bool {
        self.stages
    }

    fn description(&self) -> &Description {
        &self.description
    }
}

/// One per row. What pads a text does not count.
fn seeds(input: &Input) -> Vec<u64> {
    match input.modality() {
        Modality::Image => {
            let rows = input.pixels().chunks(input.pixels().len() / input.rows());
            rows.map(|row| seed(row.iter().copied().step_by(SAMPLED))).collect()
        }
        Modality::Text => {
            let rows = input.ids().chunks(input.ids().len() / input.rows());
            let own = |row: &[i64]| row.iter().rposition(|id| *id != 0).map_or(0, |last| last + 1);
            rows.map(|row| seed(row[..own(row)].iter().flat_map(|id| id.to_le_bytes()))).collect()
        }
    }
}

/// What the numbers of a row are made of.
fn seed(content: impl Iterator<Item = u8>) -> u64 {
    hash(hash(content).to_le_bytes().into_iter())
}

/// FNV-1a.
fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, extended)
}

fn extended(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
}

/// A number between -1 and 1. There are many, and benchmarks want an engine that takes no time.
fn element(seed: u64, column: usize) -> f32 {
    let hash = column.to_le_bytes().into_iter().fold(seed, extended);
    (hash >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
}

/// Holds batches inside an engine. Clones are the same gate.
#[derive(Clone, Default)]
pub struct Gate {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// Batches that pass though it is closed.
    passes: usize,
    /// Batches that have arrived since the gate was closed.
    arrived: usize,
    /// Rows of the batches that are held.
    held_rows: usize,
    next: Next,
}

#[derive(Default)]
enum Next {
    #[default]
    Run,
    Fail,
    Panic,
}

impl Gate {
    /// A gate that lets everything pass.
    pub fn open() -> Gate {
        Gate::default()
    }

    /// Holds every batch that arrives from now on.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.passes = 0;
        state.arrived = 0;
    }

    /// Releases what is held, and lets everything pass.
    pub fn open_again(&self) {
        self.lock().closed = false;
        self.shared.1.notify_all();
    }

    /// Releases as many batches, and goes on to hold what comes behind them.
    pub fn let_pass(&self, batches: usize) {
        self.lock().passes += batches;
        self.shared.1.notify_all();
    }

    /// Makes the next batch to pass an error.
    pub fn fail_next(&self) {
        self.lock().next = Next::Fail;
    }

    /// Makes the next batch to pass a panic.
    pub fn panic_next(&self) {
        self.lock().next = Next::Panic;
    }

    /// Blocks until `batches` have arrived since the gate was closed.
    pub fn wait_started(&self, batches: usize) {
        let mut state = self.lock();
        while state.arrived < batches {
            state = self.shared.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Rows of the batches that are held now.
    pub fn held_rows(&self) -> usize {
        self.lock().held_rows
    }

    fn pass(&self, rows: usize) -> Result<(), EngineError> {
        let mut state = self.lock();
        state.arrived += 1;
        state.held_rows += rows;
        self.shared.1.notify_all();
        while state.closed && state.passes == 0 {
            state = self.shared.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.passes = state.passes.saturating_sub(1);
        state.held_rows -= rows;
        match std::mem::take(&mut state.next) {
            Next::Run => Ok(()),
            Next::Fail => Err(EngineError::Runtime("the gate made this batch fail".to_owned())),
            Next::Panic => {
                drop(state);
                panic!("the gate made this batch panic")
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
