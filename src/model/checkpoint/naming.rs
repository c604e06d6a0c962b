//! Who wrote a checkpoint, and so what its tensors are called and how they lie.
//!
//! The graphs ask by open_clip's names. open_clip's own files have them, but for image encoders of timm's inside them;
//! transformers' `CLIPModel` and `SiglipModel` save the same tensors under other names, attention's three input
//! projections apart, and `CLIPModel`'s two projections to the embedding transposed. Of SigLIP's image encoder, which
//! open_clip takes from timm, the names that are asked for are made up here.

/// Whose names a checkpoint's tensors have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::model) enum Naming {
    OpenClip,
    /// open_clip's, with a `VisionTransformer` of timm's as image encoder.
    Timm,
    Transformers,
    /// Those of its image encoder alone, as transformers 5 saves some: without [`ENCODER`].
    VisionModel,
}

/// How a file keeps a tensor of open_clip's.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Same(String),
    /// Columns as rows.
    Transposed(String),
    /// With an axis of size 1 before the others.
    Batched(String),
    /// In parts, to be joined along the first axis, of which each has so many shares.
    Stacked(Vec<(String, usize)>),
}

/// Some exporters save buffers beside the weights; they hold nothing that the config does not say.
const OPEN_CLIP_BUFFERS: [&str; 5] =
    ["attn_mask", "text.attn_mask", "input_resolution", "context_length", "vocab_size"];
const TRANSFORMERS_BUFFERS: [&str; 2] =
    ["text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"];

/// What names of the image encoder begin with.
const ENCODER: &str = "vision_model.";

/// What all names of a timm encoder begin with.
const TIMM: &str = "visual.trunk.";

/// How names begin: at open_clip, at transformers (`pre_layrnorm` is their spelling). The first that fits counts.
const PREFIXES: [(&str, &str); 19] = [
    ("visual.conv1.", "vision_model.embeddings.patch_embedding."),
    ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("visual.ln_pre.", "vision_model.pre_layrnorm."),
    ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
    ("visual.ln_post.", "vision_model.post_layernorm."),
    ("visual.attn_pool.probe", "vision_model.head.probe"),
    ("visual.attn_pool.attn.", "vision_model.head.attention."),
    ("visual.attn_pool.ln.", "vision_model.head.layernorm."),
    ("visual.attn_pool.mlp.", "vision_model.head.mlp."),
    ("visual.proj", "visual_projection.weight"),
    ("token_embedding.", "text_model.embeddings.token_embedding."),
    ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("transformer.resblocks.", "text_model.encoder.layers."),
    ("ln_final.", "text_model.final_layer_norm."),
    // A linear layer with a bias is SigLIP's.
    ("text_projection.", "text_model.head."),
    ("text_projection", "text_projection.weight"),
    ("logit_scale", "logit_scale"),
    ("logit_bias", "logit_bias"),
];

