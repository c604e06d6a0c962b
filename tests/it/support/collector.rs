//! A collector of traces, which speaks OTLP, and what it has received.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::Server;
use super::scrape::Scrape;

/// Keeps what it is sent.
#[derive(Clone, Default)]
pub(crate) struct Collector {
    pub(crate) received: Arc<Mutex<Vec<Span>>>,
    /// It takes what it is sent, and never says so.
    pub(crate) mute: bool,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if self.mute {
            std::future::pending::<()>().await;
        }
        for of_resource in request.into_inner().resource_spans {
            let resource = of_resource.resource.unwrap();
            let name = resource.attributes.iter().find(|each| each.key == "service.name").unwrap();
            assert_eq!(name.value.as_ref().unwrap().value, Some(Value::StringValue("clipd".to_owned())));
            self.received
                .lock()
                .unwrap()
                .extend(of_resource.scope_spans.into_iter().flat_map(|each| each.spans));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// The flag of a server that sends its spans here.
    pub(crate) async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let flag = format!("--otlp-endpoint=http://{}", listener.local_addr().unwrap());
        let serving = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(self.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serving);
        flag
    }

    /// All that the server has told at its end.
    pub(crate) async fn of(&self, server: Server) -> Spans {
        Scrape::quiet(server.running.metrics_address).await;
        server.running.shutdown().await.unwrap();
        Spans(self.received.lock().unwrap().clone())
    }
}

pub(crate) struct Spans(pub(crate) Vec<Span>);

impl Spans {
    pub(crate) fn named(&self, name: &str) -> Vec<&Span> {
        self.0.iter().filter(|span| span.name == name).collect()
    }

    #[track_caller]
    pub(crate) fn one(&self, name: &str) -> &Span {
        let named = self.named(name);
        assert_eq!(named.len(), 1, "{name}: {named:?}");
        named[0]
    }

    /// Its children, by their beginning.
    pub(crate) fn children(&self, parent: &Span) -> Vec<&Span> {
        let mut children: Vec<&Span> =
            self.0.iter().filter(|span| span.parent_span_id == parent.span_id).collect();
        children.sort_by_key(|span| span.start_time_unix_nano);
        for child in &children {
            assert_eq!(child.trace_id, parent.trace_id, "{child:?}");
            assert!(child.start_time_unix_nano >= parent.start_time_unix_nano, "{child:?} of {parent:?}");
            assert!(child.end_time_unix_nano >= child.start_time_unix_nano, "{child:?}");
        }
        children
    }

    /// Of a span.
    pub(crate) fn stages(&self, parent: &Span) -> Vec<&str> {
        self.children(parent).iter().map(|child| child.name.as_str()).collect()
    }
}

/// An attribute, as text.
#[track_caller]
pub(crate) fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    let found = found.unwrap_or_else(|| panic!("no {key}: {span:?}"));
    match found.value.as_ref().unwrap().value.as_ref().unwrap() {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => panic!("{key}: {other:?}"),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
