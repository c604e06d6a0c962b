//! The connection to the server: address, key, limits, and when to try again.

use std::error::Error as _;
use std::path::PathBuf;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use super::Error;
use super::flags::{ServerFlags, TlsFlags};
use crate::grpc::proto::clip_service_client::ClipServiceClient;
use crate::grpc::proto::{GetModelRequest, GetModelResponse, Limits};
use crate::grpc::status::PUSHBACK;

pub(crate) type Client = ClipServiceClient<InterceptedService<Channel, BearerKey>>;

const API_KEY: &str = "CLIPD_API_KEY";

/// A server that takes longer to accept a connection is down for a person who waits.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A silent server is pinged, so that one that vanished does not hold a stream for ever.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Room for an answer with the default 200,000 predictions, with labels of some 300 bytes.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// A server that answers, and what it says of itself.
pub(crate) struct Server {
    pub(crate) client: Client,
    pub(crate) model: GetModelResponse,
    pub(crate) limits: Limits,
    address: String,
}

impl Server {
    pub(crate) async fn connect(flags: &ServerFlags) -> Result<Server, Error> {
        let (key, address) = (BearerKey::from_environment()?, &flags.addr);
        let mut endpoint = Endpoint::from(address.clone());
        if address.scheme_str() == Some("https") {
            let unfit = |error| unreachable(&address.to_string(), &error);
            endpoint = endpoint.tls_config(tls(&flags.tls)?).map_err(unfit)?;
        }
        let channel = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .connect()
            .await
            .map_err(|error| unreachable(&address.to_string(), &error))?;
        let mut client =
            ClipServiceClient::with_interceptor(channel, key).max_decoding_message_size(MAX_ANSWER_BYTES);
        let address = address.to_string();
        let model = get_model(&mut client).await.map_err(|status| failed(&address, status))?;
        let limits = model
            .limits
            .ok_or_else(|| Error::Other(format!("{address}: the server does not tell its limits")))?;
        Ok(Server { client, model, limits, address })
    }

    /// Largest content of one input that fits a message with it alone.
    pub(crate) fn max_content_bytes(&self) -> u64 {
        // Tag, lengths and options of a message are less than this.
        const AROUND: u64 = 1024;
        self.limits.image_bytes.min(self.limits.message_bytes.saturating_sub(AROUND))
    }

    /// Why a call failed, for a person.
    pub(crate) fn failed(&self, status: Status) -> Error {
        failed(&self.address, status)
    }
}

/// Whom this client trusts, and what it shows of itself.
fn tls(flags: &TlsFlags) -> Result<ClientTlsConfig, Error> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|error| Error::Other(format!("{}: {error}", path.display())))
    };
    let mut tls = match &flags.tls_ca {
        Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    if let (Some(certificate), Some(key)) = (&flags.tls_client_cert, &flags.tls_client_key) {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(tls)
}

/// While a server warms up it says UNAVAILABLE.
async fn get_model(client: &mut Client) -> Result<GetModelResponse, Status> {
    let mut backoff = Backoff::default();
    loop {
        match client.get_model(GetModelRequest {}).await {
            Ok(response) => return Ok(response.into_inner()),
            // What cannot carry one small call is not a gRPC server.
            Err(status) if status.source().is_some() => return Err(status),
            Err(status) => backoff.wait(status).await?,
        }
    }
}

fn failed(address: &str, status: Status) -> Error {
    if let Some(source) = status.source() {
        return unreachable(address, source);
    }
    let hint = match status.code() {
        Code::Unauthenticated => "; set CLIPD_API_KEY",
        _ => "",
    };
    let message = match status.message() {
        "" => status.code().description(),
        message => message,
    };
    Error::Refused(format!("{message} ({:?}){hint}", status.code()))
}

/// The innermost cause says what happened; those around it say "transport error".
fn unreachable(address: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let address = address.trim_end_matches('/').to_owned();
    Error::Unreachable { address, cause: cause.to_string() }
}

/// `authorization: Bearer ...`, if there is a key.
#[derive(Clone)]
pub(crate) struct BearerKey(Option<MetadataValue<Ascii>>);

impl BearerKey {
    #[expect(clippy::disallowed_methods, reason = "a flag would show the key in the list of processes")]
    fn from_environment() -> Result<BearerKey, Error> {
        let Some(key) = std::env::var_os(API_KEY).filter(|key| !key.is_empty()) else {
            return Ok(BearerKey(None));
        };
        let unfit = || Error::Other(format!("{API_KEY} has characters that a header cannot have"));
        let key = key.to_str().ok_or_else(unfit)?;
        let mut value: MetadataValue<Ascii> = format!("Bearer {key}").parse().map_err(|_| unfit())?;
        // Left out of debug output, and of HTTP/2's compression tables.
        value.set_sensitive(true);
        Ok(BearerKey(Some(value)))
    }
}

impl Interceptor for BearerKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// Pauses of 0.1, 0.2, 0.4 ... 6.4 and 10 seconds: 23 seconds, in which a pod is replaced.
const MAX_TRIES: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Counts tries of one thing, and waits between them.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// Waits if another try may help; otherwise gives the status back.
    pub(crate) async fn wait(&mut self, status: Status) -> Result<(), Status> {
        if self.tries == MAX_TRIES || !may_pass(&status) {
            return Err(status);
        }
        tokio::time::sleep(self.pause(hint(&status))).await;
        Ok(())
    }

    /// Counts a try. The server's hint may make the pause longer, never shorter: many clients may have it.
    fn pause(&mut self, hint: Option<Duration>) -> Duration {
        let pause = FIRST_PAUSE * 2_u32.pow(self.tries);
        self.tries += 1;
        pause.max(hint.unwrap_or_default()).min(LONGEST_PAUSE)
    }
}

/// Overloaded, starting, draining, or the connection broke. Every call here may be repeated.
fn may_pass(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::ResourceExhausted) || status.source().is_some()
}

fn hint(status: &Status) -> Option<Duration> {
    let millis = status.metadata().get(PUSHBACK)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..MAX_TRIES).map(|_| backoff.pause(None).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 10_000]);
        let mut hinted = Backoff::default();
        assert_eq!(hinted.pause(Some(Duration::from_millis(700))).as_millis(), 700);
        assert_eq!(hinted.pause(Some(Duration::from_secs(3600))), LONGEST_PAUSE);
        assert_eq!(hinted.pause(Some(Duration::ZERO)).as_millis(), 400);
    }

    #[test]
    fn what_is_wrong_is_not_tried_again() {
        assert!(may_pass(&Status::unavailable("")) && may_pass(&Status::resource_exhausted("")));
        assert!(!may_pass(&Status::invalid_argument("")) && !may_pass(&Status::deadline_exceeded("")));
    }
}
