//! Tells load balancers and Kubernetes what the workers' state means.
//!
//! `""` and `clip.v1.ClipService` are readiness: every worker is warm or lost, at least one is warm, and
//! the server is not leaving. `live` is liveness: at least one worker is not lost, so that a pod that warms
//! up or drains is not killed.

use tokio::sync::watch;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::{HealthReporter, HealthService};

use super::proto::clip_service_server::ClipServiceServer;
use super::service::Clip;
use crate::batcher::Workers;
use crate::shutdown::Phase;

const CLIP: &str = <ClipServiceServer<Clip> as NamedService>::NAME;
const READY: [&str; 2] = ["", CLIP];
const LIVE: &str = "live";

/// Everything is NOT_SERVING at first, except `live`.
pub(super) async fn reporter() -> (HealthReporter, HealthServer<impl Health>) {
    let reporter = HealthReporter::new();
    for service in READY {
        reporter.set_service_status(service, ServingStatus::NotServing).await;
    }
    reporter.set_service_status(LIVE, ServingStatus::Serving).await;
    let server = HealthServer::new(HealthService::from_health_reporter(reporter.clone()));
    (reporter, server)
}

/// Keeps the statuses true until the server stops; then ends the clients' watches, which never end by themselves
/// and would hold up the shutdown.
pub(super) async fn follow(
    mut reporter: HealthReporter,
    mut workers: watch::Receiver<Workers>,
    mut phase: watch::Receiver<Phase>,
) {
    // As `reporter` left it.
    let mut last = Some((false, true));
    loop {
        let now = *phase.borrow_and_update();
        if now == Phase::Stopping {
            break;
        }
        let counts = workers.borrow_and_update().counts;
        let ready = now == Phase::Serving && counts.starting == 0 && counts.ready > 0;
        let live = counts.starting + counts.ready > 0;
        // A watcher hears of every report, so only changes are reported.
        if last != Some((ready, live)) {
            last = Some((ready, live));
            for service in READY {
                reporter.set_service_status(service, status(ready)).await;
            }
            reporter.set_service_status(LIVE, status(live)).await;
        }
        tokio::select! {
            // The senders live as long as the server; should one be gone, the server is stopping.
            changed = workers.changed() => if changed.is_err() { break },
            changed = phase.changed() => if changed.is_err() { break },
        }
    }
    for service in READY.into_iter().chain([LIVE]) {
        reporter.clear_service_status(service).await;
    }
}

fn status(serving: bool) -> ServingStatus {
    if serving { ServingStatus::Serving } else { ServingStatus::NotServing }
}
