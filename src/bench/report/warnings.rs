//! What makes a measurement less than it seems: of each kind and workload, the load that it is worst for.

use super::{LoadReport, Service};

/// A generator that is later than this share of the median latency measures itself.
const LATE: f64 = 0.01;

/// Other programs that take more of the machine than this have slowed the server.
const OTHERS: f64 = 0.05;

/// Fewer have no 99th percentile.
const ENOUGH: u64 = 100;

/// How bad it is, and the words for it.
type Finding = (f64, String);

type Kind<'a> = &'a dyn Fn(&LoadReport) -> Option<Finding>;

pub(super) fn of(cores: usize, services: &[Service]) -> Vec<String> {
    let others = |load: &LoadReport| others(load, cores);
    let kinds: [Kind<'_>; 5] = [&failed, &unsent, &few, &late, &others];
    let mut warnings = Vec::new();
    for service in services {
        for kind in kinds {
            let found = service.loads.iter().filter_map(|load| Some((load.arrivals, kind(load)?)));
            let worst = found.max_by(|(_, (a, _)), (_, (b, _))| a.total_cmp(b));
            warnings.extend(
                worst.map(|(load, (_, words))| format!("{}: {words} ({load})", service.workload.name())),
            );
        }
    }
    warnings
}

fn failed(load: &LoadReport) -> Option<Finding> {
    let failed = &load.counts.failed;
    let words: Vec<String> = failed.iter().map(|(code, count)| format!("{count} {code}")).collect();
    let all: u64 = failed.values().sum();
    (all > 0).then(|| (all as f64, format!("requests failed: {}", words.join(", "))))
}

fn unsent(load: &LoadReport) -> Option<Finding> {
    let unsent = load.counts.unsent;
    let words =
        format!("{unsent} requests were not sent: too many had no answer yet; try more --connections");
    (unsent > 0).then_some((unsent as f64, words))
}

fn few(load: &LoadReport) -> Option<Finding> {
    let answered = load.counts.answered;
    let words =
        format!("only {answered} answers, which say little of the slow ones; try a longer --duration");
    (answered < ENOUGH).then_some((-(answered as f64), words))
}

fn late(load: &LoadReport) -> Option<Finding> {
    let (late, median) = load.counts.lateness.mean.zip(load.counts.latency.p50)?;
    let share = late / median;
    let words = format!(
        "the generator sent {late:.2} ms late on average, {:.0} % of the median latency, which includes it",
        share * 100.0
    );
    (share > LATE).then_some((share, words))
}

fn others(load: &LoadReport, cores: usize) -> Option<Finding> {
    let share = load.other_cpu_seconds? / (load.seconds * cores as f64);
    let words = format!("other programs took {:.0} % of the machine", share * 100.0);
    (share > OTHERS).then_some((share, words))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::report::Arrivals;
    use crate::bench::tally::{Outcome, Tally};
    use crate::config::bench::Workload;

    const MILLIS: Duration = Duration::from_millis(1);

    /// A second of 200 answers in 10 ms each, sent `late`, beside programs that took `other` CPU seconds.
    fn load(late: Duration, other: f64, outcome: Outcome) -> LoadReport {
        let mut tally = Tally::new(MILLIS);
        (0..200).for_each(|_| tally.record(Outcome::Answered, 10 * MILLIS));
        tally.record(outcome, MILLIS);
        tally.late(late);
        LoadReport {
            arrivals: Arrivals::Trace,
            offered_per_second: None,
            seconds: 1.0,
            answered_per_second: 200.0,
            good_per_second: 0.0,
            counts: tally.counts(),
            generator_cpu_seconds: 0.0,
            other_cpu_seconds: Some(other),
            server: None,
        }
    }

    fn check(loads: Vec<LoadReport>, expected: &[&str]) {
        let warnings = of(2, &[Service::new(Workload::Texts, loads, None)]);
        assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
        for (warning, expected) in warnings.iter().zip(expected) {
            assert!(warning.contains(expected), "{warning}");
        }
    }

    #[test]
    fn the_worst_load_of_each_kind() {
        let fine = || load(MILLIS / 20, 0.05, Outcome::Answered);
        check(vec![fine()], &[]);
        check(vec![fine(), load(MILLIS / 2, 0.05, Outcome::Shed)], &["5 % of the median latency"]);
        check(
            vec![load(MILLIS, 0.5, Outcome::Shed), load(MILLIS / 5, 1.0, Outcome::Shed)],
            &["10 %", "50 %"],
        );
        check(vec![load(MILLIS / 20, 0.0, Outcome::Failed("INTERNAL"))], &["failed: 1 INTERNAL"]);
    }
}
