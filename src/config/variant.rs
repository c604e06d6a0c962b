//! Which of the ONNX graphs that a model has: a flag of all commands that read models.

use clap::Args;

use crate::model::variant::Variant;

/// Which of the ONNX graphs that a model has.
#[derive(Clone, Debug, Args)]
pub struct VariantFlags {
    /// Which of several exports of ONNX graphs, as in their names: fp16, q8 for quantized, int8, q4, ...
    /// [default: weights if there are any, otherwise the graphs in fp32]
    #[arg(long, env = "CLIPD_ONNX_VARIANT", help_heading = "Model and device")]
    pub onnx_variant: Option<String>,
}

/// Which ONNX graphs are asked for.
pub fn onnx_variant(flags: &VariantFlags) -> Result<Variant, String> {
    let Some(variant) = &flags.onnx_variant else { return Ok(Variant::default()) };
    variant.parse().map_err(|problem| format!("--onnx-variant: {variant:?} is {problem}"))
}
