//! Flags of `clipd eval`. Those of the server that it starts are `serve`'s own, after `--`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, value_parser};
use http::Uri;

use super::hub::HubFlags;
use crate::cli::flags::{TlsFlags, address};

#[derive(Clone, Debug, Subcommand)]
pub enum EvalCommand {
    /// Classes by their names: acc1, acc5, mean per class recall; mean average precision where pictures have several
    Zeroshot(Box<ZeroshotFlags>),
    /// Captions and their pictures: recall among the first k, both ways
    Retrieval(Box<RetrievalFlags>),
}

#[derive(Clone, Debug, Args)]
pub struct ZeroshotFlags {
    /// File with a class on each line, instead of the data's own list
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub classes: Option<PathBuf>,
    /// File with a sentence on each line, {c} where the name goes; or JSON: a list of them, or an object with a
    /// list of prompts for each class (CuPL) [default: the data's own, or a photo of a {c}.]
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub templates: Option<PathBuf>,
    /// Name of a classifier of the server, whose labels are the classes
    #[arg(long, value_name = "NAME", conflicts_with_all = ["templates", "record"], help_heading = "Data")]
    pub classifier: Option<String>,
    #[command(flatten)]
    pub common: EvalFlags,
}

#[derive(Clone, Debug, Args)]
pub struct RetrievalFlags {
    /// A hit is the right one among so many
    #[arg(
        long,
        value_name = "K",
        value_delimiter = ',',
        default_value = "1,5,10",
        value_parser = value_parser!(u32).range(1..=1000),
        help_heading = "Data"
    )]
    pub recall_k: Vec<u32>,
    #[command(flatten)]
    pub common: EvalFlags,
}

#[derive(Clone, Debug, Args)]
pub struct EvalFlags {
    /// Directory in clip_benchmark's layout (SPLIT/0.tar ...), or with a directory for each class; a CSV, JSON lines or
    /// COCO's JSON; or a data set of the Hugging Face hub in that layout, ORG/NAME
    pub data: String,
    /// Part of a data set in clip_benchmark's layout
    #[arg(long, default_value = "test", value_parser = split, help_heading = "Data")]
    pub split: String,
    /// Where pictures are that a CSV or JSON names [default: beside it]
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    pub images: Option<PathBuf>,
    /// Leave out what cannot be read or has no answer, and count it; otherwise there are no figures
    #[arg(long, help_heading = "Data")]
    pub skip_errors: bool,
    #[command(flatten)]
    pub hub: HubFlags,

    /// Address of a running server [default: one that is started with the flags after --]
    #[arg(long, value_parser = address, help_heading = "Server")]
    pub addr: Option<Uri>,
    #[command(flatten)]
    pub tls: TlsFlags,
    /// Flags of `clipd serve`, for the servers that are started
    #[arg(last = true, value_name = "SERVE FLAGS")]
    pub serve: Vec<String>,

    /// Compare with: fp32, bf16, int8 or fp16 (a server that is started), another server's http://HOST:PORT, a
    /// directory of --record, or a file of templates
    #[arg(long, value_name = "OTHER", value_parser = against, help_heading = "Comparison")]
    pub against: Option<Against>,
    /// Exit with code 2 if the first figure is so many points (hundredths) below that of --against
    #[arg(long, value_name = "POINTS", requires = "against", value_parser = points, help_heading = "Comparison")]
    pub max_loss: Option<f64>,
    /// What a figure is elsewhere, as in acc1=0.702, or `published`: as open_clip's authors have it, of the default
    /// model and some data sets; may be repeated
    #[arg(long, value_name = "FIGURE=VALUE", value_parser = expectation, help_heading = "Comparison")]
    pub expect: Vec<Expectation>,

    /// Write figures to this file, in the shape of clip_benchmark
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub json: Option<PathBuf>,
    /// Write a JSON object for each picture, caption and class to this file
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub lines: Option<PathBuf>,
    /// Write a page with figures and pictures to this file
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub html: Option<PathBuf>,
    /// Keep embeddings in this directory, for --against; a run that was cut off goes on there
    #[arg(long, value_name = "DIR", help_heading = "Report")]
    pub record: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Expectation {
    Figure(String, f64),
    /// All that is known of the data set and the model.
    Published,
}

/// The other side of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Against {
    /// A server that is started with this `--precision`.
    Precision(&'static str),
    Server(Uri),
    Record(PathBuf),
    Templates(PathBuf),
}

fn against(text: &str) -> Result<Against, String> {
    if let Some(precision) = ["fp32", "bf16", "int8", "fp16"].into_iter().find(|known| *known == text) {
        return Ok(Against::Precision(precision));
    }
    let path = Path::new(text);
    match (path.is_dir(), path.is_file()) {
        (true, _) => Ok(Against::Record(path.to_owned())),
        (_, true) => Ok(Against::Templates(path.to_owned())),
        _ if text.contains(':') => address(text).map(Against::Server),
        _ => {
            Err("it is neither a precision, nor an address, nor a directory or file that is there".to_owned())
        }
    }
}

/// A folder's name.
fn split(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let valid = !text.is_empty() && !text.starts_with('.') && text.chars().all(allowed);
    valid.then(|| text.to_owned()).ok_or_else(|| "must be a name, such as test".to_owned())
}

fn points(text: &str) -> Result<f64, String> {
    let points = text.parse().ok().filter(|points| (0.0..=100.0).contains(points));
    points.ok_or_else(|| "must be points, from 0 to 100".to_owned())
}

fn expectation(text: &str) -> Result<Expectation, String> {
    if text == "published" {
        return Ok(Expectation::Published);
    }
    let (name, value) = text.split_once('=').ok_or("must be FIGURE=VALUE, as in acc1=0.702, or published")?;
    let value = value.parse().ok().filter(|value| (0.0..=1.0).contains(value));
    Ok(Expectation::Figure(name.to_owned(), value.ok_or("the value must be from 0 to 1")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_side() {
        assert_eq!(against("int8"), Ok(Against::Precision("int8")));
        assert_eq!(against("localhost:50051").map(|side| matches!(side, Against::Server(_))), Ok(true));
        assert_eq!(against("src"), Ok(Against::Record("src".into())));
        assert_eq!(against("Cargo.toml"), Ok(Against::Templates("Cargo.toml".into())));
        assert!(against("int7").is_err());
    }

    #[test]
    fn expectations_are_shares() {
        assert_eq!(expectation("acc1=0.702"), Ok(Expectation::Figure("acc1".to_owned(), 0.702)));
        assert_eq!(expectation("published"), Ok(Expectation::Published));
        assert!(expectation("acc1=70.2").is_err() && expectation("acc1").is_err() && points("-1").is_err());
    }
}
