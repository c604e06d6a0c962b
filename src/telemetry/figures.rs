//! Totals for people who may look at the server and not at its callers: a few metrics, summed over every label that is
//! not listed here. So no name of a key leaves, nor who called what.

use std::collections::BTreeMap;

use serde::Serialize;

use super::metrics::Metrics;
use super::names::*;

/// Totals of one moment, by metric: as [`ALL`] lists them.
pub type Figures = BTreeMap<String, Vec<Figure>>;

/// A total, and the labels that tell it apart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    #[serde(flatten)]
    pub labels: BTreeMap<&'static str, String>,
    pub value: f64,
}

/// What is shown of a metric.
struct Shown {
    name: &'static str,
    /// What `name` ends with in the text: of histograms there are several.
    part: &'static str,
    /// Labels that are told apart. All others are summed over.
    by: &'static [&'static str],
    /// Samples that count.
    of: fn(Labels<'_>) -> bool,
}

/// Labels of a sample as the text has them, `code="OK",method="Embed"`.
#[derive(Clone, Copy)]
struct Labels<'a>(&'a str);

impl<'a> Labels<'a> {
    /// Values of the labels that are asked for are words of this program, so there is no quotation mark in them.
    fn get(self, name: &str) -> Option<&'a str> {
        let mut rest = self.0;
        while let Some((label, after)) = rest.split_once("=\"") {
            let (value, after) = after.split_once('"')?;
            if label == name {
                return Some(value);
            }
            rest = after.trim_start_matches(',');
        }
        None
    }
}

const ALL: [Shown; 14] = [
    shown(BUILD_INFO, "", &["version"]),
    shown(DRAINING, "", &[]),
    shown(WORKERS, "", &["state"]),
    shown(REQUESTS, "", &["code"]),
    // What is refused or wrong is answered soonest, and a stream's duration is its life: neither is a latency.
    Shown {
        of: |labels| {
            labels.get("code") == Some("OK")
                && labels.get("method").is_some_and(|of| !of.starts_with("Stream"))
        },
        ..shown(REQUEST_DURATION, "_bucket", &["le"])
    },
    Shown {
        of: |labels| labels.get("outcome") == Some("answered"),
        ..shown(STREAM_INPUT_DURATION, "_bucket", &["le"])
    },
    shown(REQUESTS_IN_FLIGHT, "", &[]),
    shown(REJECTIONS, "", &["reason"]),
    shown(PREPROCESS_QUEUE, "", &[]),
    shown(QUEUE_ROWS, "", &["modality"]),
    shown(BATCHES, "", &["close_reason"]),
    shown(BATCH_ROWS, "_bucket", &["modality", "le"]),
    shown(BATCH_ROWS, "_sum", &["modality"]),
    shown(BATCH_ROWS, "_count", &["modality"]),
];

const fn shown(name: &'static str, part: &'static str, by: &'static [&'static str]) -> Shown {
    Shown { name, part, by, of: |_| true }
}

/// The totals of this moment. It takes as long as [`Metrics::render`].
pub fn figures(metrics: &Metrics) -> Figures {
    read(&metrics.render())
}

fn read(text: &str) -> Figures {
    let mut figures = Figures::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((sample, value)) = line.rsplit_once(' ') else { continue };
        let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
        let labels = Labels(labels);
        let shown = ALL.iter().find(|shown| name.strip_prefix(shown.name) == Some(shown.part));
        let (Some(shown), Ok(value)) = (shown, value.parse::<f64>()) else { continue };
        if !(shown.of)(labels) {
            continue;
        }
        let told = shown.by.iter().filter_map(|&by| Some((by, labels.get(by)?.to_owned()))).collect();
        let totals = figures.entry(name.to_owned()).or_default();
        match totals.iter_mut().find(|total| total.labels == told) {
            Some(total) => total.value += value,
            None => totals.push(Figure { labels: told, value }),
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP clip_requests_total Calls.
# TYPE clip_requests_total counter
clip_requests_total{method="Embed",code="OK"} 3
clip_requests_total{method="/v1/embeddings",code="OK"} 4
clip_requests_total{method="Embed",code="INTERNAL"} 1
clip_key_requests_total{key="a \"name\", code=\"OK\"",code="OK"} 7
clip_request_duration_seconds_bucket{method="Embed",code="OK",le="0.5"} 2
clip_request_duration_seconds_bucket{method="Embed",code="OK",le="+Inf"} 3
clip_request_duration_seconds_bucket{method="Classify",code="OK",le="0.5"} 1
clip_request_duration_seconds_bucket{method="Embed",code="RESOURCE_EXHAUSTED",le="0.5"} 9
clip_request_duration_seconds_bucket{method="StreamEmbed",code="OK",le="0.5"} 9
clip_request_duration_seconds_sum{method="Embed",code="OK"} 1.5
clip_batch_rows_sum{modality="image"} 12
clip_queue_rows{modality="text"} 5
clip_draining 1
process_cpu_seconds_total 12.5
"#;

    #[test]
    fn labels_that_are_not_told_apart_are_summed_over() {
        let figures = read(TEXT);
        let check = |name: &str, expected: &[(&[(&'static str, &str)], f64)]| {
            let expected: Vec<Figure> = expected
                .iter()
                .map(|(labels, value)| Figure {
                    labels: labels.iter().map(|(label, value)| (*label, (*value).to_owned())).collect(),
                    value: *value,
                })
                .collect();
            assert_eq!(figures[name], expected, "{name}");
        };
        check("clip_requests_total", &[(&[("code", "OK")], 7.0), (&[("code", "INTERNAL")], 1.0)]);
        let buckets: [(&[(&str, &str)], f64); 2] = [(&[("le", "0.5")], 3.0), (&[("le", "+Inf")], 3.0)];
        check("clip_request_duration_seconds_bucket", &buckets);
        check("clip_batch_rows_sum", &[(&[("modality", "image")], 12.0)]);
        check("clip_queue_rows", &[(&[("modality", "text")], 5.0)]);
        check("clip_draining", &[(&[], 1.0)]);
        assert_eq!(figures.len(), 5, "nothing else leaves: {figures:?}");
    }
}
