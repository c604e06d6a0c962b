//! Deterministic simulation of the scheduler: seed -> workload -> decisions -> checkers.
//!
//! One seed is one schedule of a few hundred events in virtual time: what arrives, which workers fail, when the
//! server drains (`workload`). `world` drives the scheduler through it as the batcher's shell would, `model`
//! keeps a second account, and `checkers` and `fairness` compare every decision with the promises.
//! It does not test threads, channels or engines; `batcher` and `tests/it` do.
//!
//! `cargo test --test sim` runs a fixed set of seeds, `SIM_SEEDS=100000 cargo test --release --test sim` a larger one.
//! `SIM_SEED=123 cargo test --test sim` replays one, and shows its events if it fails.
//! `mutants/run` plants bugs in a copy of the scheduler, to see that the checkers find them. `ablations` measures
//! what its rules are worth.

#![expect(clippy::print_stdout, reason = "a test may show what it covered")]

mod ablations;
mod arrivals;
mod checkers;
mod composition;
mod fairness;
mod model;
mod preparation;
mod prospects;
mod rng;
mod service;
mod tally;
mod workload;
mod world;

use checkers::Violation;
use tally::Tally;
use world::World;

/// Enough for every checker to have caught a scheduler broken on purpose, with seeds to spare.
const SEEDS: u64 = 500;

#[test]
fn every_schedule_keeps_the_promises() {
    if let Some(seed) = number("SIM_SEED") {
        return replay(seed);
    }
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS);
    let mut tally = Tally::default();
    for seed in 0..seeds {
        let mut world = World::new(seed);
        if let Err(Violation { checker, message }) = world.run() {
            panic!("seed {seed}: {checker}: {message}\nreplay: SIM_SEED={seed} cargo test --test sim");
        }
        tally.merge(&world.tally);
    }
    println!("{seeds} schedules\n{tally}");
    assert_eq!(tally.missing(), [""; 0], "no schedule reached these");
}

#[test]
fn a_seed_repeats_its_schedule() {
    let log = || {
        let mut world = World::with_log(1);
        let verdict = world.run();
        (format!("{verdict:?}"), world.log().to_vec())
    };
    let (first, second) = (log(), log());
    assert!(first.1.len() > 200, "{} events", first.1.len());
    assert_eq!(first, second);
}

fn replay(seed: u64) {
    let mut world = World::with_log(seed);
    if let Err(Violation { checker, message }) = world.run() {
        panic!("{}\nseed {seed}: {checker}: {message}", world.log().join("\n"));
    }
    println!("seed {seed} keeps the promises\n{}", world.tally);
}

#[expect(clippy::disallowed_methods, reason = "the two switches of the simulation")]
fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{variable}={value}: {error}")))
}
