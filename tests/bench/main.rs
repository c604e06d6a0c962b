//! Benchmarks of scheduling and batching, in process: `cargo bench --bench batching [-- SECTION...]`
//!
//! Sections: `scheduler` (CPU time per job), `throughput` (batcher against a raw loop of the same engine), `idle`
//! (latency added to a bare run), `ideal` (an open loop against the ideal queue on the same arrivals), `overload`
//! (goodput at twice what the engine can do), `share` (texts while images saturate the engine), `pictures` (JPEG to
//! input, and its steps) and `inputs` (texts and scores), outside of batching.
//! Every section prints a Markdown table. They are measurements, not tests: nothing fails, and other work on the
//! machine shows in them. `clipd bench` measures a whole server.

#![expect(clippy::print_stdout, reason = "a benchmark reports")]

mod bench;
mod ideal;
mod open_loop;
mod pictures;
mod raw;
#[path = "../sim/rng.rs"]
#[expect(dead_code, reason = "the simulation draws more")]
mod rng;
mod scheduler;
mod single;

fn main() {
    // cargo adds `--bench`.
    let chosen: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let sections: [(&str, fn()); 8] = [
        ("scheduler", scheduler::cpu_per_job),
        ("throughput", raw::throughput),
        ("idle", raw::idle_latency),
        ("ideal", open_loop::against_the_ideal),
        ("overload", open_loop::overload),
        ("share", open_loop::texts_beside_images),
        ("pictures", pictures::pictures),
        ("inputs", single::inputs),
    ];
    for (name, section) in sections {
        if chosen.is_empty() || chosen.iter().any(|each| each == name) {
            println!("\n## {name}\n");
            section();
        }
    }
}
