//! Where calls come in: takes each through the [`Door`] before its body is read, and counts it by its trailers.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Interceptor;
use tower_service::Service;

use super::{gzip, proto, status, timeout};
use crate::admission::{Caller, Counted, Door, Kind, Metered, Method, RequestId, Status};
use crate::code::Code;
use crate::connections::Peer;

/// Those of the protocol.
static METHODS: LazyLock<Vec<Method>> = LazyLock::new(|| {
    let descriptors = FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap_or_default();
    let services = descriptors.file.into_iter().flat_map(|file| file.service);
    let methods = services.flat_map(|service| service.method).map(|method| Method {
        kind: if method.client_streaming() || method.server_streaming() { Kind::Stream } else { Kind::Unary },
        // Once for the process.
        name: String::leak(method.name.unwrap_or_default()),
    });
    methods.collect()
});

/// Shared by all names that nobody has.
const UNKNOWN: Method = Method { name: "unknown", kind: Kind::Unary };

#[derive(Clone)]
pub(super) struct Entrance<S> {
    inner: S,
    door: Door,
    max_message_bytes: usize,
}

impl<S> Entrance<S> {
    pub(super) fn new(inner: S, door: Door, max_message_bytes: usize) -> Entrance<S> {
        Entrance { inner, door, max_message_bytes }
    }
}

/// Shows the series of every method before its first call.
pub(super) fn announce(door: &Door) {
    METHODS.iter().for_each(|method| door.announce(*method));
}

impl<S: NamedService> NamedService for Entrance<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Entrance<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let method = method(request.uri().path());
        let request_id = RequestId::of(request.headers());
        let caller = Caller {
            headers: request.headers(),
            request_id: &request_id,
            asked: timeout::of(request.headers()),
            peer: request.extensions().get::<Arc<Peer>>(),
        };
        let mut pass = match self.door.enter(method, caller) {
            Ok(pass) => pass,
            Err(no) => {
                let mut response = status::no_entry(&no).into_http();
                request_id.put(response.headers_mut());
                return Box::pin(std::future::ready(Ok(response)));
            }
        };
        let admitted = pass.admitted().clone();
        request.extensions_mut().insert(admitted.clone());
        let request = match method.kind {
            Kind::Unary => {
                let call = admitted.clone();
                let metered =
                    request.map(|body| Body::new(Metered::new(body, call).map_err(status::from_fault)));
                gzip::accept(metered, self.max_message_bytes, Some(admitted))
            }
            // What they hold is counted by message.
            Kind::Stream => gzip::accept(request, self.max_message_bytes, None),
        };
        let response = self.inner.call(request);
        Box::pin(async move {
            let mut response = response.await?;
            request_id.put(response.headers_mut());
            // An answer that is only an error has no trailers.
            if let Some(code) = code(response.headers()) {
                pass.finish(code);
            }
            if let Some(taken_by) = pass.taken_by() {
                response.extensions_mut().insert(taken_by);
            }
            Ok(response.map(|body| Body::new(Counted::new(body, pass, Status::InTrailers(code)))))
        })
    }
}

/// Asks for a key, where there are keys: for services that are not counted. `None`: they are open all the same.
#[derive(Clone)]
pub(super) struct Lock(pub(super) Option<Door>);

impl Interceptor for Lock {
    fn call(&mut self, request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        if let Some(door) = &self.0 {
            let known = door.identify(request.metadata().as_ref(), request.extensions().get::<Arc<Peer>>());
            known.map_err(|unknown| status::no_entry(&unknown.into()))?;
        }
        Ok(request)
    }
}

fn code(headers: &HeaderMap) -> Option<Code> {
    let value = headers.get(tonic::Status::GRPC_STATUS)?;
    Some(Code::from_number(tonic::Code::from_bytes(value.as_bytes()) as i32))
}

/// That of the last segment of the path.
fn method(path: &str) -> Method {
    let name = path.rsplit('/').next().unwrap_or_default();
    METHODS.iter().find(|method| method.name == name).copied().unwrap_or(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_those_of_the_protocol_and_unknown_ones_share_a_label() {
        assert_eq!(method("/clip.v1.ClipService/Embed"), Method { name: "Embed", kind: Kind::Unary });
        let stream = Method { name: "StreamEmbed", kind: Kind::Stream };
        assert_eq!(method("/clip.v1.ClipService/StreamEmbed"), stream);
        assert_eq!(method("/clip.v1.ClipService/evil-label"), UNKNOWN);
        assert_eq!(METHODS.len(), 6);
    }
}
