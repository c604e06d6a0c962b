//! Benchmarks of the edges: `cargo bench --bench edge [-- SECTION...]`
//!
//! Sections: `labels` (what Classify with cached labels adds to Embed), `uploads` (large messages from many
//! clients), `feeding` (rows of an engine that takes no time), `edges` (a picture over gRPC and over HTTP), `safety`
//! (what keys and TLS cost), `neighbours` (how long one client waits beside a greedy one), `traces` (what tracing
//! costs, off and on), `allocations` (of the server, per call). The server has threads of its own, and the client is
//! the thread that measures: what that thread does not do, the server does. Every section prints a Markdown table. They
//! are measurements, not tests: nothing fails, and other work on the machine shows in them.

#![expect(clippy::print_stdout, reason = "a benchmark reports")]

mod allocations;
mod edges;
mod feeding;
mod labels;
mod load;
mod neighbours;
mod safety;
mod server;
mod traces;
mod uploads;

/// Counts on every thread, for a few nanoseconds each time.
#[global_allocator]
static ALLOCATOR: alloc_tracker::Allocator<std::alloc::System> = alloc_tracker::Allocator::system();

fn main() {
    // cargo adds `--bench`.
    let chosen: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let sections: [(&str, fn()); 8] = [
        ("labels", labels::added),
        ("uploads", uploads::rates),
        ("feeding", feeding::rates),
        ("edges", edges::costs),
        ("safety", safety::costs),
        ("neighbours", neighbours::waits),
        ("traces", traces::costs),
        ("allocations", allocations::per_call),
    ];
    for (name, section) in sections {
        if chosen.is_empty() || chosen.iter().any(|each| each == name) {
            println!("\n## {name}\n");
            section();
        }
    }
}
