//! What the machine could do at best: engine and preprocessing by themselves, without a server.
//!
//! `ceiling = cores / (engine CPU-seconds per row at its best batch size + preprocessing CPU-seconds per row)`.
//! No server of the same layout can be faster for long; how close it comes is the quality of everything
//! between the two. All batch sizes of all layouts are measured in turn, several rounds long, so that whatever
//! else the machine does meets all of them alike; the median counts, and its range is reported.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use serde::Serialize;

use super::bank::{Bank, Layout, Preprocessing, Run};
use super::progress::Progress;
use super::workload::Inputs;
use super::{Error, machine};
use crate::app;
use crate::clip::row::{ImageRow, TokenRow};
use crate::config::Config;
use crate::config::bench::Workload;
use crate::cpu_time::thread_cpu;
use crate::engine::Batch;
use crate::modality::{ByModality, Modality};

const ROUNDS: usize = 3;

/// Shortest run of a batch size in one round.
const SLICE: Duration = Duration::from_millis(150);

/// Larger batches than this one are not tried, unless the server may have them; nor are those after one that takes
/// longer than this time.
const LARGEST_BATCH: NonZeroUsize = NonZeroUsize::new(64).expect("it is not zero");
const LONGEST_BATCH: Duration = Duration::from_secs(1);

/// Different rows that batches are made of.
const ROWS: usize = 256;

/// Everything that was measured without a server.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Ceiling {
    pub(super) cores: NonZeroUsize,
    pub(super) rounds: usize,
    /// That of the server, the first of those in `engine`.
    pub(super) layout: Layout,
    pub(super) engine: Vec<Point>,
    /// What the same engine does in 8 bits, where the model is calibrated for that.
    pub(super) in_8_bits: Vec<Point>,
    pub(super) workloads: Vec<WorkloadCeiling>,
}

/// A batch size on a layout.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Point {
    pub(super) layout: Layout,
    /// `image` or `text`.
    pub(super) modality: &'static str,
    pub(super) batch_size: usize,
    pub(super) rows_per_second: Spread,
    pub(super) batch_seconds: Spread,
    pub(super) cpu_seconds_per_row: Spread,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct WorkloadCeiling {
    pub(super) workload: Workload,
    /// That of the most rows per second.
    pub(super) best_batch_size: usize,
    pub(super) engine_cpu_seconds_per_row: Spread,
    /// Decoding and resizing, or tokenizing, on one thread.
    pub(super) preprocess_cpu_seconds_per_row: Spread,
    /// The ceiling.
    pub(super) rows_per_second: f64,
}

/// Of the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Ceiling {
    pub(super) fn of(&self, workload: Workload) -> Option<&WorkloadCeiling> {
        self.workloads.iter().find(|ceiling| ceiling.workload == workload)
    }
}

/// Blocks for as long as it takes. Engines are closed again when it returns.
pub(super) fn measure(
    config: &Config,
    inputs: &Inputs,
    workloads: &[Workload],
    progress: &Progress,
) -> Result<Ceiling, Error> {
    progress.step("ceiling: opening the engine");
    let mut config = app::load::settled(config)?;
    // Engines that run certain sizes only have those up to the largest batch.
    let ByModality { image, text } = config.scheduling.max_batch_size;
    let largest = ByModality { image: image.max(LARGEST_BATCH), text: text.max(LARGEST_BATCH) };
    config.scheduling.max_batch_size = largest;
    let config = &config;
    let (bank, preprocessing) = Bank::open(config, Layout::of(config))?;
    let mut banks = vec![bank];
    for layout in other_layouts(&banks[0]) {
        banks.push(Bank::open(config, layout)?.0);
    }
    let rounded = app::load::in_8_bits(config).map(|config| Bank::open(&config, Layout::of(&config)));
    let rounded: Vec<Bank> = rounded.transpose()?.into_iter().map(|(bank, _)| bank).collect();
    let rows = Rows::new(&preprocessing, inputs, workloads)?;
    let modalities: BTreeSet<Modality> = workloads.iter().map(|workload| workload.modality()).collect();

    progress.step("ceiling: first runs");
    let (mut arms, mut in_8_bits) = (Vec::new(), Vec::new());
    for (banks, arms) in [(&banks, &mut arms), (&rounded, &mut in_8_bits)] {
        for bank in banks {
            for modality in &modalities {
                arms.extend(arms_of(bank, *modality, &rows, largest[*modality].get(), progress)?);
            }
        }
    }
    let mut costs = vec![Vec::new(); workloads.len()];
    for round in 1..=ROUNDS {
        progress.step(&format!(
            "ceiling: round {round} of {ROUNDS}, {} batch sizes",
            arms.len() + in_8_bits.len()
        ));
        for arm in arms.iter_mut().chain(&mut in_8_bits) {
            let batch = rows.batch(arm.modality, arm.batch_size);
            arm.runs.push(arm.bank.run(batch, SLICE)?);
            progress.advance();
        }
        for (workload, costs) in workloads.iter().zip(&mut costs) {
            costs.push(preprocessing_cost(*workload, &preprocessing, inputs, &rows)?);
        }
    }
    let layout = banks[0].layout;
    let engine: Vec<Point> = arms.into_iter().map(Arm::point).collect();
    let in_8_bits = in_8_bits.into_iter().map(Arm::point).collect();
    let workloads = workloads.iter().zip(&costs);
    let workloads = workloads.filter_map(|(workload, costs)| ceiling_of(*workload, layout, &engine, costs));
    Ok(Ceiling {
        cores: machine::cores(),
        rounds: ROUNDS,
        layout,
        workloads: workloads.collect(),
        engine,
        in_8_bits,
    })
}

