//! What the rules of the scheduler are worth: the same loads with a rule and without it, in virtual time.
//!
//! The device is a straight line per modality with a little noise, and there is one worker. Some arms are other
//! settings; for the others `ablations/run` takes a rule out of a copy of the scheduler, as it does with mutants.
//! tests/bench/README.md has the table, and the test compares it. `cargo bench` shows what of this real threads add.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::time::Duration;

use clipd::class::Class;
use clipd::clock::Timestamp;
use clipd::modality::{ByModality, Modality};
use clipd::scheduler::cost::{CostModel, Measurement, Sizes};
use clipd::scheduler::workers::{DeviceId, WorkerId};
use clipd::scheduler::{Action, Job, JobId, Scheduler, Settings};

use crate::rng::Rng;

const MAX_BATCH: usize = 16;
const SPAN: Duration = Duration::from_secs(60);
/// A run takes its mean times 1 - NOISE to 1 + NOISE.
const NOISE: f64 = 0.05;

/// What a caller gets: its rows have this long.
const SLO: Duration = Duration::from_millis(200);

/// One line of the table.
struct Row {
    load: &'static str,
    arm: String,
    /// Of what `rate_of` says, per second.
    rate: f64,
    rate_of: &'static str,
    latencies: Vec<Duration>,
}

impl Row {
    /// Rate, median and 99th percentile in milliseconds.
    fn figures(&self) -> [f64; 3] {
        let [p50, p99] = [0.5, 0.99].map(|share| millis(percentile(&self.latencies, share)));
        [self.rate, p50, p99]
    }

    /// The figures in a line of the page, if it is this row's. Logarithms differ in the last bit between
    /// machines, and one nanosecond may change a batch; so figures are compared and not lines.
    fn figures_of(&self, line: &str) -> Option<[f64; 3]> {
        let figures = line.strip_prefix(&format!("| {} | {} | ", self.load, self.arm))?;
        let (rate, latencies) = figures.split_once(&format!(" {}/s | ", self.rate_of))?;
        let (p50, p99) = latencies.strip_suffix(" |")?.split_once(" | ")?;
        Some([rate, p50, p99].map(|figure| figure.parse().expect("it is a number")))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { load, arm, rate_of, .. } = self;
        let [rate, p50, p99] = self.figures();
        write!(f, "| {load} | {arm} | {rate:.0} {rate_of}/s | {p50:.1} | {p99:.1} |")
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "ablations/run names the arm that it has built")]
fn the_readme_tells_what_each_rule_is_worth() {
    let rows = match std::env::var("SIM_WITHOUT").as_deref() {
        Ok("grouping") => vec![captions("in order of urgency")],
        Ok("share") => vec![texts_beside_images("in order of urgency")],
        Ok(other) => panic!("SIM_WITHOUT={other}: there is no such rule"),
        Err(_) => {
            let mut rows = bursts();
            rows.extend(overload());
            rows.extend(assembly());
            rows.push(captions("**like lengths together**"));
            rows.push(texts_beside_images("**even device time**"));
            rows
        }
    };
    let readme = std::fs::read_to_string("tests/bench/README.md").expect("the test runs in the root");
    rows.iter().for_each(|row| println!("{row}"));
    for row in rows {
        let told = readme.lines().find_map(|line| row.figures_of(line));
        let told = told.unwrap_or_else(|| panic!("tests/bench/README.md lacks {row}"));
        let close = told.iter().zip(row.figures()).all(|(told, figure)| (told / figure - 1.0).abs() < 0.05);
        assert!(close, "tests/bench/README.md has other figures than {row}");
    }
}

