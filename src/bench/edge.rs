//! The edge that requests go over: gRPC, or the HTTP API.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::json::JsonCall;
use super::tally::Outcome;
use crate::cli::client::Client;
use crate::code::Code;

/// Sends requests to a server. Clones are cheap, and one connection for gRPC.
#[derive(Clone)]
pub(super) enum Sender {
    Grpc(Client),
    Http(HttpClient),
}

#[derive(Clone)]
pub(super) struct HttpClient {
    client: HyperClient<HttpConnector, Full<Bytes>>,
    server: Uri,
}

impl HttpClient {
    /// `server` is its address, as in `http://127.0.0.1:8080`.
    pub(super) fn new(server: Uri) -> HttpClient {
        HttpClient { client: HyperClient::builder(TokioExecutor::new()).build_http(), server }
    }

    pub(super) async fn send(&self, call: JsonCall, timeout: Duration) -> Outcome {
        let uri = format!("{}{}", self.server.to_string().trim_end_matches('/'), call.path);
        let request = Request::post(uri)
            .header("content-type", "application/json")
            .header("clip-timeout", timeout.as_secs_f64().to_string())
            .body(Full::new(call.body));
        let Ok(request) = request else { return Outcome::Failed(Code::Internal.as_str()) };
        let answer = async {
            let answer = self.client.request(request).await.ok()?;
            let status = answer.status();
            answer.into_body().collect().await.ok()?;
            Some(status)
        };
        match tokio::time::timeout(timeout, answer).await {
            Err(_) => Outcome::Expired,
            Ok(None) => Outcome::Failed(Code::Unavailable.as_str()),
            Ok(Some(status)) => of_status(status),
        }
    }
}

fn of_status(status: StatusCode) -> Outcome {
    match status {
        StatusCode::OK => Outcome::Answered,
        StatusCode::TOO_MANY_REQUESTS => Outcome::Shed,
        StatusCode::GATEWAY_TIMEOUT => Outcome::Expired,
        StatusCode::SERVICE_UNAVAILABLE => Outcome::Failed(Code::Unavailable.as_str()),
        status if status.is_client_error() => Outcome::Failed(Code::InvalidArgument.as_str()),
        _ => Outcome::Failed(Code::Internal.as_str()),
    }
}