/// One session with all cores, and a session per core. The latter only where sessions share the weights.
fn other_layouts(served: &Bank) -> Vec<Layout> {
    let (one, cores) = (NonZeroUsize::MIN, machine::cores());
    let mut layouts = vec![Layout { workers: one, threads: cores }];
    if served.description.device == "cpu" && cores > one {
        layouts.push(Layout { workers: cores, threads: one });
    }
    layouts.retain(|layout| *layout != served.layout);
    layouts
}

/// A batch size on a bank, and its runs so far.
struct Arm<'a> {
    bank: &'a Bank,
    modality: Modality,
    batch_size: usize,
    runs: Vec<Run>,
}

impl Arm<'_> {
    fn point(self) -> Point {
        let spread = |value: fn(&Run) -> f64| Spread::of(self.runs.iter().map(value).collect());
        Point {
            layout: self.bank.layout,
            modality: self.modality.as_str(),
            batch_size: self.batch_size,
            rows_per_second: spread(|run| run.rows_per_second),
            batch_seconds: spread(|run| run.batch_seconds),
            cpu_seconds_per_row: spread(|run| run.cpu_seconds_per_row),
        }
    }
}

/// Powers of two, as far as they make sense. The first run of a shape is slow and does not count.
fn arms_of<'a>(
    bank: &'a Bank,
    modality: Modality,
    rows: &Rows,
    largest: usize,
    progress: &Progress,
) -> Result<Vec<Arm<'a>>, Error> {
    let mut arms = Vec::new();
    let mut batch_size = 1;
    while batch_size <= largest {
        let first = bank.run(rows.batch(modality, batch_size), Duration::ZERO)?;
        progress.advance();
        arms.push(Arm { bank, modality, batch_size, runs: Vec::new() });
        if first.batch_seconds > LONGEST_BATCH.as_secs_f64() {
            break;
        }
        batch_size *= 2;
    }
    Ok(arms)
}

/// Rows to make batches of.
struct Rows {
    images: Vec<ImageRow>,
    texts: Vec<TokenRow>,
}

impl Rows {
    fn new(preprocessing: &Preprocessing, inputs: &Inputs, workloads: &[Workload]) -> Result<Rows, Error> {
        let needs = |needed| workloads.iter().any(|workload| workload.modality() == needed);
        let mut rows = Rows { images: Vec::new(), texts: Vec::new() };
        if needs(Modality::Image) {
            for bytes in inputs.pictures.iter().take(ROWS) {
                rows.images.push(preprocessing.images.encoded(bytes).map_err(not_an_input)?);
            }
        }
        if needs(Modality::Text) {
            for text in inputs.texts.iter().take(ROWS) {
                rows.texts.push(preprocessing.texts()?.encode(text).map_err(not_an_input)?.row);
            }
        }
        Ok(rows)
    }

    fn batch(&self, modality: Modality, size: usize) -> Batch {
        match modality {
            Modality::Image => Batch::Images(self.images.iter().cycle().take(size).cloned().collect()),
            Modality::Text => Batch::Texts(self.texts.iter().cycle().take(size).cloned().collect()),
        }
    }
}

fn not_an_input(error: impl std::error::Error) -> Error {
    Error::Other(format!("the ceiling needs inputs without errors: {error}"))
}

/// CPU-seconds per row, on this thread.
fn preprocessing_cost(
    workload: Workload,
    preprocessing: &Preprocessing,
    inputs: &Inputs,
    rows: &Rows,
) -> Result<f64, Error> {
    let Preprocessing { images, size: [height, width], .. } = preprocessing;
    match workload {
        Workload::Images | Workload::Classify => {
            cost(&inputs.pictures, |bytes| images.encoded(bytes).map(drop).map_err(not_an_input))
        }
        Workload::Rgb => cost(&rows.images, |ImageRow(pixels)| {
            images.rgb(*width, *height, pixels).map(drop).map_err(not_an_input)
        }),
        Workload::Texts => {
            let texts = preprocessing.texts()?;
            cost(&inputs.texts, |text| texts.encode(text).map(drop).map_err(not_an_input))
        }
    }
}

fn cost<T>(inputs: &[T], make_row: impl Fn(&T) -> Result<(), Error>) -> Result<f64, Error> {
    let start = thread_cpu();
    let mut count = 0;
    for input in inputs.iter().cycle() {
        make_row(input)?;
        count += 1;
        let spent = thread_cpu() - start;
        if spent >= SLICE {
            return Ok(spent.as_secs_f64() / f64::from(count));
        }
    }
    Err(Error::Other("nothing to preprocess".to_owned()))
}

fn ceiling_of(
    workload: Workload,
    layout: Layout,
    engine: &[Point],
    costs: &[f64],
) -> Option<WorkloadCeiling> {
    let modality = workload.modality().as_str();
    let best = engine
        .iter()
        .filter(|point| point.layout == layout && point.modality == modality)
        .max_by(|a, b| a.rows_per_second.median.total_cmp(&b.rows_per_second.median))?;
    let preprocess = Spread::of(costs.to_vec());
    let row = best.cpu_seconds_per_row.median + preprocess.median;
    Some(WorkloadCeiling {
        workload,
        best_batch_size: best.batch_size,
        engine_cpu_seconds_per_row: best.cpu_seconds_per_row,
        preprocess_cpu_seconds_per_row: preprocess,
        rows_per_second: machine::cores().get() as f64 / row,
    })
}

impl Spread {
    /// Of an odd number of values.
    pub(super) fn of(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Spread { median: at(values.len() / 2), min: at(0), max: at(values.len().saturating_sub(1)) }
    }
}
