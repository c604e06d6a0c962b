//! The way of ended spans to the collector: a bounded queue, and a task that empties it.
//!
//! A collector that is slow or away costs spans, which are counted, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use metrics::Counter;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Status};

use super::{Options, Tracer, text};
use crate::clock::Clock;
use crate::random::random;
use crate::telemetry::metrics::Metrics;

/// Spans that wait to be sent; some 5 MB.
const QUEUE: usize = 4096;

/// Spans sent together, and how long the first waits for others.
const TOGETHER: usize = 512;
const LINGER: Duration = Duration::from_secs(1);

/// How long the collector may take, and how often it is tried while it is away.
const TIMEOUT: Duration = Duration::from_secs(10);
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// How long the end of the server waits for the last spans.
pub const FLUSH: Duration = Duration::from_secs(3);

/// Where ended spans go. Cheap to clone.
#[derive(Clone)]
pub(super) struct Outbox {
    queue: mpsc::Sender<Span>,
    full: Arc<Counter>,
}

impl Outbox {
    /// Drops it where there is no room.
    pub(super) fn put(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.full.increment(1);
        }
    }
}

/// The address of the collector cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(#[from] tonic::transport::Error);

/// What sends spans, until it is told to stop.
pub struct Exporter {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Starts to send what the tracer's spans tell. Must be called inside a tokio runtime.
pub fn start(options: &Options, clock: Clock, metrics: &Metrics) -> Result<(Tracer, Exporter), Unfit> {
    let (queue, spans) = mpsc::channel(QUEUE);
    let (stop, stopped) = oneshot::channel();
    let sender = Sender {
        collector: TraceServiceClient::new(channel(options)?),
        resource: resource(),
        exported: metrics.spans_exported(),
        failed: metrics.spans_dropped("export_failed"),
        away: false,
    };
    let task = tokio::spawn(sender.run(spans, stopped));
    let outbox = Outbox { queue, full: Arc::new(metrics.spans_dropped("queue_full")) };
    Ok((Tracer { sample: options.sample, clock, outbox }, Exporter { stop, task }))
}

impl Exporter {
    /// Sends what is left, as far as that takes no longer than [`FLUSH`].
    pub async fn finish(self) {
        let Exporter { stop, mut task } = self;
        // It fails only when the task has ended.
        let _ = stop.send(());
        if timeout(FLUSH, &mut task).await.is_err() {
            task.abort();
            tracing::warn!("the last spans were not sent: the collector took longer than {FLUSH:?}");
        }
    }
}

/// Connects when there is something to send.
fn channel(options: &Options) -> Result<Channel, Unfit> {
    let mut endpoint = Endpoint::from(options.endpoint.clone()).connect_timeout(TIMEOUT);
    if options.endpoint.scheme_str() == Some("https") {
        endpoint = endpoint.tls_config(ClientTlsConfig::new().with_native_roots())?;
    }
    Ok(endpoint.connect_lazy())
}

/// What the spans are of.
fn resource() -> Resource {
    let attributes = vec![
        text("service.name", "clipd"),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("service.instance.id", format!("{:016x}{:016x}", random(), random())),
    ];
    Resource { attributes, ..Resource::default() }
}

struct Sender {
    collector: TraceServiceClient<Channel>,
    resource: Resource,
    exported: Counter,
    failed: Counter,
    /// What was sent last did not arrive.
    away: bool,
}

impl Sender {
    async fn run(mut self, mut queue: mpsc::Receiver<Span>, mut stopped: oneshot::Receiver<()>) {
        let mut open = true;
        loop {
            let mut spans = Vec::new();
            tokio::select! {
                received = queue.recv_many(&mut spans, TOGETHER) => if received == 0 { return },
                _ = &mut stopped, if open => {
                    // What is there is still received.
                    queue.close();
                    open = false;
                    continue;
                }
            }
            let company = async {
                while spans.len() < TOGETHER {
                    let room = TOGETHER - spans.len();
                    if queue.recv_many(&mut spans, room).await == 0 {
                        break;
                    }
                }
            };
            if open {
                tokio::select! {
                    _ = timeout(LINGER, company) => {}
                    _ = &mut stopped => {
                        queue.close();
                        open = false;
                    }
                }
            } else {
                company.await;
            }
            self.export(spans).await;
        }
    }

    async fn export(&mut self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let scope = InstrumentationScope { name: "clipd".to_owned(), ..InstrumentationScope::default() };
        let spans = ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() };
        let spans = ResourceSpans {
            resource: Some(self.resource.clone()),
            scope_spans: vec![spans],
            ..ResourceSpans::default()
        };
        let request = ExportTraceServiceRequest { resource_spans: vec![spans] };
        let rejected = match self.send(request).await {
            Ok(ExportTracePartialSuccess { rejected_spans, .. }) => {
                u64::try_from(rejected_spans).unwrap_or_default().min(count)
            }
            Err(status) => {
                if !std::mem::replace(&mut self.away, true) {
                    tracing::warn!(%status, "spans do not reach the collector, and are dropped");
                }
                count
            }
        };
        self.failed.increment(rejected);
        self.exported.increment(count - rejected);
        if rejected == 0 && std::mem::take(&mut self.away) {
            tracing::info!("spans reach the collector again");
        }
    }

    async fn send(
        &mut self,
        request: ExportTraceServiceRequest,
    ) -> Result<ExportTracePartialSuccess, Status> {
        let mut tries = 0;
        loop {
            tries += 1;
            let sent = timeout(TIMEOUT, self.collector.export(request.clone())).await;
            let sent = sent.unwrap_or_else(|_| Err(Status::deadline_exceeded("it does not answer")));
            match sent.map(|response| response.into_inner()) {
                Ok(ExportTraceServiceResponse { partial_success }) => {
                    return Ok(partial_success.unwrap_or_default());
                }
                Err(status) if tries < TRIES && may_pass(&status) => sleep(PAUSE).await,
                Err(status) => return Err(status),
            }
        }
    }
}

/// Whether the same may be taken later, as OTLP has it.
fn may_pass(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Aborted
            | Code::OutOfRange
            | Code::DataLoss
    )
}
