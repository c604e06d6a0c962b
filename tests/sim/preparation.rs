//! The line of inputs that are prepared: schedules in virtual time, each decision compared with its promises, and
//! what is left of the line's throughput when far too much is asked of it.
//!
//! The checks know the bounds of the pace, not the pace: they permit every decision that some pace within explains.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use clipd::class::Class;
use clipd::clock::Timestamp;
use clipd::scheduler::Rejection;
use clipd::scheduler::preparation::{Place, Preparation, Request, Step};

use crate::checkers::{Verdict, Violation, ensure};
use crate::rng::Rng;
use crate::workload::sometimes;

const SEEDS: u64 = 500;
const REQUESTS: usize = 300;
const INTERACTIVE_TARGET: Duration = Duration::from_millis(500);
const BULK_TARGET: Duration = Duration::from_secs(3);
/// Share of the time that admission plans with.
const USABLE: f64 = 0.8;

/// All that the seeds together must reach.
const REACHED: [&str; 7] =
    ["refused", "joined", "started", "dropped: late", "dropped: expired", "failed", "left"];

#[test]
fn every_schedule_of_the_line_keeps_the_promises() {
    let mut reached = BTreeMap::new();
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        if let Err(Violation { checker, message }) = world.run() {
            panic!("seed {seed}: {checker}: {message}");
        }
        for (name, count) in world.reached {
            *reached.entry(name).or_insert(0) += count;
        }
    }
    println!("{reached:?}");
    assert!(REACHED.iter().all(|name| reached.contains_key(name)), "no schedule reached some of {REACHED:?}");
}

/// Pictures of 0.3 to 3 ms on two threads, wanted within 200 ms; every other second the engine needs the cores too.
#[test]
fn every_schedule_of_overload_leaves_the_goodput_where_it_was() {
    for seed in 0..5 {
        let of = |load: f64| goodput(&mut Rng::new(seed), load);
        let loads = [0.7, 0.9, 1.0, 1.2, 2.0, 4.0];
        let goodputs = loads.map(of);
        println!("seed {seed}: {goodputs:.2?} good of {loads:?} times what is possible");
        let best = goodputs.into_iter().fold(0.0, f64::max);
        assert!(
            goodputs[3..].iter().all(|good| *good >= 0.95 * best),
            "seed {seed}: goodput: {goodputs:.2?}"
        );
    }
}

/// Effort per second that was ready in time: of inputs, the smaller ones have better prospects.
fn goodput(rng: &mut Rng, load: f64) -> f64 {
    const SPAN: Duration = Duration::from_secs(10);
    let slowness =
        |now: Timestamp| if now.since(Timestamp::default()).as_secs().is_multiple_of(2) { 1.0 } else { 1.6 };
    // The mean of what is drawn below, at the mean slowness, on two threads.
    let mean = Duration::from_secs_f64((3e-3 - 0.3e-3) / 10f64.ln() * 1.3 / 2.0);
    let mut line = line(2);
    let mut running: BTreeMap<(Timestamp, Place), Timestamp> = BTreeMap::new();
    let mut deadlines = BTreeMap::new();
    let (mut now, mut arrival) = (Timestamp::default(), Timestamp::default());
    let mut good = Duration::ZERO;
    let mut efforts = BTreeMap::new();
    while now.since(Timestamp::default()) < SPAN {
        let ready = running.first_key_value().map(|((at, place), _)| (*at, *place));
        if let Some((at, place)) = ready
            && at <= arrival
        {
            now = at;
            let deadline = running.remove(&(at, place));
            if deadline.is_some_and(|deadline| at <= deadline) {
                good += efforts[&place];
            }
            line.done(at, place);
        } else {
            now = arrival;
            let effort = Duration::from_secs_f64(rng.magnitude(0.3e-3, 3e-3));
            let deadline = now.saturating_add(Duration::from_millis(200));
            let request = Request { efforts: &[effort], class: Class::Interactive, deadline };
            for place in line.admit(now, &request, Duration::ZERO).unwrap_or_default() {
                deadlines.insert(place, deadline);
                efforts.insert(place, effort);
            }
            arrival = arrival.saturating_add(rng.exponential(mean.div_f64(load)));
        }
        while let Some(step) = line.next(now, Duration::ZERO) {
            if let Step::Start(place) = step {
                let took = efforts[&place].mul_f64(slowness(now) * rng.between(0.7, 1.3));
                running.insert((now.saturating_add(took), place), deadlines[&place]);
            }
        }
    }
    good.div_duration_f64(SPAN)
}

