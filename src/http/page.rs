//! `GET /`: a page on which people try the model and watch the server. Its files are in the program; whoever may open
//! the port may have them, since they are the same everywhere. What they show is asked for with a key, if there are
//! keys: pictures and texts by the calls that every client has, and the totals of [`live`].
//!
//! The page may load nothing but its own files, run nothing but its own scripts, and speak to nobody but this server:
//! [`POLICY`]. It has no cookies, so no other site can call in its name.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use super::problem::Problem;
use super::{Edge, entrance};
use crate::clock::{Clock, Timestamp};
use crate::long_work;
use crate::telemetry::figures::{Figures, figures};
use crate::telemetry::metrics::Metrics;

struct File {
    path: &'static str,
    kind: &'static str,
    content: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const WEBP: &str = "image/webp";

macro_rules! file {
    ($name:literal, $kind:expr) => {
        File { path: concat!("/page/", $name), kind: $kind, content: include_bytes!(concat!("page/", $name)) }
    };
}

/// The module `main.js` names the others, and `pictures.js` the samples.
static FILES: [File; 25] = [
    File { path: "/", kind: HTML, content: include_bytes!("page/index.html") },
    file!("page.css", CSS),
    file!("icon.svg", SVG),
    file!("api.js", SCRIPT),
    file!("charts.js", SCRIPT),
    file!("classify.js", SCRIPT),
    file!("dom.js", SCRIPT),
    file!("history.js", SCRIPT),
    file!("main.js", SCRIPT),
    file!("pictures.js", SCRIPT),
    file!("search.js", SCRIPT),
    file!("server.js", SCRIPT),
    file!("snippets.js", SCRIPT),
    file!("samples/airplane.webp", WEBP),
    file!("samples/apple.webp", WEBP),
    file!("samples/bicycle.webp", WEBP),
    file!("samples/car.webp", WEBP),
    file!("samples/cat.webp", WEBP),
    file!("samples/dog.webp", WEBP),
    file!("samples/guitar.webp", WEBP),
    file!("samples/octopus.webp", WEBP),
    file!("samples/owl.webp", WEBP),
    file!("samples/pizza.webp", WEBP),
    file!("samples/rocket.webp", WEBP),
    file!("samples/umbrella.webp", WEBP),
];

/// Nothing from elsewhere, and no text that becomes code. Pictures that people choose are `blob:`.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'";

const HEADERS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    // Asked for each time and mostly answered with 304, so files of two versions never meet.
    (CACHE_CONTROL, "no-cache"),
];

pub(super) fn router(edge: Arc<Edge>) -> Router<Arc<Edge>> {
    let locked = from_fn_with_state(edge, entrance::locked);
    let mut router = Router::new().route("/page/live", get(live)).route_layer(locked);
    for file in &FILES {
        let etag = tag(file.content);
        router = router.route(file.path, get(async move |headers| answer(file, etag, &headers)));
    }
    router
}

/// Differs between contents.
fn tag(content: &[u8]) -> Option<HeaderValue> {
    let hash = Sha256::digest(content);
    let half = u128::from_be_bytes(*hash.first_chunk()?);
    HeaderValue::try_from(format!("\"{half:032x}\"")).ok()
}

fn answer(file: &'static File, etag: Option<HeaderValue>, asked: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let known = etag.is_some() && asked.get(IF_NONE_MATCH) == etag.as_ref();
    match known {
        true => *response.status_mut() = StatusCode::NOT_MODIFIED,
        false => *response.body_mut() = Body::from(file.content),
    }
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.kind));
    headers.extend(etag.map(|etag| (ETAG, etag)));
    response
}

/// The totals that the page draws. Everybody who looks within [`FRESH`] is shown the same, so watching costs the server
/// next to nothing, however many do.
pub(super) struct Live {
    metrics: Metrics,
    clock: Clock,
    started: f64,
    last: Mutex<Option<(Timestamp, Bytes)>>,
}

const FRESH: Duration = Duration::from_millis(500);

/// Bytes of all metrics as text, nearly: what has to be gone over for the totals.
const ALL_METRICS: usize = 512 << 10;

#[derive(Serialize)]
struct Moment {
    /// When the server started, in seconds since 1970: another server has another, and others behind a balancer too.
    started: f64,
    /// From then to the taking of the totals.
    seconds: f64,
    totals: Figures,
}

impl Live {
    pub(super) fn new(metrics: Metrics, clock: Clock) -> Live {
        Live { metrics, clock, started: clock.epoch().as_secs_f64(), last: Mutex::default() }
    }

    /// As JSON.
    async fn now(&self) -> Result<Bytes, serde_json::Error> {
        let mut last = self.last.lock().await;
        let now = self.clock.now();
        if let Some((taken, json)) = &*last
            && now.since(*taken) < FRESH
        {
            return Ok(json.clone());
        }
        let (started, seconds) = (self.started, now.since(Timestamp::default()).as_secs_f64());
        let json = long_work::over(ALL_METRICS, || {
            serde_json::to_vec(&Moment { started, seconds, totals: figures(&self.metrics) })
        })?;
        let json = Bytes::from(json);
        *last = Some((now, json.clone()));
        Ok(json)
    }
}

async fn live(State(edge): State<Arc<Edge>>) -> Response<Body> {
    let json = match edge.live.now().await {
        Ok(json) => json,
        Err(error) => return Problem::internal(format!("writing totals: {error}")).response(),
    };
    let mut response = Response::new(Body::from(json));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