/// A few images within 0.3 ms, at a fifth of what the device can do.
fn bursts() -> Vec<Row> {
    let arm = |(micros, name): (u64, &str)| {
        let mut rng = Rng::new(1);
        let mut load = Load::default();
        let mut burst = Duration::ZERO;
        while burst < SPAN {
            for _ in 0..rng.count(4..=MAX_BATCH) {
                let at = burst + Duration::from_micros(300).mul_f64(rng.unit());
                load.arrivals.push((at, image(Duration::MAX)));
            }
            burst += rng.exponential(Duration::from_secs_f64(10.0 / (0.2 * capacity())));
        }
        let settings = Settings { max_queue_delay: Duration::from_micros(micros), ..settings() };
        let ran = run(settings, load);
        Row {
            load: "bursts of 4 to 16 images, load 0.2",
            arm: name.to_owned(),
            rate: ran.images.len() as f64 / SPAN.as_secs_f64(),
            rate_of: "images",
            latencies: ran.images,
        }
    };
    let delays = [(0, "**no delay**"), (300, "0.3 ms"), (1_000, "1 ms"), (5_000, "5 ms")];
    delays.map(arm).into()
}

/// Twice as many images as the device can do; what counts is what is done within the objective.
fn overload() -> Vec<Row> {
    let arm = |(told, max_queue_size, name): (bool, usize, &str)| {
        let allowed = if told { SLO } else { Duration::MAX };
        let mut rng = Rng::new(2);
        let load = Load {
            arrivals: poisson(&mut rng, 2.0 * capacity()).map(|at| (at, image(allowed))).collect(),
            ..Load::default()
        };
        let ran = run(Settings { max_queue_size, ..settings() }, load);
        let good = ran.images.iter().filter(|latency| **latency <= SLO).count();
        Row {
            load: "twice the capacity, 200 ms to answer",
            arm: name.to_owned(),
            rate: good as f64 / SPAN.as_secs_f64(),
            rate_of: "images in time",
            latencies: ran.images,
        }
    };
    [
        (true, 10_000, "**refused if too late**"),
        (false, 256, "a queue of 256, no deadlines"),
        (false, 1_000, "a queue of 1,000, no deadlines"),
    ]
    .map(arm)
    .into()
}

/// What it takes to put a batch together.
const ASSEMBLY: Duration = Duration::from_micros(500);

/// When the next batch closes, on a device that waits for half a millisecond if it was not put together before.
fn assembly() -> Vec<Row> {
    let arms = [
        (Closing::Early, "when the one before starts"),
        (Closing::Late, "when the device is idle"),
        (Closing::JustInTime, "**just in time**"),
    ];
    let row = |load, arm: &str, rate: f64, latencies| Row {
        load,
        arm: arm.to_owned(),
        rate,
        rate_of: "images",
        latencies,
    };
    let poisson = arms.iter().map(|(closing, name)| {
        let mut rng = Rng::new(5);
        let arrivals = poisson(&mut rng, 0.6 * capacity()).map(|at| (at, image(Duration::MAX))).collect();
        let ran = run_closing(*closing, settings(), Load { arrivals, ..Load::default() });
        let rate = ran.images.len() as f64 / SPAN.as_secs_f64();
        row("batches take 0.5 ms to put together, load 0.6", name, rate, ran.images)
    });
    let clients = arms.iter().map(|(closing, name)| {
        let load = Load { clients: 128, next: Some(|_| image(Duration::MAX)), ..Load::default() };
        let ran = run_closing(*closing, settings(), load);
        let rate = ran.images.len() as f64 / SPAN.as_secs_f64();
        row("the same, 128 clients", name, rate, ran.images)
    });
    poisson.chain(clients).collect()
}

/// Texts only, 128 at all times.
fn captions(arm: &str) -> Row {
    let load = Load { clients: 128, next: Some(caption), ..Load::default() };
    let ran = run(settings(), load);
    Row {
        load: "128 clients with captions",
        arm: arm.to_owned(),
        rate: ran.texts.len() as f64 / SPAN.as_secs_f64(),
        rate_of: "texts",
        latencies: ran.texts,
    }
}

/// 128 images at all times, and now and then a text, whose latency is shown.
fn texts_beside_images(arm: &str) -> Row {
    let mut rng = Rng::new(3);
    let texts = poisson(&mut rng, 20.0).map(|at| (at, Job { tokens: 12, ..text(Duration::MAX) }));
    let load = Load { arrivals: texts.collect(), clients: 128, next: Some(|_| image(Duration::MAX)) };
    let ran = run(settings(), load);
    Row {
        load: "20 texts/s beside 128 clients with images",
        arm: arm.to_owned(),
        rate: ran.images.len() as f64 / SPAN.as_secs_f64(),
        rate_of: "images",
        latencies: ran.texts,
    }
}

