//! Tells load balancers and Kubernetes in which state the server is.
//!
//! `""` and `clip.v1.ClipService` are readiness, `live` is liveness; what these mean is said in
//! [`crate::readiness`]. A server that starts is not seen here, since its port is closed.

use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::{HealthReporter, HealthService};

use super::proto::clip_service_server::ClipServiceServer;
use super::service::Clip;
use crate::readiness::{Readiness, State};

const CLIP: &str = <ClipServiceServer<Clip> as NamedService>::NAME;
const READY: [&str; 2] = ["", CLIP];
const LIVE: &str = "live";

/// With the statuses of this moment: whoever is let in finds them true.
pub(super) async fn reporter(state: State) -> (HealthReporter, HealthServer<impl Health>) {
    let reporter = HealthReporter::new();
    report(&reporter, state).await;
    let server = HealthServer::new(HealthService::from_health_reporter(reporter.clone()));
    (reporter, server)
}

/// Keeps the statuses true until the server stops, `state` being the one that was reported last; then ends the
/// clients' watches, which never end by themselves and would hold up the shutdown.
pub(super) async fn follow(mut reporter: HealthReporter, mut readiness: Readiness, mut state: State) {
    // A watcher hears of every report, so only changes are reported.
    while let Some(now) = readiness.after(state).await {
        report(&reporter, now).await;
        state = now;
    }
    for service in READY.into_iter().chain([LIVE]) {
        reporter.clear_service_status(service).await;
    }
}

async fn report(reporter: &HealthReporter, state: State) {
    for service in READY {
        reporter.set_service_status(service, status(state.is_ready())).await;
    }
    reporter.set_service_status(LIVE, status(state.is_alive())).await;
}

fn status(serving: bool) -> ServingStatus {
    if serving { ServingStatus::Serving } else { ServingStatus::NotServing }
}
