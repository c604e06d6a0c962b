//! When rows that arrive now would be done, as far as can be predicted from what waits and what runs.
//!
//! A snapshot of the scheduler. It decides admission, and a copy lets callers ask before they spend time on
//! preparing a row that would be refused.

use std::time::Duration;

use super::devices::Devices;
use super::queue::Queue;
use super::workers::Workers;
use super::{Job, Rejection};
use crate::class::Class;
use crate::clock::Timestamp;
use crate::modality::Modality;

/// Rows are admitted if they are predicted to be done within this share of the time they have: the rest is for
/// predictions that are wrong and for what is admitted later and more urgent.
pub(super) const USABLE: f64 = 0.8;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// Why nothing is admitted.
    closed: Option<Rejection>,
    max_queue_size: usize,
    /// When the first worker is predicted to be free; `None`: one is idle.
    first_free: Option<Timestamp>,
    /// Indexed by `Modality::index`.
    lanes: [Lane; 2],
}

/// What waits of one modality, and how fast it goes: runs are those of one worker of the reference device.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Lane {
    waiting: usize,
    /// Waiting rows that bulk work does not overtake.
    interactive: usize,
    /// Rows of a full batch.
    batch_rows: usize,
    /// Run of a full batch.
    batch_run: Duration,
    /// Run of one row alone.
    single_run: Duration,
    /// How many workers there are, a faster or slower one counted by its speed.
    capacity: f64,
}

/// Rows of one modality from one request. Texts are taken to be as long as those that wait.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub modality: Modality,
    pub rows: usize,
    pub class: Class,
    pub deadline: Timestamp,
}

impl Outlook {
    /// `closed`: why nothing is admitted. Of `max_queue_size` and `queues`, each is of one modality.
    pub(super) fn new(
        closed: Option<Rejection>,
        max_queue_size: usize,
        queues: &[Queue; 2],
        devices: &Devices,
        workers: &Workers,
    ) -> Outlook {
        let lane = |modality: Modality| Lane::new(&queues[modality.index()], modality, devices, workers);
        let lanes = Modality::ALL.map(lane);
        Outlook { closed, max_queue_size, first_free: workers.first_free(), lanes }
    }

    /// Why these rows would be refused at `now`, if they would.
    pub fn refusal(&self, now: Timestamp, arrival: &Arrival) -> Option<Rejection> {
        if self.closed.is_some() || arrival.rows == 0 {
            return self.closed;
        }
        let lane = &self.lanes[arrival.modality.index()];
        if !self.has_room(arrival.modality, arrival.rows) {
            let retry_after = lane.shared(lane.waiting);
            return Some(Rejection::QueueFull { retry_after });
        }
        // Where a worker is idle and nothing waits, the attempt costs nobody anything; and if the prediction is
        // wrong, it is how the cost model learns.
        if self.first_free.is_none() && lane.waiting == 0 {
            return None;
        }
        let left = arrival.deadline.since(now).mul_f64(USABLE);
        let needed = self.completion(now, arrival);
        (needed > left).then(|| Rejection::TooLate { retry_after: needed - left })
    }

    /// Whether any row waits.
    pub fn has_waiting(&self) -> bool {
        self.lanes.iter().any(|lane| lane.waiting > 0)
    }

    /// Whether `rows` more would fit the queue.
    pub fn has_room(&self, modality: Modality, rows: usize) -> bool {
        self.lanes[modality.index()].waiting + rows <= self.max_queue_size
    }

    /// How much time these rows must have left at `now`, if it is all that they may be refused for.
    pub fn needed(&self, now: Timestamp, arrival: &Arrival) -> Duration {
        if arrival.rows == 0 { Duration::ZERO } else { self.completion(now, arrival).div_f64(USABLE) }
    }

    /// How long until all the rows are predicted to be done.
    fn completion(&self, now: Timestamp, arrival: &Arrival) -> Duration {
        let lane = &self.lanes[arrival.modality.index()];
        let ahead = match arrival.class {
            Class::Interactive => lane.interactive,
            Class::Bulk => lane.waiting,
        };
        let rows = ahead + arrival.rows;
        // The last batch, and all before it.
        let last = (rows - 1) % lane.batch_rows.max(1) + 1;
        let own = lane.shared(rows - last);
        // Device time is shared evenly while both modalities wait.
        let others: Duration = Modality::ALL
            .into_iter()
            .filter(|other| *other != arrival.modality)
            .map(|other| self.lanes[other.index()])
            .map(|other| other.shared(other.waiting).min(own))
            .sum();
        let running = self.first_free.map_or(Duration::ZERO, |at| at.since(now));
        running + own + others + lane.run(last)
    }
}

impl Lane {
    fn new(queue: &Queue, modality: Modality, devices: &Devices, workers: &Workers) -> Lane {
        let (reference, tokens) = (devices.reference(workers), queue.mean_tokens().max(1));
        let (batch_rows, cost) = (devices.full_batch(reference, modality), devices.cost(reference));
        Lane {
            waiting: queue.len(),
            interactive: queue.interactive(),
            batch_rows,
            batch_run: cost.predict(modality, batch_rows, tokens),
            single_run: cost.predict(modality, 1, tokens),
            capacity: devices.capacity(workers, modality, tokens),
        }
    }

    /// Time in which all workers together get through `rows`.
    fn shared(&self, rows: usize) -> Duration {
        self.run(rows).div_f64(self.capacity)
    }

    /// Device time of `rows`, in full batches as far as they go.
    fn run(&self, rows: usize) -> Duration {
        let full = rows / self.batch_rows.max(1);
        let rest = rows % self.batch_rows.max(1);
        let batches = self.batch_run.saturating_mul(u32::try_from(full).unwrap_or(u32::MAX));
        if rest == 0 {
            return batches;
        }
        // Linear between one row and a full batch; rest < batch_rows, so there are at least two.
        let share = (rest - 1) as f64 / (self.batch_rows - 1) as f64;
        batches + self.single_run + self.batch_run.saturating_sub(self.single_run).mul_f64(share)
    }
}

/// Rows, deadline and class of the jobs of each modality: the earliest deadline and the lower class.
pub(super) fn arrivals(jobs: &[Job]) -> impl Iterator<Item = Arrival> {
    Modality::ALL.into_iter().map(|modality| {
        let mut arrival = Arrival { modality, rows: 0, class: Class::Interactive, deadline: Timestamp::MAX };
        for job in jobs.iter().filter(|job| job.modality == modality) {
            arrival.rows += 1;
            arrival.deadline = arrival.deadline.min(job.deadline);
            if job.class == Class::Bulk {
                arrival.class = Class::Bulk;
            }
        }
        arrival
    })
}