fn line(threads: usize) -> Preparation {
    let threads = NonZeroUsize::new(threads).expect("it is not zero");
    Preparation::new(threads, INTERACTIVE_TARGET, BULK_TARGET)
}

/// One input before the schedule begins.
fn learn(line: &mut Preparation, slowness: f64) {
    let (now, effort) = (Timestamp::default(), Duration::from_millis(1));
    let request = Request { efforts: &[effort], class: Class::Interactive, deadline: Timestamp::MAX };
    for place in line.join(now, &request) {
        assert_eq!(line.next(now, Duration::ZERO), Some(Step::Start(place)));
        line.done(now.saturating_add(effort.mul_f64(slowness)), place);
    }
}

struct World {
    rng: Rng,
    now: Timestamp,
    serial: usize,
    agenda: BTreeMap<(Timestamp, usize), Event>,
    line: Preparation,
    threads: usize,
    /// Least and most time that an input takes per effort.
    pace: [f64; 2],
    /// Otherwise it may also be taken for 1, as before anything is learned.
    learned: bool,
    waiting: BTreeMap<Place, Input>,
    running: BTreeMap<Place, (Timestamp, Input)>,
    /// What an input needs once it is ready.
    after: Duration,
    fails: f64,
    reached: BTreeMap<&'static str, usize>,
}

#[derive(Clone, Copy, Debug)]
struct Input {
    effort: Duration,
    deadline: Timestamp,
    /// When it is due at the earliest and at the latest.
    due: [Timestamp; 2],
}

enum Event {
    Arrive(Arrival),
    /// Somebody who waits leaves.
    Leave,
    Ready(Place),
    Fail(Place),
}

