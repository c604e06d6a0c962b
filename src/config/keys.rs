//! Flags of `clipd keys`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub struct KeysFlags {
    #[command(subcommand)]
    pub command: KeysCommand,
    /// File of keys, which a server has as --api-keys
    #[arg(long, env = "CLIPD_API_KEYS", default_value = "keys.toml", global = true)]
    pub file: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key: its secret is printed once, and kept nowhere; with --certificate it has none
    Add {
        /// For the log and the metrics
        name: String,
        /// Host or URI in the certificate of its holder, who then needs no secret
        #[arg(long)]
        certificate: Option<String>,
        /// Day, or day and time in UTC, from which it is no key any more, such as 2027-12-31
        #[arg(long)]
        expires: Option<String>,
        /// All that it asks for is bulk work
        #[arg(long)]
        bulk: bool,
        /// Calls a second
        #[arg(long)]
        rate: Option<f64>,
        /// Calls that may come at once [default: those of a second]
        #[arg(long, requires = "rate")]
        burst: Option<u32>,
        /// Images and texts a second
        #[arg(long)]
        rows: Option<f64>,
        /// Calls at a time
        #[arg(long)]
        concurrent: Option<usize>,
        /// Streams at a time
        #[arg(long)]
        streams: Option<usize>,
    },
    /// Show the keys, without their secrets
    List,
    /// Take a key out of the file
    Revoke { name: String },
}
