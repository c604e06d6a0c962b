//! Which server a run is of.

use serde::{Deserialize, Serialize};

use crate::cli::client::Server;
use crate::clip::classifier::{Coefficient, Logits};
use crate::clip::spec::Scores;
use crate::grpc::proto::ScoreFunction;

/// The server of a run, as it says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) model: String,
    pub(super) fingerprint: String,
    pub(super) precision: String,
    pub(super) device: String,
    pub(super) engine: String,
    pub(super) server_version: String,
    logit_scale: f32,
    logit_bias: f32,
    #[serde(with = "Names")]
    score_function: Scores,
}

/// As the HTTP API has them.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Scores", rename_all = "lowercase")]
enum Names {
    Softmax,
    Sigmoid,
}

impl About {
    pub(super) fn of(server: &Server) -> About {
        let model = server.model.clone();
        About {
            score_function: match model.score_function() {
                ScoreFunction::Sigmoid => Scores::Sigmoid,
                ScoreFunction::Softmax | ScoreFunction::Unspecified => Scores::Softmax,
            },
            model: model.name,
            fingerprint: model.fingerprint,
            precision: model.precision,
            device: model.device,
            engine: model.engine,
            server_version: model.server_version,
            logit_scale: model.logit_scale,
            logit_bias: model.logit_bias,
        }
    }

    /// From cosine to probability, as the model was trained.
    pub(super) fn logits(&self) -> Logits {
        Logits {
            scale: Coefficient::Shared(self.logit_scale),
            bias: Coefficient::Shared(self.logit_bias),
            scores: self.score_function,
        }
    }
}
