//! Which model: flags of all commands that read one.

use clap::Args;

use super::hub::HubFlags;
use super::variant::VariantFlags;

/// Which model, and how to reach the Hugging Face hub.
#[derive(Clone, Debug, Args)]
pub struct ModelFlags {
    /// Directory with a model of open_clip or transformers, or with ONNX graphs; or a repository of the Hugging
    /// Face hub, ORG/NAME or ORG/NAME@REVISION
    /// [default: the small embedded emoji model]
    #[arg(long, env = "CLIPD_MODEL", help_heading = "Model and device")]
    pub model: Option<String>,
    #[command(flatten)]
    pub hub: HubFlags,
    #[command(flatten)]
    pub variant: VariantFlags,
}