struct Arrival {
    efforts: Vec<Duration>,
    class: Class,
    timeout: Duration,
    patient: bool,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let threads = rng.count(1..=4);
        let slowness = rng.magnitude(0.3, 3.0);
        let noise = rng.pick(&[0.0, 0.05, 0.3]);
        let agenda = arrivals(&mut rng, slowness / threads as f64);
        let mut line = line(threads);
        let learned = rng.chance(0.7);
        if learned {
            learn(&mut line, slowness);
        }
        World {
            now: Timestamp::default(),
            serial: agenda.len(),
            agenda,
            line,
            threads,
            learned,
            pace: [slowness * (1.0 - noise), slowness * (1.0 + noise)],
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            after: Duration::from_secs_f64(sometimes(&mut rng, 1e-3, 0.1)),
            fails: sometimes(&mut rng, 0.01, 0.5),
            reached: BTreeMap::new(),
            rng,
        }
    }

    fn run(&mut self) -> Verdict {
        while let Some(((at, _), event)) = self.agenda.pop_first() {
            self.now = at;
            match event {
                Event::Arrive(arrival) => self.arrive(&arrival)?,
                Event::Leave => self.leave(),
                Event::Ready(place) => {
                    self.running.remove(&place);
                    self.line.done(at, place);
                }
                Event::Fail(place) => {
                    self.count("failed");
                    self.running.remove(&place);
                    self.line.leave(place);
                }
            }
            self.advance()?;
        }
        ensure(self.waiting.is_empty(), "an end", || format!("{:?} wait for ever", self.waiting))
    }

    fn arrive(&mut self, arrival: &Arrival) -> Verdict {
        let deadline = self.now.saturating_add(arrival.timeout);
        let request = Request { efforts: &arrival.efforts, class: arrival.class, deadline };
        let inputs = self.inputs(&request);
        let places = if arrival.patient {
            self.count("joined");
            self.line.join(self.now, &request)
        } else {
            let answer = self.line.admit(self.now, &request, self.after);
            self.admission(&inputs, &answer)?;
            if answer.is_err() {
                self.count("refused");
            }
            answer.unwrap_or_default()
        };
        self.waiting.extend(places.into_iter().zip(inputs));
        Ok(())
    }

    fn inputs(&self, request: &Request<'_>) -> Vec<Input> {
        let target = match request.class {
            Class::Interactive => INTERACTIVE_TARGET,
            Class::Bulk => BULK_TARGET,
        };
        let mut before = Duration::ZERO;
        let input = |effort: &Duration| {
            let due = self.bounds().map(|pace| {
                let turn = before.mul_f64(pace / self.threads as f64);
                self.now.saturating_add(target).saturating_add(turn).min(request.deadline)
            });
            before += *effort;
            Input { effort: *effort, deadline: request.deadline, due }
        };
        request.efforts.iter().map(input).collect()
    }

    /// Of the pace, with room for nanoseconds that are rounded.
    fn bounds(&self) -> [f64; 2] {
        let [least, most] = self.pace;
        let [least, most] = if self.learned { [least, most] } else { [least.min(1.0), most.max(1.0)] };
        [least * 0.9999, most * 1.0001]
    }

    /// Refused for a true reason, and never admitted without a prospect.
    fn admission(&self, inputs: &[Input], answer: &Result<Vec<Place>, Rejection>) -> Verdict {
        let left = inputs[0].deadline.saturating_sub(self.after).since(self.now).mul_f64(USABLE);
        let [soonest, latest] = self.completion(inputs);
        let free = self.waiting.is_empty() && self.running.len() < self.threads;
        match answer {
            Ok(places) => {
                ensure(places.len() == inputs.len() && (free || soonest <= left), "admission", || {
                    format!("{inputs:?} have {left:?} and need at least {soonest:?}, with {:?}", self.waiting)
                })
            }
            Err(rejection) => {
                let hint = matches!(rejection, Rejection::TooLate { retry_after } if *retry_after <= latest);
                ensure(hint && !free && latest > left, "refusal", || {
                    format!("{rejection:?} of {inputs:?}, which have {left:?} and need {latest:?}")
                })
            }
        }
    }

    /// Within which time all inputs of a new request are ready, with what is surely before them, and with all that
    /// may be.
    fn completion(&self, inputs: &[Input]) -> [Duration; 2] {
        let due = |bound: usize| inputs.iter().map(|input| input.due[bound]).max().unwrap_or_default();
        let [least, most] = self.bounds();
        let completion = |pace: f64, before: &dyn Fn(&Input) -> bool| {
            let running = self
                .running
                .values()
                .map(|(start, input)| start.saturating_add(input.effort.mul_f64(pace)).since(self.now));
            let running: Duration = running.sum();
            let before: Duration =
                self.waiting.values().filter(|input| before(input)).map(|input| input.effort).sum();
            let own: Duration = inputs.iter().map(|input| input.effort).sum();
            let longest = inputs.iter().map(|input| input.effort).max().unwrap_or_default();
            let shared = (running + (before + own).mul_f64(pace)).div_f64(self.threads as f64);
            let alone = (running + before.mul_f64(pace)).div_f64(self.threads as f64) + longest.mul_f64(pace);
            shared.max(alone)
        };
        [
            completion(least, &|input| input.due[1] <= due(0)).saturating_sub(Duration::from_micros(1)),
            completion(most, &|input| input.due[0] <= due(1)) + Duration::from_micros(1),
        ]
    }

    fn leave(&mut self) {
        let rank = self.rng.count(0..=999);
        if let Some(place) = self.waiting.keys().nth(rank % self.waiting.len().max(1)).copied() {
            self.count("left");
            self.waiting.remove(&place);
            self.line.leave(place);
        }
    }

    fn advance(&mut self) -> Verdict {
        while let Some(step) = self.line.next(self.now, self.after) {
            let (Step::Start(place) | Step::Drop(place)) = step;
            let input = self.waiting.remove(&place);
            let input = input.ok_or_else(|| Violation {
                checker: "one outcome",
                message: format!("{step:?} of who does not wait"),
            })?;
            self.order(&input)?;
            match step {
                Step::Start(_) => self.start(place, input)?,
                Step::Drop(_) => self.drop(&input)?,
            }
        }
        let busy = self.running.len() == self.threads;
        ensure(busy || self.waiting.is_empty(), "idleness", || {
            format!("{} threads work while {:?} wait", self.running.len(), self.waiting)
        })
    }

    /// The most urgent goes first.
    fn order(&self, next: &Input) -> Verdict {
        let before = self.waiting.values().find(|other| other.due[1] < next.due[0]);
        ensure(before.is_none(), "order", || format!("{next:?} before {before:?}"))
    }

    fn start(&mut self, place: Place, input: Input) -> Verdict {
        self.count("started");
        let (now, Input { effort, deadline, .. }) = (self.now, input);
        let least = now.saturating_add(effort.mul_f64(self.bounds()[0])).saturating_add(self.after);
        let possible = now < deadline && (least <= deadline || self.waiting.is_empty());
        ensure(possible, "no work in vain", || format!("{input:?} starts at {now:?}"))?;
        ensure(self.running.len() < self.threads, "threads", || format!("all of {} work", self.threads))?;
        self.running.insert(place, (now, input));
        let [least, most] = self.pace;
        let took = effort.mul_f64(self.rng.between(least, most));
        let event = if self.rng.chance(self.fails) {
            (now.saturating_add(took.mul_f64(self.rng.unit())), Event::Fail(place))
        } else {
            (now.saturating_add(took), Event::Ready(place))
        };
        self.agenda.insert((event.0, self.serial), event.1);
        self.serial += 1;
        Ok(())
    }

    fn drop(&mut self, input: &Input) -> Verdict {
        let late = input.deadline <= self.now;
        self.count(if late { "dropped: expired" } else { "dropped: late" });
        let most = self.now.saturating_add(input.effort.mul_f64(self.bounds()[1])).saturating_add(self.after);
        let hopeless = late || (most > input.deadline && !self.waiting.is_empty());
        ensure(hopeless, "no need to drop", || format!("{input:?} is dropped at {:?}", self.now))
    }

    fn count(&mut self, name: &'static str) {
        debug_assert!(REACHED.contains(&name), "{name} is not listed");
        *self.reached.entry(name).or_default() += 1;
    }
}

