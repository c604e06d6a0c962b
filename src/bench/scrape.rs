//! What the server says of itself: its `/metrics` before and after a load, and the difference.
//!
//! Of the exposition format it reads what clipd writes: a sample per line, its value after the last space.

use std::collections::{BTreeMap, HashMap};

use http::Uri;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;

use super::Error;
use crate::modality::Modality;
use crate::telemetry::names::{BATCH_ROWS, PROCESS_CPU_SECONDS, REJECTIONS};

/// clipd's page has some 20,000.
const MAX_PAGE_BYTES: usize = 4 << 20;

/// Every sample of one moment, by name and labels.
pub(super) struct Scrape(HashMap<String, f64>);

/// What a server did during a load.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Work {
    /// Of the whole process.
    pub(super) cpu_seconds: f64,
    /// Of the load's modality.
    pub(super) batches: u64,
    /// Rows of those batches.
    pub(super) rows: u64,
    /// Batches of at most as many rows as the bucket says, and more than the bucket before.
    pub(super) batch_rows: Vec<Bucket>,
    /// Refused calls by reason.
    pub(super) rejections: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Bucket {
    /// The last bucket has no end.
    pub(super) up_to: Option<u64>,
    pub(super) batches: u64,
}

impl Scrape {
    pub(super) async fn of(page: &Uri) -> Result<Scrape, Error> {
        let failed = |reason: String| Error::Other(format!("{page}: {reason}"));
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<bytes::Bytes>>();
        let response = client.get(page.clone()).await.map_err(|error| failed(error.to_string()))?;
        if !response.status().is_success() {
            return Err(failed(response.status().to_string()));
        }
        let body = Limited::new(response.into_body(), MAX_PAGE_BYTES).collect().await;
        let body = body.map_err(|error| failed(error.to_string()))?.to_bytes();
        Ok(Scrape::parse(&String::from_utf8_lossy(&body)))
    }

    fn parse(text: &str) -> Scrape {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Scrape(samples.collect())
    }

    /// What happened from `earlier` to this.
    pub(super) fn since(&self, earlier: &Scrape, modality: Modality) -> Work {
        let modality = modality.as_str();
        let batch = |part: &str| {
            count(self.grown(earlier, &format!("{BATCH_ROWS}_{part}{{modality=\"{modality}\"}}")))
        };
        let rejections = self.0.keys().filter_map(|sample| {
            let reason = sample.strip_prefix(REJECTIONS)?.strip_prefix("{reason=\"")?.strip_suffix("\"}")?;
            Some((reason.to_owned(), count(self.grown(earlier, sample))))
        });
        Work {
            cpu_seconds: self.grown(earlier, PROCESS_CPU_SECONDS),
            batches: batch("count"),
            rows: batch("sum"),
            batch_rows: self.buckets(earlier, modality),
            rejections: rejections.filter(|(_, refused)| *refused > 0).collect(),
        }
    }

    /// Prometheus counts up to each bucket's end; the report counts inside each.
    fn buckets(&self, earlier: &Scrape, modality: &str) -> Vec<Bucket> {
        let prefix = format!("{BATCH_ROWS}_bucket{{modality=\"{modality}\",le=\"");
        let mut ends: Vec<(Option<u64>, u64)> = self
            .0
            .keys()
            .filter_map(|sample| {
                let end = sample.strip_prefix(&prefix)?.strip_suffix("\"}")?;
                Some((end.parse().ok(), count(self.grown(earlier, sample))))
            })
            .collect();
        ends.sort_by_key(|(end, _)| end.unwrap_or(u64::MAX));
        let below = std::iter::once(0).chain(ends.iter().map(|(_, batches)| *batches));
        let buckets = ends.iter().zip(below);
        buckets
            .map(|(&(up_to, batches), below)| Bucket { up_to, batches: batches.saturating_sub(below) })
            .collect()
    }

    fn grown(&self, earlier: &Scrape, sample: &str) -> f64 {
        let value = |scrape: &Scrape| scrape.0.get(sample).copied().unwrap_or(0.0);
        value(self) - value(earlier)
    }
}

fn count(value: f64) -> u64 {
    value.max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    #[test]
    fn a_difference_of_two_pages_of_our_own() {
        let metrics = Metrics::new();
        let rows = metrics.batch_rows(Modality::Image);
        let refused = metrics.rejections("queue_full");
        rows.record(1.0);
        let before = Scrape::parse(&metrics.render());
        [2.0, 8.0, 8.0, 1000.0].iter().for_each(|size| rows.record(*size));
        metrics.batch_rows(Modality::Text).record(16.0);
        refused.increment(3);
        let after = Scrape::parse(&metrics.render());
        let work = after.since(&before, Modality::Image);
        assert_eq!((work.batches, work.rows), (4, 1018));
        let of = |up_to| work.batch_rows.iter().find(|bucket| bucket.up_to == up_to).unwrap().batches;
        assert_eq!((of(Some(1)), of(Some(2)), of(Some(4)), of(Some(8)), of(None)), (0, 1, 0, 2, 1));
        assert_eq!(work.rejections, BTreeMap::from([("queue_full".to_owned(), 3)]));
        assert!(work.cpu_seconds >= 0.0);
        assert!(after.0.contains_key(PROCESS_CPU_SECONDS), "metrics-process names it so");
    }
}
