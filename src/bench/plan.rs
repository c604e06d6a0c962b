//! Which loads a workload is measured with, and the measurement of each.

use std::sync::Arc;
use std::time::Duration;

use super::arrivals::{self, Offer};
use super::ceiling::WorkloadCeiling;
use super::load::{Bounds, Generator, Measured};
use super::progress::Progress;
use super::report::{Arrivals, LoadReport, Service};
use super::scrape::Scrape;
use super::server::Target;
use super::workload::{self, Call};
use super::{Error, machine};
use crate::config::bench::{BenchFlags, Mode, Workload};
use crate::cpu_time::process_cpu;

/// Shares of the best rate: idle, busy, and nearly as much as it can do.
const SHARES: [f64; 3] = [0.3, 0.6, 0.9];

/// From little to more than it can do.
const RAMP: [f64; 2] = [0.1, 1.2];

/// A line for each of the most requests that a load may have.
const MAX_TRACE_BYTES: u64 = 256 << 20;

/// Requests in flight while warming up.
const WARM_UP_CONCURRENCY: u32 = 8;

pub(super) struct Plan<'a> {
    pub(super) flags: &'a BenchFlags,
    /// The times of `--trace`.
    pub(super) trace: Option<Vec<Duration>>,
    pub(super) generator: Generator,
    pub(super) target: &'a Target,
    pub(super) progress: &'a Progress,
}

/// An open loop, planned.
struct Open {
    arrivals: Arrivals,
    times: Vec<Duration>,
    /// What the times were planned for.
    span: Duration,
}

impl Plan<'_> {
    pub(super) async fn measure(
        &self,
        workload: Workload,
        calls: Arc<[Call]>,
        ceiling: Option<&WorkloadCeiling>,
    ) -> Result<Service, Error> {
        let name = workload.name();
        self.progress.step(&format!("{name}: warm-up"));
        let bounds = Bounds { duration: self.flags.warm_up, ..self.bounds() };
        self.generator.closed(&calls, WARM_UP_CONCURRENCY, bounds, self.progress).await?;
        let mut loads: Vec<LoadReport> = Vec::new();
        if self.flags.mode.contains(&Mode::Closed) {
            for concurrency in self.flags.concurrency.iter().copied() {
                let arrivals = Arrivals::Closed { concurrency };
                self.progress.step(&format!("{name}: {arrivals}"));
                let load = self.generator.closed(&calls, concurrency, self.bounds(), self.progress);
                loads.push(self.observe(workload, arrivals, None, load).await?);
            }
        }
        let best = loads.iter().map(|load| load.answered_per_second).reduce(f64::max);
        for Open { arrivals, times, span } in self.open_loops(best)? {
            self.progress.step(&format!("{name}: {arrivals}"));
            let offered = times.len() as f64 / span.as_secs_f64();
            let load = async {
                let mut measured = self.generator.open(&calls, times, self.progress).await?;
                measured.elapsed = measured.elapsed.max(span);
                Ok(measured)
            };
            loads.push(self.observe(workload, arrivals, Some(offered), load).await?);
        }
        Ok(Service::new(workload, loads, ceiling))
    }

    fn bounds(&self) -> Bounds {
        Bounds { duration: self.flags.duration, requests: self.flags.requests as usize }
    }

    /// `best` is the best rate of the closed loops.
    fn open_loops(&self, best: Option<f64>) -> Result<Vec<Open>, Error> {
        let flags = self.flags;
        let needed = || {
            best.filter(|best| *best > 0.0)
                .ok_or_else(|| Error::Other("the closed loops had no answer to plan with".to_owned()))
        };
        let rates = |shares: &[f64]| match flags.rate.as_slice() {
            [] => needed().map(|best| shares.iter().map(|share| share * best).collect()),
            rates => Ok(rates.to_vec()),
        };
        let mut loops = Vec::new();
        if flags.mode.contains(&Mode::Poisson) {
            for rate in rates(&SHARES)? {
                loops.push(self.poisson(Arrivals::Poisson { rate }, Offer::constant(rate, flags.duration)));
            }
        }
        if flags.mode.contains(&Mode::Ramp) {
            let rates = rates(&RAMP)?;
            if let (Some(&from), Some(&to)) = (rates.first(), rates.last()) {
                let offer = Offer { from, to, duration: flags.duration };
                loops.push(self.poisson(Arrivals::Ramp { from, to }, offer));
            }
        }
        if let Some(times) = &self.trace {
            loops.push(Open { arrivals: Arrivals::Trace, span: span_of(times), times: times.clone() });
        }
        Ok(loops)
    }

    fn poisson(&self, arrivals: Arrivals, offer: Offer) -> Open {
        let limit = self.flags.requests as usize;
        let times = offer.poisson(self.flags.seed, limit);
        let span = if times.len() == limit { span_of(&times) } else { offer.duration };
        Open { arrivals, times, span }
    }

    /// Runs `load`, and looks at what it cost the server, this process and the machine.
    async fn observe(
        &self,
        workload: Workload,
        arrivals: Arrivals,
        offered_per_second: Option<f64>,
        load: impl Future<Output = Result<Measured, Error>>,
    ) -> Result<LoadReport, Error> {
        let before = self.scrape().await?;
        let (cpu, busy) = (process_cpu(), machine::busy_seconds());
        let Measured { counts, elapsed } = load.await?;
        let generator_cpu_seconds = (process_cpu() - cpu).as_secs_f64();
        let busy_seconds = machine::busy_seconds().zip(busy).map(|(after, before)| after - before);
        let server =
            self.scrape().await?.zip(before).map(|(after, before)| after.since(&before, workload.modality()));
        let others = busy_seconds.zip(server.as_ref()).filter(|_| self.target.is_ours());
        let seconds = elapsed.as_secs_f64();
        Ok(LoadReport {
            arrivals,
            offered_per_second,
            seconds,
            answered_per_second: counts.answered as f64 / seconds,
            good_per_second: counts.good as f64 / seconds,
            counts,
            generator_cpu_seconds,
            other_cpu_seconds: others
                .map(|(busy, server)| (busy - server.cpu_seconds - generator_cpu_seconds).max(0.0)),
            server,
        })
    }

    async fn scrape(&self) -> Result<Option<Scrape>, Error> {
        match &self.target.metrics {
            Some(page) => Scrape::of(page).await.map(Some),
            None => Ok(None),
        }
    }
}

/// The times of `--trace`, if there is one.
pub(super) fn trace(flags: &BenchFlags) -> Result<Option<Vec<Duration>>, Error> {
    let Some(file) = &flags.trace else { return Ok(None) };
    let times = workload::text_of(file, MAX_TRACE_BYTES)
        .and_then(|text| arrivals::trace(&text, flags.requests as usize))
        .map_err(|reason| Error::Other(format!("{}: {reason}", file.display())))?;
    Ok(Some(times))
}

/// The last request's time; not nothing, which no rate can be taken over.
fn span_of(times: &[Duration]) -> Duration {
    times.last().copied().unwrap_or_default().max(Duration::from_millis(1))
}