/// `pace`: time that all threads together need per effort.
fn arrivals(rng: &mut Rng, pace: f64) -> BTreeMap<(Timestamp, usize), Event> {
    let most_inputs = rng.pick(&[1, 1, 4, 16]);
    let [smallest, largest] = rng.pick(&[[1e-3, 1e-3], [0.2e-3, 20e-3], [0.1e-3, 200e-3]]);
    let mean = (smallest + largest) / 4.0 * (1.0 + most_inputs as f64) / 2.0 * pace;
    let gap = Duration::from_secs_f64(mean / rng.magnitude(0.2, 4.0));
    let (bulk, patient, leave) =
        (sometimes(rng, 0.1, 0.6), sometimes(rng, 0.1, 1.0), sometimes(rng, 0.02, 0.3));
    let usual = rng.pick(&[0.05, 0.2, 1.0, 30.0]);
    let short = sometimes(rng, 0.02, 0.5);
    let mut now = Timestamp::default();
    let mut agenda = BTreeMap::new();
    for number in 0..REQUESTS {
        now = now.saturating_add(rng.exponential(gap));
        let inputs = rng.count(1..=most_inputs);
        let timeout = if rng.chance(short) { rng.between(0.0, 0.1) } else { usual };
        let arrival = Arrival {
            efforts: (0..inputs).map(|_| Duration::from_secs_f64(rng.magnitude(smallest, largest))).collect(),
            class: if rng.chance(bulk) { Class::Bulk } else { Class::Interactive },
            timeout: Duration::from_secs_f64(timeout),
            patient: rng.chance(patient),
        };
        let event = if rng.chance(leave) { Event::Leave } else { Event::Arrive(arrival) };
        agenda.insert((now, number), event);
    }
    agenda
}
