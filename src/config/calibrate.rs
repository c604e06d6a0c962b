//! `clipd calibrate`: its flags, and what they ask for.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::model::ModelFlags;
use super::problems::Problems;
use super::{ModelSource, cores};

#[derive(Debug, Args)]
pub struct CalibrateFlags {
    #[command(flatten)]
    pub model: ModelFlags,
    /// Directory with pictures like those the model is going to see; directories below count too
    #[arg(long, value_name = "DIR")]
    pub images: PathBuf,
    /// File with a text on each line, like those the model is going to see [default: none, and texts are not rounded]
    #[arg(long, value_name = "FILE")]
    pub texts: Option<PathBuf>,
    /// Most pictures, and most texts; a quarter of them is held out
    #[arg(long, default_value = "300")]
    pub inputs: String,
    /// Least cosine to fp32 of what was held out, on average and of each; as many layers stay in floating point as it
    /// takes
    #[arg(long, value_name = "MEAN,MIN", default_value = "0.9995,0.998")]
    pub int8_cosine: String,
    /// Threads to compute with [default: cores]
    #[arg(long)]
    pub threads: Option<String>,
    /// File to write, for --calibration [default: clipd_int8.json beside the model, where a server finds it]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Plan {
    pub model: ModelSource,
    pub images: PathBuf,
    /// `None`: the text encoder is not rounded.
    pub texts: Option<PathBuf>,
    /// Most pictures, and most texts.
    pub inputs: NonZeroUsize,
    /// Least cosine to fp32: on average, and of each.
    pub cosine: [f64; 2],
    pub threads: NonZeroUsize,
    /// `None`: beside the model.
    pub out: Option<PathBuf>,
}

impl Plan {
    /// Every problem, one per line, or the plan.
    pub fn from_flags(flags: &CalibrateFlags) -> Result<Plan, Vec<String>> {
        let mut problems = Problems::default();
        let mut cosine = [0.0; 2];
        match flags.int8_cosine.split(',').collect::<Vec<_>>()[..] {
            [mean, min] => cosine = [mean, min].map(|text| problems.ratio("--int8-cosine", text)),
            _ => problems.add(format!(
                "--int8-cosine: {:?} is not two numbers, as in 0.9995,0.998",
                flags.int8_cosine
            )),
        }
        let plan = Plan {
            model: ModelSource::from_flags(&flags.model).unwrap_or_else(|problem| {
                problems.add(problem);
                ModelSource::Builtin
            }),
            images: flags.images.clone(),
            texts: flags.texts.clone(),
            inputs: problems.count("--inputs", &flags.inputs),
            cosine,
            threads: problems.optional_count("--threads", flags.threads.as_deref(), cores()),
            out: flags.out.clone(),
        };
        problems.into_result(plan)
    }
}
