//! Where calls come in: takes each through the [`Door`](crate::admission::Door) before its body is read, and counts it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::middleware::Next;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Limited};
use serde::Serialize;

use super::Edge;
use super::problem::{Place, Problem};
use crate::admission::{Admitted, Caller, Counted, Deadline, Fault, Metered, Method, RequestId, Status};
use crate::auth::Quota;
use crate::class::Class;
use crate::code::Code;
use crate::connections::Peer;
use crate::long_work;
use crate::pipeline::Timing;

/// One of the paths, and what answers its calls.
#[derive(Clone, Copy)]
pub(super) struct Endpoint {
    pub(super) method: Method,
    pub(super) answer: Answer,
}

pub(super) type Answer = fn(Arc<Edge>, Asked) -> Answering;
pub(super) type Answering = Pin<Box<dyn Future<Output = Result<Reply, Problem>> + Send>>;

/// A request whose body is here.
pub(super) struct Asked {
    pub(super) body: Bytes,
    pub(super) admitted: Admitted,
    pub(super) deadline: Deadline,
    /// Whether inputs may have errors of their own.
    pub(super) partial: bool,
}

/// JSON, and where the time went.
pub(super) struct Reply {
    body: Vec<u8>,
    timing: Option<Timing>,
}

impl Reply {
    /// `bytes` is what the answer takes, nearly.
    pub(super) fn new(answer: &impl Serialize, bytes: usize, timing: Timing) -> Result<Reply, Problem> {
        let body = long_work::over(bytes, || serde_json::to_vec(answer));
        let body = body.map_err(|error| Problem::internal(format!("writing an answer: {error}")))?;
        Ok(Reply { body, timing: Some(timing) })
    }
}

const FINGERPRINT: HeaderName = HeaderName::from_static("clip-fingerprint");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(super) async fn call(edge: Arc<Edge>, endpoint: Endpoint, request: Request<Body>) -> Response<Body> {
    let request_id = RequestId::of(request.headers());
    let caller = Caller {
        headers: request.headers(),
        request_id: &request_id,
        asked: timeout(request.headers()),
        peer: request.extensions().get::<Arc<Peer>>(),
    };
    let mut response = match edge.door.enter(endpoint.method, caller) {
        Err(no) => Problem::no_entry(&no).response(),
        Ok(pass) => {
            let admitted = pass.admitted().clone();
            let (code, mut response) = match reply(&edge, endpoint, request, &admitted).await {
                Ok(reply) => (Code::Ok, ok(&edge, reply)),
                Err(problem) => (problem.code, problem.response()),
            };
            if let Some(Quota { limit, remaining }) = pass.quota() {
                let headers = response.headers_mut();
                headers.insert("x-ratelimit-limit-requests", HeaderValue::from(limit));
                headers.insert("x-ratelimit-remaining-requests", HeaderValue::from(remaining));
            }
            if let Some(taken_by) = pass.taken_by() {
                response.extensions_mut().insert(taken_by);
            }
            response.map(|body| Body::new(Counted::new(body, pass, Status::Known(code))))
        }
    };
    request_id.put(response.headers_mut());
    response
}

async fn reply(
    edge: &Arc<Edge>,
    endpoint: Endpoint,
    request: Request<Body>,
    admitted: &Admitted,
) -> Result<Reply, Problem> {
    let headers = request.headers();
    check_content(headers)?;
    let class = class(headers)?;
    let partial = headers.get("clip-partial").is_some_and(|value| value == "true");
    let limit = edge.max_request_bytes;
    let too_large = || Problem::too_large(format!("the body has more than the limit of {limit} bytes"));
    // Before it is sent, if the client waits to be told to.
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let body = Limited::new(Metered::new(request.into_body(), admitted.clone()), limit);
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            return Err(match error.downcast::<Fault<axum::Error>>() {
                Ok(fault) => Problem::fault(&fault),
                Err(_) => too_large(),
            });
        }
    };
    admitted.begin();
    let deadline = admitted.call_deadline(class);
    let asked = Asked { body, admitted: admitted.clone(), deadline, partial };
    let reply = (endpoint.answer)(edge.clone(), asked).await?;
    admitted.hold_answer(reply.body.len()).await.map_err(|refusal| Problem::refused(&refusal))?;
    Ok(reply)
}

