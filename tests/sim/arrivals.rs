//! The requests of one schedule, and the cancellations among them.
//!
//! Swarm testing (Groce and others, ISSTA 2012): each phase of a schedule leaves many features out and draws
//! its own rates for the others, because features that are always on hide each other's bugs.

use std::time::Duration;

use clipd::class::Class;
use clipd::clock::Timestamp;
use clipd::modality::Modality;
use clipd::scheduler::{Job, JobId, Settings};

use crate::rng::Rng;
use crate::service::{MAX_TOKENS, round_up};
use crate::workload::{Event, Site, Victim, sometimes};

/// A timeout that is never in a hurry.
const PATIENT: Duration = Duration::from_secs(600);

pub(crate) struct Arrivals<'a> {
    rng: &'a mut Rng,
    site: &'a Site,
    /// True mean of a full batch of the longest rows, indexed by `Modality::index`.
    full_batch: [Duration; 2],
    now: Duration,
    next_id: u64,
    /// Handlers race for the channel: a smaller id may arrive later.
    shuffled_ids: bool,
    events: Vec<(Timestamp, Event)>,
}

/// What a phase is like. Probabilities are zero where a feature is off.
struct Phase {
    mean_gap: Duration,
    /// The next request comes at the same instant.
    burst: f64,
    /// Arrivals stop every other period.
    period: Option<Duration>,
    /// Nothing happens for a second to an hour.
    long_gap: f64,
    images: f64,
    /// Each row of a request draws its own modality.
    mixed: f64,
    max_rows: usize,
    /// Up to half as many rows again as the queue holds.
    giant: f64,
    bulk: f64,
    max_tokens: u32,
    usual_timeout: Duration,
    expired: f64,
    /// By modality: the hurry of one alone takes device time from the other.
    tight: [f64; 2],
    endless: f64,
    cancel: f64,
    rush: f64,
}

