//! Image encoders that open_clip takes from timm: `timm_model_name` stands for everything about them.
//!
//! Read are SigLIP's, `vit_FAMILY_patchP_siglip_SIZE` of timm 1.0. Of what the name stands for, the checkpoint's shapes
//! say nearly all; here is what they do not.

use serde_json::{Value, json};

use super::section::Section;
use super::{Activation, ImageConfig, ImageEncoder, ImagePool, PreprocessConfig, Shapes};
use super::{TransformerConfig, VisionTransformer};
use crate::model::ModelError;

/// Numbers of one attention head, by the family.
const HEAD_WIDTHS: [(&str, usize); 4] = [("base", 64), ("large", 64), ("so400m", 72), ("giantopt", 96)];

/// What of the name says that GELU is the one with a hyperbolic tangent: elsewhere it is the exact one.
const TANH: [&str; 4] =
    ["vit_base_patch32_siglip_", "vit_large_patch16_siglip_512", "vit_giantopt_", "vit_so400m_patch16_"];

const EPSILON: f32 = 1e-6;

/// Of training, or of open_clip's own encoder, which the name replaces.
const INERT_KEYS: [&str; 19] = [
    "timm_model_pretrained",
    "timm_proj_bias",
    "timm_drop",
    "timm_drop_path",
    "patch_dropout",
    "layers",
    "width",
    "head_width",
    "mlp_ratio",
    "patch_size",
    "ls_init_value",
    "act_kwargs",
    "norm_kwargs",
    "attentional_pool",
    "attn_pooler_queries",
    "attn_pooler_heads",
    "pool_type",
    "pos_embed_type",
    "no_ln_pre",
];

const SUPPORTED: &str = "vit_{base,large,so400m,giantopt}_patchP_siglip_SIZE; other image encoders of timm's can be \
                         served as ONNX graphs";

pub(super) fn is_timm(section: &Section) -> bool {
    section.has("timm_model_name")
}

pub(super) fn image_config(
    mut section: Section,
    embed_dim: usize,
    preprocess: PreprocessConfig,
    shapes: Shapes<'_>,
) -> Result<ImageConfig, ModelError> {
    let name = section.take("timm_model_name").unwrap_or(Value::Null);
    let text = name.as_str().unwrap_or_default();
    let Some(head_width) = head_width(text) else {
        return Err(section.refusal("timm_model_name", &name, SUPPORTED));
    };
    let (height, width) = section.height_and_width("image_size", 224)?;
    section.require(&[("timm_pool", json!("map")), ("timm_proj", json!("none"))])?;
    section.ignore(&INERT_KEYS);
    section.require(&[("output_tokens", json!(false))])?;

    let size = |tensor: &str, axis: usize| shapes(tensor).and_then(|shape| shape.get(axis).copied());
    let block = |layer: usize| format!("visual.transformer.resblocks.{layer}.mlp.c_fc.weight");
    let sizes = (size("visual.conv1.weight", 0), size("visual.conv1.weight", 3), size(&block(0), 0));
    let (Some(columns), Some(patch), Some(mlp_width)) = sizes else {
        return Err(section.refusal("timm_model_name", &name, "one whose tensors visual.trunk.* are there"));
    };
    let layers = (0..).take_while(|layer| size(&block(*layer), 0).is_some()).count();
    if columns != embed_dim || !columns.is_multiple_of(head_width) {
        return Err(section.refusal("timm_model_name", &name, "one of embed_dim's width"));
    }
    if patch == 0 || patch > height.min(width) {
        return Err(section.refusal("image_size", &json!([height, width]), "at least a patch"));
    }
    section.finish()?;
    let tanh = TANH.iter().any(|beginning| text.starts_with(beginning));
    let encoder = VisionTransformer {
        patch,
        patch_bias: true,
        class_token: false,
        norm_before: false,
        transformer: TransformerConfig {
            width: columns,
            layers,
            heads: columns / head_width,
            mlp_width,
            activation: if tanh { Activation::TanhGelu } else { Activation::Gelu },
            epsilon: EPSILON,
            layer_scale: false,
        },
        pool: ImagePool::Attention,
    };
    Ok(ImageConfig { height, width, encoder: ImageEncoder::Transformer(encoder), preprocess })
}

/// `None`: it is none of SigLIP's. Those with `gap` in their names pool otherwise.
fn head_width(name: &str) -> Option<usize> {
    let (family, rest) = name.strip_prefix("vit_")?.split_once("_patch")?;
    let (patch, side) = rest.split_once("_siglip_")?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (_, width) = HEAD_WIDTHS.iter().find(|(known, _)| *known == family)?;
    (is_number(patch) && is_number(side)).then_some(*width)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As timm 1.0 registers them.
    #[test]
    fn names_of_siglips_are_known_and_no_others() {
        for (name, width, tanh) in [
            ("vit_base_patch16_siglip_224", 64, false),
            ("vit_base_patch16_siglip_512", 64, false),
            ("vit_base_patch32_siglip_256", 64, true),
            ("vit_large_patch16_siglip_384", 64, false),
            ("vit_large_patch16_siglip_512", 64, true),
            ("vit_so400m_patch14_siglip_384", 72, false),
            ("vit_so400m_patch16_siglip_512", 72, true),
            ("vit_giantopt_patch16_siglip_384", 96, true),
        ] {
            assert_eq!(head_width(name), Some(width), "{name}");
            assert_eq!(TANH.iter().any(|beginning| name.starts_with(beginning)), tanh, "{name}");
        }
        for name in [
            "vit_base_patch16_siglip_gap_224",
            "naflexvit_base_patch16_siglip",
            "vit_base_mci_224",
            "convnext_base",
            "vit_huge_patch16_siglip_224",
            "",
        ] {
            assert_eq!(head_width(name), None, "{name}");
        }
    }
}
