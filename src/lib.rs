//! clipd serves CLIP models over gRPC and HTTP: image and text embeddings, zero-shot classification, and ranking.
//!
//! One process serves one model; a request passes these modules in order:
//!
//! ```text
//!  client ── TCP ──> connections       accepts, bounds and ends connections: every wait on a client has a clock
//!                     grpc | http      the edges: each takes a call through the door, then wire types <-> domain types
//!                     admission        the door: stamps the arrival, sets the deadline, takes a place; before the body
//!                        │             is read. Keeps the call until its answer is taken
//!                     pipeline         validates; decodes, resizes and tokenizes on blocking threads (clip);
//!                        │             looks label sets up in the label cache
//!                        │ rows
//!                        v
//!                     batcher          one scheduler thread around the pure scheduler; per worker one thread that
//!                        │             runs batches, and one that puts the next one together meanwhile
//!                        │ batches
//!                        v
//!                     engine           one ONNX Runtime session per worker, on its device: CPU or GPU
//!                        │ embeddings
//!                        v
//!                     pipeline         normalises, scores (clip), answers each input in its place
//! ```
//!
//! A **job** is one row (an image or a text) and has exactly one outcome: completed, expired, cancelled,
//! rejected or failed. The [`scheduler`] decides which jobs run together as a **batch**: it is a pure state
//! machine that sees ids, sizes and times, never a payload; it learns what a batch takes, runs batches of the best
//! size, and refuses what would be done too late. It learns by device, and a **worker** belongs to a device: one that
//! is lost takes only itself out. The [`batcher`] is the shell that gives it time,
//! threads and channels.
//!
//! Who may use whom is a directed acyclic graph, enforced by a test:
//!
//! - [`app`] puts everything together, and only `main` and `bench` use it;
//! - `bench` is a client too, and opens the engines of `app` by itself to measure what they can do; it is a feature of
//!   the build, as `eval` is, a client that scores the model on people's own data;
//! - [`grpc`] and [`http`] are edges: wire types and their libraries stop there, and neither has a limit of its own;
//! - [`admission`] knows no edge, [`auth`] (API keys, and limits of callers) no call, and [`connections`] neither;
//! - [`calibrate`] looks into a model with the engine, without a server;
//! - [`cli`] is a client of a running server, and uses nothing but the generated client of [`grpc`]; it also shows
//!   downloads of [`model::hub`];
//! - [`pipeline`] knows no transport; [`clip`] and [`scheduler`] know no threads, files, clocks or logs;
//! - ONNX Runtime is known to [`engine`] alone, checkpoints and ONNX graphs to [`model`] alone;
//! - a call that is traced carries a span, which learns its stages as they end; OTLP is known to [`trace`] alone;
//! - the operating system's time is read in [`clock`] alone, CPU time in [`cpu_time`]; metric names are in
//!   [`telemetry`] alone.
//!
//! So it is inside each of them: files beside each other form no circle either.
//!
//! Every queue, cache and loop has a limit. Bad input is an error that names its field and costs no other input.

pub mod app;
#[cfg(feature = "bench")]
pub mod bench;
pub mod calibrate;
pub mod cli;
pub mod config;
#[cfg(feature = "bench")]
pub mod eval;
pub mod shutdown;

pub mod grpc;
pub mod http;
pub mod metrics_port;

pub mod admission;
pub mod auth;
pub mod connections;

pub mod pipeline;

pub mod batcher;
pub mod scheduler;

pub mod engine;
pub mod model;

pub mod clip;

pub mod class;
pub mod clock;
pub mod code;
pub mod cpu_time;
pub mod follow;
pub mod long_work;
pub mod modality;
pub mod random;
pub mod readiness;
pub mod telemetry;
pub mod trace;