impl Arrivals<'_> {
    /// At least 200 requests, in one to three phases.
    pub(crate) fn draw(rng: &mut Rng, site: &Site) -> Vec<(Timestamp, Event)> {
        let full = |modality| site.settings.max_batch_size[modality].get();
        let full_batch =
            Modality::ALL.map(|modality| site.service.mean(modality, full(modality), MAX_TOKENS));
        let shuffled_ids = rng.chance(0.3);
        let mut arrivals = Arrivals {
            rng,
            site,
            full_batch,
            now: Duration::ZERO,
            next_id: 0,
            shuffled_ids,
            events: Vec::new(),
        };
        let phases = arrivals.rng.count(1..=3);
        for _ in 0..phases {
            arrivals.phase(300 / phases);
        }
        arrivals.events
    }

    fn phase(&mut self, requests: usize) {
        let phase = self.draw_phase();
        if self.rng.chance(0.5) {
            self.long_gap();
        }
        for _ in 0..requests {
            if !self.rng.chance(phase.burst) {
                self.advance(&phase);
            }
            if self.rng.chance(phase.rush) {
                self.rush(&phase);
            }
            let request = self.request(&phase);
            self.push(Event::Submit(request));
            if self.rng.chance(phase.cancel) {
                let victims = [Victim::Queued, Victim::Queued, Victim::Started, Victim::Unknown];
                let victim = self.rng.pick(&victims);
                self.push(Event::Cancel(victim));
            }
        }
    }

    fn push(&mut self, event: Event) {
        self.events.push((self.at(), event));
    }

    fn at(&self) -> Timestamp {
        Timestamp::default().saturating_add(round_up(self.now, self.site.service.grain))
    }

    fn draw_phase(&mut self) -> Phase {
        let rng = &mut *self.rng;
        let images = rng.pick(&[0.0, 1.0, 0.1, 0.5, 0.5, 0.9]);
        let max_rows = rng.pick(&[1, 1, 2, 8]);
        // Device time of a mean request when batches are full, so that `load` is the utilisation it asks for.
        let [image, text] = self.full_batch;
        let rows = (1.0 + max_rows as f64) / 2.0;
        let [image, text] = [(image, Modality::Image), (text, Modality::Text)]
            .map(|(run, modality)| run.div_f64(self.site.settings.max_batch_size[modality].get() as f64));
        let request = (image.mul_f64(images) + text.mul_f64(1.0 - images)).mul_f64(rows);
        let load = rng.magnitude(0.1, 4.0);
        let mean_gap = request.div_f64(self.site.devices.len() as f64 * load);
        Phase {
            mean_gap,
            burst: sometimes(rng, 0.1, 0.9),
            period: rng.chance(0.3).then(|| mean_gap.mul_f64(rng.magnitude(5.0, 100.0))),
            long_gap: sometimes(rng, 0.005, 0.05),
            images,
            mixed: sometimes(rng, 0.05, 0.5),
            max_rows,
            giant: sometimes(rng, 0.005, 0.05),
            bulk: sometimes(rng, 0.1, 0.6),
            max_tokens: rng.pick(&[1, 12, MAX_TOKENS]),
            usual_timeout: Duration::from_secs_f64(rng.pick(&[0.1, 1.0, 30.0, 30.0])),
            expired: sometimes(rng, 0.01, 0.1),
            tight: [(); 2].map(|()| sometimes(rng, 0.02, 1.0)),
            endless: sometimes(rng, 0.02, 0.5),
            cancel: sometimes(rng, 0.02, 0.3),
            rush: sometimes(rng, 0.002, 0.02),
        }
    }

    fn long_gap(&mut self) {
        self.now += Duration::from_secs_f64(self.rng.magnitude(1.0, 3600.0));
    }

    fn advance(&mut self, phase: &Phase) {
        if self.rng.chance(phase.long_gap) {
            return self.long_gap();
        }
        self.now += self.rng.exponential(phase.mean_gap);
        if let Some(period) = phase.period
            && (self.now.as_nanos() / period.as_nanos().max(1)) % 2 == 1
        {
            self.now = round_up(self.now, period);
        }
    }

    /// One modality is in a hurry, batch after batch, while a little of the other waits; after a pause there
    /// is much of both. What the deadlines took must not be paid back then.
    fn rush(&mut self, phase: &Phase) {
        let Settings { max_batch_size, max_queue_size, .. } = self.site.settings;
        let [hurried, other] =
            self.rng.pick(&[[Modality::Image, Modality::Text], [Modality::Text, Modality::Image]]);
        let run = self.full_batch[hurried.index()].div_f64(self.site.devices.len() as f64);
        let (start, patient) = (self.at(), self.at().saturating_add(PATIENT));
        let little = (0..max_batch_size[other].get()).map(|_| self.job(phase, other, patient)).collect();
        self.push(Event::Submit(little));
        // Together they need most of the device until the last one's deadline; fewer would not be admitted.
        for row in 0..max_queue_size {
            let batches = (row / max_batch_size[hurried].get() + 1) as f64;
            let deadline = start.saturating_add(run.mul_f64(1.3 * batches));
            let hurry = vec![self.job(phase, hurried, deadline)];
            self.push(Event::Submit(hurry));
        }
        self.long_gap();
        let patient = self.at().saturating_add(PATIENT);
        for modality in [hurried, other] {
            let much = (0..max_queue_size).map(|_| self.job(phase, modality, patient)).collect();
            self.push(Event::Submit(much));
        }
    }

    fn request(&mut self, phase: &Phase) -> Vec<Job> {
        let giant = self.rng.chance(phase.giant);
        let most = if giant { self.site.settings.max_queue_size * 3 / 2 } else { phase.max_rows };
        let rows = self.rng.count(1..=most);
        let mixed = self.rng.chance(phase.mixed);
        let whole = self.modality(phase);
        let class = if self.rng.chance(phase.bulk) { Class::Bulk } else { Class::Interactive };
        let deadline = self.deadline(phase, whole);
        (0..rows)
            .map(|_| {
                let modality = if mixed { self.modality(phase) } else { whole };
                Job { class, ..self.job(phase, modality, deadline) }
            })
            .collect()
    }

    /// The id is unique in the schedule; shuffled ids are those of blocks of 16, in another order.
    fn job(&mut self, phase: &Phase, modality: Modality, deadline: Timestamp) -> Job {
        let id = JobId(if self.shuffled_ids { self.next_id ^ 0b1011 } else { self.next_id });
        self.next_id += 1;
        let tokens = match modality {
            Modality::Image => 0,
            Modality::Text => self.rng.count(1..=phase.max_tokens as usize) as u32,
        };
        Job { id, modality, tokens, class: Class::Interactive, deadline }
    }

    fn modality(&mut self, phase: &Phase) -> Modality {
        if self.rng.chance(phase.images) { Modality::Image } else { Modality::Text }
    }

    fn deadline(&mut self, phase: &Phase, modality: Modality) -> Timestamp {
        let at = self.at();
        if self.rng.chance(phase.expired) {
            let ago = self.rng.pick(&[Duration::ZERO, Duration::from_millis(5)]);
            return at.saturating_sub(ago);
        }
        if self.rng.chance(phase.endless) {
            return Timestamp::MAX;
        }
        let timeout = if self.rng.chance(phase.tight[modality.index()]) {
            let longest = self.full_batch[0].max(self.full_batch[1]);
            round_up(longest.mul_f64(self.rng.between(0.0, 4.0)), self.site.service.grain)
        } else {
            phase.usual_timeout
        };
        at.saturating_add(timeout)
    }
}
