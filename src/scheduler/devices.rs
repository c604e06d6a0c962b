//! What the scheduler knows of the devices: how fast each is, and so what a good batch is there.
//!
//! Every device has a cost model of its own, fed by its own batches alone. Two cards of one name may still differ in
//! speed (clocks, cooling, neighbours), and a model learns within some twenty batches; so devices that are alike
//! need not be known as such, and those that are not do not spoil each other's predictions.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::cost::{CostModel, Measurement};
use super::staging::Lead;
use super::workers::{DeviceId, Run, Workers};
use super::{SURELY, Settings};
use crate::clock::Timestamp;
use crate::modality::{ByModality, Modality};

#[derive(Debug)]
pub(super) struct Devices {
    /// Indexed by [`DeviceId`].
    devices: Vec<Device>,
    /// Most rows of a batch.
    max_rows: ByModality<NonZeroUsize>,
    longest_run: Duration,
}

#[derive(Debug)]
struct Device {
    cost: CostModel,
    /// Rows of the best batch of images; derived from the cost model.
    best_images: usize,
    /// Of devices whose next batch is put together while one runs.
    lead: Option<Lead>,
}

impl Devices {
    /// Nothing is known of them.
    pub(super) fn cold(count: usize, settings: &Settings) -> Devices {
        let best_images = settings.max_batch_size.image.get();
        let cold = || Device { cost: CostModel::default(), best_images, lead: None };
        Devices {
            devices: std::iter::repeat_with(cold).take(count).collect(),
            max_rows: settings.max_batch_size,
            longest_run: settings.longest_run(),
        }
    }

    /// Only the first one counts.
    pub(super) fn set_cost(&mut self, device: DeviceId, cost: CostModel) {
        if !self.cost(device).is_measured() {
            self.devices[device.0].cost = cost;
            self.weigh_batch_sizes(device);
        }
    }

    pub(super) fn observe(&mut self, device: DeviceId, batch: &Measurement) {
        self.devices[device.0].cost.observe(batch);
        self.weigh_batch_sizes(device);
    }

    pub(super) fn cost(&self, device: DeviceId) -> &CostModel {
        &self.devices[device.0].cost
    }

    pub(super) fn enable_staging(&mut self, device: DeviceId) {
        self.devices[device.0].lead.get_or_insert_default();
    }

    pub(super) fn observe_lead(&mut self, device: DeviceId, took: Duration) {
        if let Some(lead) = &mut self.devices[device.0].lead {
            lead.observe(took);
        }
    }

    /// When the next batch of a worker closes whose `run` is predicted to end at `until`.
    pub(super) fn next_closes(&self, device: DeviceId, run: Run, until: Timestamp) -> Option<Timestamp> {
        let Device { cost, lead, .. } = &self.devices[device.0];
        let error = run.time.mul_f64(cost.error(run.modality));
        lead.map(|lead| lead.closes(until, error))
    }

    /// The device by which predictions are made for rows that may run on any: that of the first warm worker.
    pub(super) fn reference(&self, workers: &Workers) -> DeviceId {
        workers.ready().next().unwrap_or(DeviceId(0))
    }

    /// How many workers of the reference device the warm workers are worth, for rows of that many tokens.
    pub(super) fn capacity(&self, workers: &Workers, modality: Modality, tokens: u32) -> f64 {
        let speed = |device| self.speed(device, modality, tokens);
        workers.ready().map(speed).sum::<f64>() / speed(self.reference(workers))
    }

    /// Rows of one modality that make a batch worth closing on `device`.
    pub(super) fn full_batch(&self, device: DeviceId, modality: Modality) -> usize {
        match modality {
            Modality::Image => self.devices[device.0].best_images,
            Modality::Text => self.max_rows.text.get(),
        }
    }

    /// A job with less time left than this cannot be done in time by any worker.
    pub(super) fn shortest_run(&self, workers: &Workers, modality: Modality) -> Duration {
        let runs = workers.ready().map(|device| self.cost(device).predict(modality, 1, 1));
        runs.min().unwrap_or_default().mul_f64(SURELY)
    }

    fn weigh_batch_sizes(&mut self, device: DeviceId) {
        let Device { cost, best_images, .. } = &mut self.devices[device.0];
        *best_images = cost.best_images(self.max_rows.image.get(), self.longest_run);
    }

    /// Rows per second in full batches.
    fn speed(&self, device: DeviceId, modality: Modality, tokens: u32) -> f64 {
        let rows = self.full_batch(device, modality);
        rows as f64 / self.cost(device).price(modality, rows, tokens)
    }
}
