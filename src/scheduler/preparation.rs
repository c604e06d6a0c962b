//! Which input is prepared next, and which are not worth it any more: the line before the scheduler's queues.
//!
//! Pictures are decoded on a few threads, and where that takes longer than the engine does, it is here that they
//! wait. So the rules are those of the queues: inputs that are predicted to be ready too late are refused, the most
//! urgent goes first, and what cannot be ready in time any more is dropped. It is as pure a state machine as the
//! scheduler, and sees how much work an input is, never a picture.
//!
//! An input brings its *effort*: what preparing it takes on some machine with nothing else to do. Here it takes its
//! effort times the *pace*, which is learned from what inputs took by the clock. A slower machine shows in it, and
//! so does all that the engine and the network take from the same cores.
//!
//! It is driven like the scheduler: call `admit`, `join`, `done` and `leave` as events arrive, and after each of them
//! `next` until it returns `None`. It needs no wake-up: where a thread is free nothing waits, and where none is,
//! nothing can start.
//! Its length is bounded by the calls and streams that the edge lets in.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use super::Rejection;
use super::outlook::USABLE;
use crate::class::Class;
use crate::clock::Timestamp;

/// Where an input stands; the earliest is next. Unique among the inputs of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    due: Timestamp,
    number: u64,
}

/// Inputs of one request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// One per input, none of them zero.
    pub efforts: &'a [Duration],
    pub class: Class,
    /// By then the engine must be done too.
    pub deadline: Timestamp,
}

/// What the shell must do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Prepare it on a thread of its own.
    Start(Place),
    /// It cannot be ready in time any more.
    Drop(Place),
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    effort: Duration,
    deadline: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    effort: Duration,
    start: Timestamp,
    /// As predicted.
    until: Timestamp,
}

#[derive(Debug)]
pub struct Preparation {
    threads: usize,
    /// An interactive input counts as due this long after its arrival.
    interactive_target: Duration,
    /// The same of bulk work.
    bulk_target: Duration,
    waiting: BTreeMap<Place, Waiting>,
    running: BTreeMap<Place, Running>,
    joined: u64,
    pace: Pace,
}

impl Preparation {
    pub fn new(threads: NonZeroUsize, interactive_target: Duration, bulk_target: Duration) -> Preparation {
        Preparation {
            threads: threads.get(),
            interactive_target,
            bulk_target,
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            joined: 0,
            pace: Pace::default(),
        }
    }

    /// Lets all inputs of a request join, or none; their places in order. `after` is what they need once they are
    /// ready.
    pub fn admit(
        &mut self,
        now: Timestamp,
        request: &Request<'_>,
        after: Duration,
    ) -> Result<Vec<Place>, Rejection> {
        // Where a thread is free and nothing waits, the attempt costs nobody anything; and if the prediction is
        // wrong, it is how the pace is learned.
        if self.running.len() == self.threads || !self.waiting.is_empty() {
            let left = request.deadline.saturating_sub(after).since(now).mul_f64(USABLE);
            let needed = self.completion(now, request);
            if needed > left {
                return Err(Rejection::TooLate { retry_after: needed - left });
            }
        }
        Ok(self.join(now, request))
    }

    /// As `admit`, of inputs that would rather wait than be refused.
    pub fn join(&mut self, now: Timestamp, request: &Request<'_>) -> Vec<Place> {
        let mut before = Duration::ZERO;
        let join = |effort: &Duration| {
            let place = Place { due: self.due(now, request, before), number: self.joined };
            self.joined += 1;
            before += *effort;
            self.waiting.insert(place, Waiting { effort: *effort, deadline: request.deadline });
            place
        };
        request.efforts.iter().map(join).collect()
    }

    /// How long until all inputs of a request that joins now are predicted to be ready.
    pub fn completion(&self, now: Timestamp, request: &Request<'_>) -> Duration {
        let Some(last) = request.efforts.last() else { return Duration::ZERO };
        let own: Duration = request.efforts.iter().sum();
        let longest = request.efforts.iter().max().copied().unwrap_or_default();
        let due = self.due(now, request, own.saturating_sub(*last));
        let before = self.waiting.range(..=Place { due, number: u64::MAX });
        let before: Duration = before.map(|(_, waiting)| waiting.effort).sum();
        let running: Duration = self.running.values().map(|running| running.until.since(now)).sum();
        // One input is on one thread, however many there are.
        let own = self.shared(own).max(self.pace.of(longest));
        running.div_f64(self.threads as f64) + self.shared(before) + own
    }

    /// The input is ready, and what it took corrects the pace.
    pub fn done(&mut self, now: Timestamp, place: Place) {
        if let Some(Running { effort, start, .. }) = self.running.remove(&place) {
            self.pace.learn(effort, now.since(start));
        }
    }

    /// Nobody waits for the input any more, or it cannot be prepared: it may have failed long before its end, which
    /// says nothing of the pace.
    pub fn leave(&mut self, place: Place) {
        if self.waiting.remove(&place).is_none() {
            self.running.remove(&place);
        }
    }

    /// The next thing to do at `now`, or `None` until the next event. `after` is what an input needs now once it is
    /// ready; that may have changed since it joined.
    pub fn next(&mut self, now: Timestamp, after: Duration) -> Option<Step> {
        if self.running.len() == self.threads {
            return None;
        }
        let (place, Waiting { effort, deadline }) = self.waiting.pop_first()?;
        let until = now.saturating_add(self.pace.of(effort));
        // Again, where nothing else waits, an attempt costs nobody anything.
        let hopeless =
            if self.waiting.is_empty() { now >= deadline } else { until.saturating_add(after) > deadline };
        if hopeless {
            return Some(Step::Drop(place));
        }
        self.running.insert(place, Running { effort, start: now, until });
        Some(Step::Start(place))
    }

    /// By when an input should be ready that has this much of its own request before it: a large request is due
    /// piece by piece, as it can be done, and what comes after it does not wait behind the whole of it.
    fn due(&self, now: Timestamp, request: &Request<'_>, before: Duration) -> Timestamp {
        let target = match request.class {
            Class::Interactive => self.interactive_target,
            Class::Bulk => self.bulk_target,
        };
        now.saturating_add(target).saturating_add(self.shared(before)).min(request.deadline)
    }

    /// What much work takes on all threads together.
    fn shared(&self, effort: Duration) -> Duration {
        self.pace.of(effort).div_f64(self.threads as f64)
    }
}

/// Time by the clock per effort: of all inputs, of which each counts for a little less than the one after it.
#[derive(Debug, Default)]
struct Pace {
    effort: Duration,
    elapsed: Duration,
}

/// What is left of an input's weight when the next one is learned: some twenty count, which are tens of milliseconds
/// of small pictures. The engine may take and give back its cores as quickly.
const KEPT: f64 = 0.95;

impl Pace {
    fn of(&self, effort: Duration) -> Duration {
        if self.effort.is_zero() {
            return effort;
        }
        effort.mul_f64(self.elapsed.as_secs_f64() / self.effort.as_secs_f64())
    }

    fn learn(&mut self, effort: Duration, elapsed: Duration) {
        self.effort = self.effort.mul_f64(KEPT) + effort;
        self.elapsed = self.elapsed.mul_f64(KEPT) + elapsed;
    }
}