/// What names have inside a residual attention block.
const PARTS: [(&str, &str); 5] = [
    (".ln_1.", ".layer_norm1."),
    (".attn.out_proj.", ".self_attn.out_proj."),
    (".ln_2.", ".layer_norm2."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
];

/// The same of timm's `VisionTransformer`.
const TIMM_PREFIXES: [(&str, &str); 7] = [
    ("visual.conv1.", "visual.trunk.patch_embed.proj."),
    ("visual.positional_embedding", "visual.trunk.pos_embed"),
    ("visual.transformer.resblocks.", "visual.trunk.blocks."),
    ("visual.ln_post.", "visual.trunk.norm."),
    ("visual.attn_pool.probe", "visual.trunk.attn_pool.latent"),
    ("visual.attn_pool.ln.", "visual.trunk.attn_pool.norm."),
    ("visual.attn_pool.", "visual.trunk.attn_pool."),
];
const TIMM_PARTS: [(&str, &str); 7] = [
    (".ln_1.", ".norm1."),
    (".attn_pool.attn.out_proj.", ".attn_pool.proj."),
    (".attn.out_proj.", ".attn.proj."),
    (".attn.in_proj_", ".attn.qkv."),
    (".ln_2.", ".norm2."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
];

impl Stored {
    fn renamed(self, rename: impl Fn(String) -> String) -> Stored {
        match self {
            Stored::Same(name) => Stored::Same(rename(name)),
            Stored::Transposed(name) => Stored::Transposed(rename(name)),
            Stored::Batched(name) => Stored::Batched(rename(name)),
            Stored::Stacked(parts) => {
                Stored::Stacked(parts.into_iter().map(|(name, shares)| (rename(name), shares)).collect())
            }
        }
    }
}

impl Naming {
    /// Whose they are more exactly, when all names are known.
    pub(super) fn of_all<'a>(self, mut names: impl Iterator<Item = &'a String>) -> Naming {
        match self {
            Naming::OpenClip if names.any(|name| name.starts_with(TIMM)) => Naming::Timm,
            Naming::Transformers if !names.any(|name| name.starts_with(ENCODER)) => Naming::VisionModel,
            naming => naming,
        }
    }

    /// Where a file has the tensor that open_clip calls `name`.
    pub(super) fn stored(self, name: &str) -> Stored {
        match self {
            Naming::OpenClip => open_clip(name),
            Naming::Timm if name.starts_with("visual.") => timm(name),
            Naming::Timm => Stored::Same(name.to_owned()),
            Naming::Transformers => transformers(name),
            Naming::VisionModel => {
                let bare = |name: String| name.strip_prefix(ENCODER).map(str::to_owned).unwrap_or(name);
                transformers(name).renamed(bare)
            }
        }
    }

    /// Whether a tensor of the file, by its name there, is not a weight.
    pub(super) fn is_buffer(self, name: &str) -> bool {
        match self {
            Naming::OpenClip | Naming::Timm => {
                OPEN_CLIP_BUFFERS.contains(&name) || name.ends_with(".num_batches_tracked")
            }
            Naming::Transformers | Naming::VisionModel => TRANSFORMERS_BUFFERS.contains(&name),
        }
    }
}

/// `name` with another beginning, and other words in it.
fn renamed(name: &str, prefixes: &[(&str, &str)], parts: &[(&str, &str)]) -> String {
    let renamed = prefixes
        .iter()
        .find_map(|(ours, theirs)| Some(format!("{theirs}{}", name.strip_prefix(ours)?)))
        .unwrap_or_else(|| name.to_owned());
    parts.iter().fold(renamed, |name, (ours, theirs)| name.replace(ours, theirs))
}

/// The attention that pools in a ResNet has its projections apart, under names of its own.
fn open_clip(name: &str) -> Stored {
    let Some(rest) = name.strip_prefix("visual.attnpool.attn.") else { return Stored::Same(name.to_owned()) };
    let of = |part: &str, kind: &str| format!("visual.attnpool.{part}_proj.{kind}");
    match (rest.strip_prefix("in_proj_"), rest.strip_prefix("out_proj.")) {
        (Some(kind), _) => Stored::Stacked(["q", "k", "v"].map(|part| (of(part, kind), 1)).to_vec()),
        (None, kind) => Stored::Same(of("c", kind.unwrap_or(rest))),
    }
}

fn transformers(name: &str) -> Stored {
    let renamed = renamed(name, &PREFIXES, &PARTS);
    if let Some((block, kind)) = renamed.split_once(".attn.in_proj_") {
        let part = |part| (format!("{block}.self_attn.{part}_proj.{kind}"), 1);
        return Stored::Stacked(["q", "k", "v"].map(part).to_vec());
    }
    match name {
        "visual.proj" | "text_projection" => Stored::Transposed(renamed),
        _ => Stored::Same(renamed),
    }
}

fn timm(name: &str) -> Stored {
    // The query of the pooling is projected apart from keys and values.
    if let Some(kind) = name.strip_prefix("visual.attn_pool.attn.in_proj_") {
        let part = |part, shares| (format!("visual.trunk.attn_pool.{part}.{kind}"), shares);
        return Stored::Stacked(vec![part("q", 1), part("kv", 2)]);
    }
    let renamed = renamed(name, &TIMM_PREFIXES, &TIMM_PARTS);
    match name {
        "visual.positional_embedding" => Stored::Batched(renamed),
        _ => Stored::Same(renamed),
    }
}
