//! The line of images that are decoded and resized on a few blocking threads.
//!
//! It holds images and reply channels and does what [`Preparation`] decides; it has no policy of its own. An image
//! that joins becomes a [`Pending`], which gives its row. Dropping that takes the image out of the line; one that is
//! being prepared already ends unheard.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use metrics::{Gauge, Histogram};
use tokio::sync::oneshot;

use super::ImageSource;
use super::error::{Error, InputError, Part, Place as Field};
use super::preprocess::Queued;
use crate::admission::Deadline;
use crate::batcher::Handle;
use crate::class::Class;
use crate::clip::image::{ImageError, ImagePreprocessor};
use crate::clip::row::ImageRow;
use crate::clock::{Clock, Timestamp};
use crate::modality::Modality;
use crate::scheduler::Rejection;
use crate::scheduler::outlook::Arrival;
use crate::scheduler::preparation::{Place, Preparation, Request, Step};
use crate::telemetry::metrics::{Metrics, RecordDuration};

pub(super) struct Line {
    images: ImagePreprocessor,
    /// Where the rows go, and so what more time they need.
    batcher: Handle,
    state: Mutex<State>,
    clock: Clock,
    queue: Gauge,
    wait: Histogram,
    duration: Histogram,
}

struct State {
    preparation: Preparation,
    waiting: HashMap<Place, Waiting>,
}

struct Waiting {
    pixels: Pixels,
    since: Timestamp,
    reply: oneshot::Sender<Reply>,
}

/// An image that may join the line.
pub(super) struct Image {
    /// Of the pixels in the request.
    field: Field,
    pixels: Pixels,
    /// Zero: it is only copied, at once and beside the line.
    effort: Duration,
}

enum Pixels {
    Encoded(Bytes),
    Rgb { width: u32, height: u32, pixels: Bytes },
}

type Prepared = Result<ImageRow, ImageError>;

enum Reply {
    Prepared(Prepared),
    /// The decoder has met a file that nobody foresaw: that input's fault.
    Panicked,
    /// It could not be ready in time any more.
    TooLate,
}

/// An image on its way to its row.
pub(super) struct Pending {
    field: Field,
    standing: Standing,
}

enum Standing {
    Prepared(Prepared),
    InLine { spot: Spot, reply: oneshot::Receiver<Reply>, _queued: Queued },
}

/// A place in the line until dropped.
struct Spot {
    line: Arc<Line>,
    place: Place,
}

impl Line {
    pub(super) fn new(
        images: ImagePreprocessor,
        preparation: Preparation,
        batcher: Handle,
        clock: Clock,
        metrics: &Metrics,
    ) -> Line {
        Line {
            images,
            batcher,
            state: Mutex::new(State { preparation, waiting: HashMap::new() }),
            clock,
            queue: metrics.preprocess_queue(),
            wait: metrics.preprocess_queue_duration(Modality::Image),
            duration: metrics.preprocess_duration(Modality::Image),
        }
    }

    /// `input` is its number in the request.
    pub(super) fn image(&self, input: usize, source: ImageSource) -> Result<Image, InputError> {
        Ok(match source {
            ImageSource::Encoded(bytes) => Image {
                field: Field::Input(input, Part::Encoded),
                effort: self.images.encoded_effort(&bytes),
                pixels: Pixels::Encoded(bytes),
            },
            ImageSource::Rgb { width, height, pixels } => Image {
                field: Field::Input(input, Part::Pixels),
                effort: self.images.rgb_effort(width, height),
                pixels: Pixels::Rgb { width, height, pixels },
            },
            ImageSource::Wrong(part, message) => {
                return Err(InputError { place: Field::Input(input, part), message });
            }
        })
    }

    /// How long these images would take until all are ready.
    pub(super) fn completion(&self, images: &[Image], deadline: Deadline) -> Duration {
        let efforts = efforts(images);
        self.lock().preparation.completion(self.clock.now(), &request(&efforts, deadline))
    }

    /// Lets all images join, unless they would be done too late.
    pub(super) fn admit(
        self: &Arc<Self>,
        images: Vec<Image>,
        deadline: Deadline,
    ) -> Result<Vec<Pending>, Rejection> {
        let (efforts, now) = (efforts(&images), self.clock.now());
        let after = self.after(images.len(), deadline.class);
        let mut state = self.lock();
        let places = state.preparation.admit(now, &request(&efforts, deadline), after)?;
        Ok(self.enter(state, images, places))
    }

    /// Lets all images join, however long they may wait.
    pub(super) fn join(self: &Arc<Self>, images: Vec<Image>, deadline: Deadline) -> Vec<Pending> {
        let (efforts, now) = (efforts(&images), self.clock.now());
        let mut state = self.lock();
        let places = state.preparation.join(now, &request(&efforts, deadline));
        self.enter(state, images, places)
    }

