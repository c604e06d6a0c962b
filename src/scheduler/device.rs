//! What the scheduler knows of the devices: how fast each is, and so what a good batch is there.
//!
//! Every device has a cost model of its own, fed by its own batches alone. Two cards of one name may still differ in
//! speed (clocks, cooling, neighbours), and a model learns within some twenty batches; so devices that are alike
//! need not be known as such, and those that are not do not spoil each other's predictions.

use std::time::Duration;

use super::Scheduler;
use super::cost::CostModel;
use super::staging::Lead;
use super::workers::DeviceId;
use crate::modality::Modality;

#[derive(Debug)]
pub(super) struct Device {
    pub(super) cost: CostModel,
    /// Rows of the best batch of images; derived from the cost model.
    pub(super) best_images: usize,
    /// Of devices whose next batch is put together while one runs.
    pub(super) lead: Option<Lead>,
}

impl Scheduler {
    /// The device by which predictions are made for rows that may run on any: that of the first warm worker.
    pub(super) fn reference(&self) -> DeviceId {
        self.workers.ready().next().unwrap_or(DeviceId(0))
    }

    /// How many workers of the reference device the warm workers are worth, for rows of that many tokens.
    pub(super) fn capacity(&self, modality: Modality, tokens: u32) -> f64 {
        let speed = |device| self.speed(device, modality, tokens);
        self.workers.ready().map(speed).sum::<f64>() / speed(self.reference())
    }

    /// Rows of one modality that make a batch worth closing on `device`.
    pub(super) fn full_batch(&self, device: DeviceId, modality: Modality) -> usize {
        match modality {
            Modality::Image => self.devices[device.0].best_images,
            Modality::Text => self.settings.max_batch_size.text.get(),
        }
    }

    /// A job with less time left than this cannot be done in time by any worker.
    pub(super) fn shortest_run(&self, modality: Modality) -> Duration {
        let runs = self.workers.ready().map(|device| self.cost(device).predict(modality, 1, 1));
        runs.min().unwrap_or_default().mul_f64(super::SURELY)
    }

    pub(super) fn weigh_batch_sizes(&mut self, device: DeviceId) {
        let (max, longest) = (self.settings.max_batch_size.image.get(), self.longest_run());
        let device = &mut self.devices[device.0];
        device.best_images = device.cost.best_images(max, longest);
    }

    /// Rows per second in full batches.
    fn speed(&self, device: DeviceId, modality: Modality, tokens: u32) -> f64 {
        let rows = self.full_batch(device, modality);
        rows as f64 / self.cost(device).price(modality, rows, tokens)
    }
}
