//! CPU time of the pure scheduler.

use std::time::Duration;

use clipd::class::Class;
use clipd::clock::{Clock, Timestamp};
use clipd::modality::Modality;
use clipd::scheduler::cost::{CostModel, Measurement, Sizes};
use clipd::scheduler::workers::{DeviceId, WorkerId};
use clipd::scheduler::{Action, Job, JobId, Scheduler, Settings};

use crate::bench::{MAX_BATCH, settings};

/// One job more and, for every batch of them, a batch less, while so many wait.
pub(crate) fn cpu_per_job() {
    println!("| queued | images: us per job | texts: us per job |");
    println!("|---|---|---|");
    for queued in [10, 100, 1_000, 10_000] {
        let [image, text] = Modality::ALL.map(|modality| per_job(modality, queued).as_secs_f64() * 1e6);
        println!("| {queued} | {image:.2} | {text:.2} |");
    }
}

fn per_job(modality: Modality, queued: usize) -> Duration {
    const JOBS: usize = 200_000;
    let settings = Settings { max_queue_size: queued + 2 * MAX_BATCH, ..settings() };
    let mut scheduler = Scheduler::new(settings, &[DeviceId(0)]);
    scheduler.set_cost(DeviceId(0), cost());
    scheduler.worker_idle(WorkerId(0));
    let mut jobs = (0..).map(|id| Job {
        id: JobId(id),
        modality,
        // Lengths as of captions.
        tokens: if modality == Modality::Image { 0 } else { 8 + (id * 7 % 13) as u32 },
        class: Class::Interactive,
        deadline: Timestamp::MAX,
    });
    let clock = Clock::start();
    let mut submit = |scheduler: &mut Scheduler| {
        let job = jobs.next().expect("ids do not end");
        scheduler.submit(clock.now(), &[job]).expect("there is room");
    };
    for _ in 0..queued {
        submit(&mut scheduler);
    }
    let start = clock.now();
    for _ in 0..JOBS {
        submit(&mut scheduler);
        if scheduler.queued(modality) >= queued + MAX_BATCH {
            let Some(Action::Dispatch(batch)) = scheduler.poll(clock.now()) else { panic!("jobs wait") };
            let ran = Measurement {
                modality,
                rows: batch.jobs.len(),
                tokens: 20,
                elapsed: Duration::from_millis(9),
            };
            // What a worker's report brings.
            scheduler.observe(DeviceId(0), &ran);
            scheduler.batch_done(clock.now(), batch.worker);
            std::hint::black_box((scheduler.outlook(), scheduler.next_wakeup()));
        }
    }
    clock.now().since(start) / JOBS as u32
}

fn cost() -> CostModel {
    let point = |modality, rows, tokens, micros| Measurement {
        modality,
        rows,
        tokens,
        elapsed: Duration::from_micros(micros),
    };
    CostModel::new(
        Sizes::Any,
        &[
            point(Modality::Image, 1, 0, 3_500),
            point(Modality::Image, 4, 0, 5_000),
            point(Modality::Image, 16, 0, 11_000),
            point(Modality::Text, 1, 8, 1_000),
            point(Modality::Text, 16, 8, 4_000),
            point(Modality::Text, 16, 77, 30_000),
        ],
    )
}