fn settings() -> Settings {
    Settings {
        max_batch_size: ByModality::both(NonZeroUsize::new(MAX_BATCH).expect("it is not zero")),
        max_batch_tokens: NonZeroUsize::MAX,
        max_queue_delay: Duration::ZERO,
        max_queue_size: 10_000,
        interactive_target: Duration::from_millis(500),
        bulk_target: Duration::from_secs(3),
    }
}

/// Images: 3 ms and half a millisecond each. Texts: 1 ms and 10 us for each token, padding included.
fn mean_run(modality: Modality, rows: usize, longest: u32) -> Duration {
    match modality {
        Modality::Image => Duration::from_micros(3_000 + 500 * rows as u64),
        Modality::Text => Duration::from_micros(1_000 + 10 * rows as u64 * u64::from(longest)),
    }
}

/// Images per second, in full batches.
fn capacity() -> f64 {
    MAX_BATCH as f64 / mean_run(Modality::Image, MAX_BATCH, 0).as_secs_f64()
}

/// A job to be done within `allowed` of its arrival, as its deadline says; id and arrival come later.
fn image(allowed: Duration) -> Job {
    let deadline = Timestamp::default().saturating_add(allowed);
    Job { id: JobId(0), modality: Modality::Image, tokens: 0, class: Class::Interactive, deadline }
}

fn text(allowed: Duration) -> Job {
    Job { modality: Modality::Text, ..image(allowed) }
}

/// Most captions have 4 to 40 tokens, half of them no more than 13; one in twenty is as long as can be.
fn caption(rng: &mut Rng) -> Job {
    let tokens = if rng.chance(0.05) { 77 } else { rng.magnitude(4.0, 40.0) as u32 };
    Job { tokens, ..text(Duration::MAX) }
}

fn poisson(rng: &mut Rng, rate: f64) -> impl Iterator<Item = Duration> {
    let mut at = Duration::ZERO;
    std::iter::repeat_with(move || {
        at += rng.exponential(Duration::from_secs_f64(1.0 / rate));
        at
    })
    .take_while(|at| *at < SPAN)
}

/// What arrives: some at given times, and some whenever a client has its answer.
#[derive(Default)]
struct Load {
    arrivals: Vec<(Duration, Job)>,
    clients: usize,
    next: Option<fn(&mut Rng) -> Job>,
}

/// Latencies of what was done.
#[derive(Default)]
struct Ran {
    images: Vec<Duration>,
    texts: Vec<Duration>,
}

enum Due {
    Arrival(Job),
    End(Measurement, Vec<JobId>),
}

/// When a batch closes, where putting it together takes [`ASSEMBLY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    /// As soon as the one before has started.
    Early,
    /// When the device is idle; then it waits.
    Late,
    JustInTime,
    /// It takes no time.
    AtOnce,
}

fn run(settings: Settings, load: Load) -> Ran {
    run_closing(Closing::AtOnce, settings, load)
}