    /// `places` are those of the images that take an effort.
    fn enter(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        images: Vec<Image>,
        places: Vec<Place>,
    ) -> Vec<Pending> {
        let now = self.clock.now();
        let mut places = places.into_iter();
        let mut pending = Vec::with_capacity(images.len());
        for Image { field, pixels, effort } in images {
            let place = if effort.is_zero() { None } else { places.next() };
            let standing = match place {
                None => Standing::Prepared(self.row(&pixels)),
                Some(place) => {
                    let (sender, reply) = oneshot::channel();
                    state.waiting.insert(place, Waiting { pixels, since: now, reply: sender });
                    let spot = Spot { line: self.clone(), place };
                    Standing::InLine { spot, reply, _queued: Queued::new(&self.queue) }
                }
            };
            pending.push(Pending { field, standing });
        }
        drop(state);
        self.advance();
        pending
    }

    /// Does what is to be done now. Called after every event.
    fn advance(self: &Arc<Self>) {
        let now = self.clock.now();
        let after = self.after(1, Class::Interactive);
        for (step, waiting) in self.steps(now, after) {
            self.wait.record_duration(now.since(waiting.since));
            match step {
                Step::Start(place) => {
                    let line = self.clone();
                    tokio::task::spawn_blocking(move || line.prepare(place, waiting));
                }
                // Nobody waits for it if this fails.
                Step::Drop(_) => drop(waiting.reply.send(Reply::TooLate)),
            }
        }
    }

    fn steps(&self, now: Timestamp, after: Duration) -> Vec<(Step, Waiting)> {
        let mut state = self.lock();
        let mut steps = Vec::new();
        while let Some(step) = state.preparation.next(now, after) {
            let (Step::Start(place) | Step::Drop(place)) = step;
            let waiting = state.waiting.remove(&place);
            let waiting = waiting.unwrap_or_else(|| unreachable!("who leaves, leaves both"));
            steps.push((step, waiting));
        }
        steps
    }

    /// What rows need now once they are ready.
    fn after(&self, rows: usize, class: Class) -> Duration {
        self.batcher.needed(&Arrival { modality: Modality::Image, rows, class, deadline: Timestamp::MAX })
    }

    /// On a blocking thread.
    fn prepare(self: Arc<Self>, place: Place, waiting: Waiting) {
        let start = self.clock.now();
        // A preprocessor that panics has changed nothing of its own.
        let row = catch_unwind(AssertUnwindSafe(|| self.row(&waiting.pixels)));
        let end = self.clock.now();
        self.duration.record_duration(end.since(start));
        {
            let mut state = self.lock();
            match row {
                Ok(Ok(_)) => state.preparation.done(end, place),
                _ => state.preparation.leave(place),
            }
        }
        // Nobody waits for it if this fails.
        let _ = waiting.reply.send(row.map_or(Reply::Panicked, Reply::Prepared));
        self.advance();
    }

    fn row(&self, pixels: &Pixels) -> Prepared {
        match pixels {
            Pixels::Encoded(bytes) => self.images.encoded(bytes),
            Pixels::Rgb { width, height, pixels } => self.images.rgb(*width, *height, pixels),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// Of what is wrong with the image, the error is [`Error::Invalid`].
    pub(super) async fn row(self) -> Result<ImageRow, Error> {
        let Pending { field, standing } = self;
        let prepared = match standing {
            Standing::Prepared(prepared) => prepared,
            Standing::InLine { spot, reply, _queued } => {
                let reply = reply.await;
                drop(spot);
                match reply {
                    Ok(Reply::Prepared(prepared)) => prepared,
                    Ok(Reply::Panicked) => {
                        return Err(Error::Invalid(InputError::new(field, "the image cannot be decoded")));
                    }
                    Ok(Reply::TooLate) => return Err(Error::DeadlineExceeded),
                    // The runtime has dropped the work.
                    Err(_) => return Err(Error::Unavailable("the server is shutting down")),
                }
            }
        };
        prepared.map_err(|error| Error::Invalid(InputError::new(field, error)))
    }
}

impl Drop for Spot {
    fn drop(&mut self) {
        let mut state = self.line.lock();
        // Not of one that is being prepared: it still has its thread.
        if state.waiting.remove(&self.place).is_some() {
            state.preparation.leave(self.place);
        }
    }
}

fn efforts(images: &[Image]) -> Vec<Duration> {
    images.iter().map(|image| image.effort).filter(|effort| !effort.is_zero()).collect()
}

fn request(efforts: &[Duration], deadline: Deadline) -> Request<'_> {
    Request { efforts, class: deadline.class, deadline: deadline.done_by }
}
