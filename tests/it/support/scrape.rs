//! Reads the pages of the metrics port over HTTP, as Prometheus and Kubernetes do.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The head and the text of a page.
async fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request(path).as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    let (head, text) = response.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), text.to_owned())
}

pub(crate) fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

/// Status and text of `/livez` or `/readyz`, such as `503 starting`.
pub(crate) async fn probe(address: SocketAddr, path: &str) -> String {
    let (head, text) = get(address, path).await;
    format!("{} {text}", head.split(' ').nth(1).unwrap())
}

/// Samples by name with labels, as in the text: `clip_jobs_total{outcome="completed"}`.
pub(crate) struct Scrape {
    pub(crate) text: String,
    samples: HashMap<String, f64>,
}

impl Scrape {
    pub(crate) async fn of(address: SocketAddr) -> Scrape {
        let (head, text) = get(address, "/metrics").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
        Scrape { samples: parse(&text), text }
    }

    /// As `of`, once no call is in flight: a call is counted a moment after its client has the answer.
    pub(crate) async fn quiet(address: SocketAddr) -> Scrape {
        Scrape::when(address, "clip_requests_in_flight", |calls| calls == 0.0).await
    }

    /// As `of`, once the value of a sample is `right`. A state that does not come is a failure, not a test without end.
    pub(crate) async fn when(address: SocketAddr, sample: &str, right: impl Fn(f64) -> bool) -> Scrape {
        let mut last = None;
        let found = tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                let scrape = Scrape::of(address).await;
                let value = scrape.value(sample);
                if right(value) {
                    return scrape;
                }
                last = Some(value);
                tokio::task::yield_now().await;
            }
        });
        found.await.unwrap_or_else(|_| panic!("{sample} stays {last:?}"))
    }

    /// The value of a sample; 0 if it has not been written yet.
    pub(crate) fn value(&self, sample: &str) -> f64 {
        self.samples.get(sample).copied().unwrap_or(0.0)
    }

    /// The sum over all samples whose name with labels begins so.
    pub(crate) fn sum(&self, prefix: &str) -> f64 {
        self.samples.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, value)| value).sum()
    }

    pub(crate) fn jobs(&self, outcome: &str) -> f64 {
        self.value(&format!("clip_jobs_total{{outcome=\"{outcome}\"}}"))
    }
}

fn parse(text: &str) -> HashMap<String, f64> {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}