/// Until the last arrival is done, or the time is over for clients that never stop.
fn run_closing(closing: Closing, settings: Settings, load: Load) -> Ran {
    let assembly = if closing == Closing::AtOnce { Duration::ZERO } else { ASSEMBLY };
    let mut staged: Option<(Timestamp, Measurement, Vec<JobId>)> = None;
    let mut rng = Rng::new(4);
    let mut scheduler = Scheduler::new(settings, &[DeviceId(0)]);
    let points = [(Modality::Image, 1, 0), (Modality::Image, MAX_BATCH, 0), (Modality::Text, 1, 1)];
    let points = points.into_iter().chain([(Modality::Text, MAX_BATCH, 77)]);
    let measured: Vec<Measurement> = points
        .map(|(modality, rows, tokens)| {
            let elapsed = mean_run(modality, rows, tokens);
            Measurement { modality, rows, tokens, elapsed }
        })
        .collect();
    scheduler.set_cost(DeviceId(0), CostModel::new(Sizes::Any, &measured));
    scheduler.worker_idle(WorkerId(0));
    if matches!(closing, Closing::Early | Closing::JustInTime) {
        scheduler.enable_staging(DeviceId(0));
        // Early is what the scheduler does when it takes putting together for endless.
        let lead = if closing == Closing::Early { Duration::from_secs(3600) } else { ASSEMBLY };
        (0..200).for_each(|_| scheduler.observe_lead(DeviceId(0), lead));
    }

    let mut agenda: BTreeMap<(Timestamp, u64), Due> = BTreeMap::new();
    let mut serial = 0;
    let mut plan = |agenda: &mut BTreeMap<_, _>, at: Timestamp, due: Due| {
        serial += 1;
        agenda.insert((at, serial), due);
    };
    let first: Vec<Job> =
        load.next.map_or(vec![], |next| (0..load.clients).map(|_| next(&mut rng)).collect());
    for (at, job) in load.arrivals.into_iter().chain(first.into_iter().map(|job| (Duration::ZERO, job))) {
        plan(&mut agenda, Timestamp::default().saturating_add(at), Due::Arrival(job));
    }

    let (mut waiting, mut ran) = (BTreeMap::new(), Ran::default());
    let mut now = Timestamp::default();
    let mut next_id = 0;
    while now.since(Timestamp::default()) < SPAN || load.next.is_none() {
        let event = agenda.first_key_value().map(|((at, _), _)| *at);
        let Some(wake) = event.into_iter().chain(scheduler.next_wakeup()).min() else { break };
        if wake == Timestamp::MAX {
            break;
        }
        now = now.max(wake);
        while let Some(entry) = agenda.first_entry()
            && entry.key().0 <= now
        {
            match entry.remove() {
                Due::Arrival(job) => {
                    next_id += 1;
                    let allowed = job.deadline.since(Timestamp::default());
                    let job = Job { id: JobId(next_id), deadline: now.saturating_add(allowed), ..job };
                    if scheduler.submit(now, &[job]).is_ok() {
                        waiting.insert(job.id, (now, job));
                    }
                }
                Due::End(batch, jobs) => {
                    scheduler.observe(DeviceId(0), &batch);
                    scheduler.batch_done(now, WorkerId(0));
                    if let Some((ready, next, jobs)) = staged.take() {
                        let end = now.max(ready).saturating_add(next.elapsed);
                        plan(&mut agenda, end, Due::End(next, jobs));
                    }
                    for (arrival, job) in jobs.iter().filter_map(|id| waiting.remove(id)) {
                        let done = match job.modality {
                            Modality::Image => &mut ran.images,
                            Modality::Text => &mut ran.texts,
                        };
                        done.push(now.since(arrival));
                        // Who sent it sends another; arrivals at given times are of the other modality.
                        let again = load.next.map(|next| next(&mut rng));
                        if let Some(again) = again.filter(|again| again.modality == job.modality) {
                            plan(&mut agenda, now, Due::Arrival(again));
                        }
                    }
                }
            }
        }
        while let Some(action) = scheduler.poll(now) {
            match action {
                Action::Drop(id, _) => {
                    waiting.remove(&id);
                }
                Action::Dispatch(batch) => {
                    let longest = batch.jobs.iter().map(|id| waiting[id].1.tokens).max().unwrap_or(0);
                    let mean = mean_run(batch.modality, batch.jobs.len(), longest);
                    let elapsed = mean.mul_f64(rng.between(1.0 - NOISE, 1.0 + NOISE));
                    let (modality, rows) = (batch.modality, batch.jobs.len());
                    let ran = Measurement { modality, rows, tokens: longest, elapsed };
                    let ready = now.saturating_add(assembly);
                    if batch.staged {
                        staged = Some((ready, ran, batch.jobs));
                    } else {
                        plan(&mut agenda, ready.saturating_add(elapsed), Due::End(ran, batch.jobs));
                    }
                }
            }
        }
    }
    ran
}

fn percentile(latencies: &[Duration], share: f64) -> Duration {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    sorted.get((sorted.len() as f64 * share) as usize).copied().unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