fn ok(edge: &Edge, reply: Reply) -> Response<Body> {
    let mut response = Response::new(Body::from(reply.body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(FINGERPRINT, edge.fingerprint.clone());
    if let Some(Timing { preprocess, queue, inference }) = reply.timing {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let (preprocess, queue, inference) = (ms(preprocess), ms(queue), ms(inference));
        let text =
            format!("preprocess;dur={preprocess:.3}, queue;dur={queue:.3}, inference;dur={inference:.3}");
        if let Ok(value) = text.parse() {
            headers.insert(SERVER_TIMING, value);
        }
    }
    response
}

/// Lets those in who have a key, if there are keys: for what is no call.
pub(super) async fn locked(
    State(edge): State<Arc<Edge>>,
    request: Request<Body>,
    next: Next,
) -> Response<Body> {
    match edge.door.identify(request.headers(), request.extensions().get::<Arc<Peer>>()) {
        Ok(_) => next.run(request).await,
        Err(unknown) => Problem::no_entry(&unknown.into()).response(),
    }
}

/// JSON, as it is: a form is what curl sends unless told otherwise, and what is compressed has a size that nobody
/// knows.
fn check_content(headers: &HeaderMap) -> Result<(), Problem> {
    if let Some(encoding) = headers.get(CONTENT_ENCODING)
        && encoding != "identity"
    {
        return Err(Problem::unsupported("content-encoding: send the body as it is, not compressed"));
    }
    let Some(content) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let content = content.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let json = content.eq_ignore_ascii_case("application/json")
        || content
            .to_ascii_lowercase()
            .strip_prefix("application/")
            .is_some_and(|kind| kind.ends_with("+json"));
    if json { Ok(()) } else { Err(Problem::unsupported("content-type: send application/json")) }
}

/// `clip-class`, or the tier of the hosted API.
fn class(headers: &HeaderMap) -> Result<Class, Problem> {
    match headers.get("clip-class").map(HeaderValue::as_bytes) {
        Some(b"interactive") => return Ok(Class::Interactive),
        Some(b"bulk") => return Ok(Class::Bulk),
        Some(_) => {
            return Err(Problem::invalid(Place::Named("clip-class"), "must be interactive or bulk"));
        }
        None => {}
    }
    let batch = headers.get("x-tier").is_some_and(|tier| tier.as_bytes().eq_ignore_ascii_case(b"batch"));
    Ok(if batch { Class::Bulk } else { Class::Interactive })
}

/// How long the client waits, in seconds or with a unit, such as `0.25` or `250ms`. Nonsense is no timeout.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    // The last two are what OpenAI's libraries say of themselves.
    let names = ["clip-timeout", "x-stainless-timeout", "x-stainless-read-timeout"];
    let text = names.iter().find_map(|name| headers.get(*name))?.to_str().ok()?;
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => humantime::parse_duration(text).ok(),
    }
    .filter(|asked| !asked.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn timeouts() {
        let check = |name: &'static str, value: &'static str, expected: Option<u64>| {
            let expected = expected.map(Duration::from_millis);
            assert_eq!(timeout(&headers(&[(name, value)])), expected, "{value}");
        };
        check("clip-timeout", "250ms", Some(250));
        check("clip-timeout", "0.25", Some(250));
        check("x-stainless-timeout", "600", Some(600_000));
        check("x-stainless-read-timeout", "600.0", Some(600_000));
        for nonsense in ["", "-1", "NaN", "inf", "0", "1e300", "soon"] {
            check("clip-timeout", nonsense, None);
        }
    }

    #[test]
    fn content() {
        let check = |pairs: &[(&'static str, &'static str)], fine: bool| {
            assert_eq!(check_content(&headers(pairs)).is_ok(), fine, "{pairs:?}");
        };
        check(&[], true);
        check(&[("content-type", "application/json; charset=utf-8")], true);
        check(&[("content-type", "application/vnd.api+json")], true);
        check(&[("content-type", "application/x-www-form-urlencoded")], false);
        check(&[("content-type", "application/json"), ("content-encoding", "gzip")], false);
        check(&[("content-type", "application/json"), ("content-encoding", "identity")], true);
    }

    #[test]
    fn classes() {
        assert_eq!(class(&headers(&[])).unwrap(), Class::Interactive);
        assert_eq!(class(&headers(&[("x-tier", "Batch")])).unwrap(), Class::Bulk);
        assert_eq!(
            class(&headers(&[("x-tier", "batch"), ("clip-class", "interactive")])).unwrap(),
            Class::Interactive
        );
        assert!(class(&headers(&[("clip-class", "soon")])).is_err());
    }
}
