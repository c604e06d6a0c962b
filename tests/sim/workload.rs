//! What happens to the scheduler from outside in one schedule, drawn from the seed.
//!
//! Knows nothing of what the scheduler decides. `arrivals` has the requests; here is all that is not a request.

use std::num::NonZeroUsize;
use std::time::Duration;

use clipd::clock::Timestamp;
use clipd::modality::ByModality;
use clipd::scheduler::workers::{DeviceId, WorkerId};
use clipd::scheduler::{Job, Settings};

use crate::arrivals::Arrivals;
use crate::rng::Rng;
use crate::service::{Service, round_up};

pub(crate) struct Workload {
    pub(crate) site: Site,
    /// Timers fire up to this much late.
    pub(crate) lateness: Duration,
    /// Probability that every job of a batch turns out to be abandoned, so that its worker is free at once.
    pub(crate) abandoned: f64,
    pub(crate) pace: Pace,
    /// Whether workers report what their batches took.
    pub(crate) learning: bool,
    /// By rising time.
    pub(crate) events: Vec<(Timestamp, Event)>,
}

/// Where the scheduler runs.
pub(crate) struct Site {
    pub(crate) settings: Settings,
    /// That of each worker.
    pub(crate) devices: Vec<DeviceId>,
    /// Longest time from closing a staged batch to having it ready; `None`: nothing is staged.
    pub(crate) staging: Option<Duration>,
    pub(crate) service: Service,
}

/// What the driver does with events of one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Delivers them all, then polls.
    Together,
    /// Polls after each while the clock stands still.
    OneByOne,
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    Submit(Vec<Job>),
    Cancel(Victim),
    Ready(WorkerId),
    Lost(WorkerId),
    Drain,
}

/// Which job is cancelled; there may be none of the kind.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Victim {
    Queued,
    Started,
    Unknown,
}

impl Workload {
    pub(crate) fn draw(rng: &mut Rng) -> Workload {
        let site = Site::draw(rng);
        let mut events = Arrivals::draw(rng, &site);
        add_worker_events(rng, site.devices.len(), &mut events);
        add_drain(rng, &mut events);
        events.sort_by_key(|(at, _)| *at);
        Workload {
            site,
            lateness: Duration::from_secs_f64(sometimes(rng, 1e-6, 1e-3)),
            abandoned: sometimes(rng, 0.02, 0.3),
            pace: rng.pick(&[Pace::Together, Pace::OneByOne]),
            learning: rng.chance(0.5),
            events,
        }
    }
}

impl Site {
    fn draw(rng: &mut Rng) -> Site {
        let grain = if rng.chance(0.3) { rng.magnitude(1e-4, 5e-3) } else { 1e-9 };
        let grain = Duration::from_secs_f64(grain);
        let settings = draw_settings(rng, grain);
        let workers = rng.pick(&[1, 1, 2, 3, 4]);
        let per_device = rng.pick(&[1, 1, 2, workers]);
        let devices: Vec<DeviceId> = (0..workers).map(|worker| DeviceId(worker / per_device)).collect();
        let staging = rng.chance(0.5).then(|| Duration::from_secs_f64(rng.magnitude(1e-5, 1e-2)));
        Site { settings, service: Service::draw(rng, grain, workers.div_ceil(per_device)), devices, staging }
    }
}

fn draw_settings(rng: &mut Rng, grain: Duration) -> Settings {
    let (images, texts) = (rng.pick(&[1, 2, 4, 4, 8, 8, 16]), rng.pick(&[1, 1, 2, 4]));
    let seconds = |seconds| round_up(Duration::from_secs_f64(seconds), grain);
    let interactive_target = rng.magnitude(1e-3, 1.0);
    Settings {
        max_batch_size: ByModality {
            image: NonZeroUsize::MIN.saturating_add(images - 1),
            text: NonZeroUsize::MIN.saturating_add(images * texts - 1),
        },
        max_batch_tokens: NonZeroUsize::MIN.saturating_add(rng.pick(&[40, 200, 1232, 20_000])),
        max_queue_delay: seconds(sometimes(rng, 2e-4, 5e-2)),
        max_queue_size: rng.pick(&[1, 5, 16, 40, 40, 100, 200]),
        interactive_target: seconds(interactive_target),
        bulk_target: seconds(interactive_target * rng.magnitude(1.0, 100.0)),
    }
}

/// Every worker becomes ready or is lost. Both happen at instants at which something else happens too.
fn add_worker_events(rng: &mut Rng, workers: usize, events: &mut Vec<(Timestamp, Event)>) {
    let instants: Vec<Timestamp> = events.iter().map(|(at, _)| *at).collect();
    let late = rng.chance(0.3);
    let lost = if rng.chance(0.3) { rng.between(0.1, 1.0) } else { 0.0 };
    for worker in (0..workers).map(WorkerId) {
        let ready = if late { instants[rng.count(0..=instants.len() / 2)] } else { Timestamp::default() };
        // Before what else happens at that instant.
        events.insert(0, (ready, Event::Ready(worker)));
        if rng.chance(lost) {
            events.push((rng.pick(&instants), Event::Lost(worker)));
        }
    }
}

/// In the middle of the schedule, or at its end.
fn add_drain(rng: &mut Rng, events: &mut Vec<(Timestamp, Event)>) {
    let instants: Vec<Timestamp> = events.iter().map(|(at, _)| *at).collect();
    let last = instants.iter().max().copied().unwrap_or_default();
    events.push((if rng.chance(0.2) { rng.pick(&instants) } else { last }, Event::Drain));
}

/// Zero for every other seed.
pub(crate) fn sometimes(rng: &mut Rng, low: f64, high: f64) -> f64 {
    if rng.chance(0.5) { rng.magnitude(low, high) } else { 0.0 }
}
