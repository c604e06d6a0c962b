//! How to reach the Hugging Face hub: flags of all commands that may fetch from it.

use clap::Args;

use crate::model::hub::Access;

#[derive(Clone, Debug, Args)]
pub struct HubFlags {
    /// Token for the Hugging Face hub [default: that of its cache, if any]
    #[arg(long, env = "HF_TOKEN", hide_env_values = true, help_heading = "Model and device")]
    pub hf_token: Option<String>,
    /// 1: take models from the hub's cache only
    #[arg(long, env = "HF_HUB_OFFLINE", default_value = "0", help_heading = "Model and device")]
    pub hf_hub_offline: String,
}

/// How to reach the hub.
pub fn hub_access(flags: &HubFlags) -> Result<Access, String> {
    let offline = match flags.hf_hub_offline.to_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => true,
        "0" | "false" | "no" | "off" | "" => false,
        other => return Err(format!("--hf-hub-offline: {other:?} is not one of 0, 1")),
    };
    let token = flags.hf_token.clone().filter(|token| !token.is_empty());
    Ok(Access { token, offline, ..Access::default() })
}
