//! Which server a run is of.

use serde::{Deserialize, Serialize};

use crate::cli::client::Server;

/// The server of a run, as it says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) model: String,
    pub(super) fingerprint: String,
    pub(super) precision: String,
    pub(super) device: String,
    pub(super) engine: String,
    pub(super) server_version: String,
    pub(super) logit_scale: f32,
}

impl About {
    pub(super) fn of(server: &Server) -> About {
        let model = server.model.clone();
        About {
            model: model.name,
            fingerprint: model.fingerprint,
            precision: model.precision,
            device: model.device,
            engine: model.engine,
            server_version: model.server_version,
            logit_scale: model.logit_scale,
        }
    }
}
