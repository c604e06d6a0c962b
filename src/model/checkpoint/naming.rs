//! Who wrote a checkpoint, and so what its tensors are called and how they lie.
//!
//! The graphs ask by open_clip's names. open_clip's own files have them; transformers' `CLIPModel` saves
//! the same tensors under other names, attention's three input projections apart, and the two projections
//! to the embedding transposed.

/// Whose names a checkpoint's tensors have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::model) enum Naming {
    OpenClip,
    Transformers,
}

/// How a file keeps a tensor of open_clip's.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Same(String),
    /// Columns as rows.
    Transposed(String),
    /// In parts, to be joined along the first axis.
    Stacked([String; 3]),
}

/// Some exporters save buffers beside the weights; they hold nothing that the config does not say.
const OPEN_CLIP_BUFFERS: [&str; 5] =
    ["attn_mask", "text.attn_mask", "input_resolution", "context_length", "vocab_size"];
const TRANSFORMERS_BUFFERS: [&str; 2] =
    ["text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"];

/// How names begin: at open_clip, at transformers (`pre_layrnorm` is their spelling).
const PREFIXES: [(&str, &str); 13] = [
    ("visual.conv1.", "vision_model.embeddings.patch_embedding."),
    ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("visual.ln_pre.", "vision_model.pre_layrnorm."),
    ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
    ("visual.ln_post.", "vision_model.post_layernorm."),
    ("visual.proj", "visual_projection.weight"),
    ("token_embedding.", "text_model.embeddings.token_embedding."),
    ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("transformer.resblocks.", "text_model.encoder.layers."),
    ("ln_final.", "text_model.final_layer_norm."),
    ("text_projection", "text_projection.weight"),
    ("logit_scale", "logit_scale"),
];

/// What names have inside a residual attention block.
const PARTS: [(&str, &str); 5] = [
    (".ln_1.", ".layer_norm1."),
    (".attn.out_proj.", ".self_attn.out_proj."),
    (".ln_2.", ".layer_norm2."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
];

impl Naming {
    /// Where a file has the tensor that open_clip calls `name`.
    pub(super) fn stored(self, name: &str) -> Stored {
        match self {
            Naming::OpenClip => Stored::Same(name.to_owned()),
            Naming::Transformers => transformers(name),
        }
    }

    /// Whether a tensor of the file, by its name there, is not a weight.
    pub(super) fn is_buffer(self, name: &str) -> bool {
        match self {
            Naming::OpenClip => OPEN_CLIP_BUFFERS.contains(&name),
            Naming::Transformers => TRANSFORMERS_BUFFERS.contains(&name),
        }
    }
}

fn transformers(name: &str) -> Stored {
    let renamed = PREFIXES
        .iter()
        .find_map(|(ours, theirs)| Some(format!("{theirs}{}", name.strip_prefix(ours)?)))
        .unwrap_or_else(|| name.to_owned());
    let renamed = PARTS.iter().fold(renamed, |name, (ours, theirs)| name.replace(ours, theirs));
    if let Some((block, kind)) = renamed.split_once(".attn.in_proj_") {
        return Stored::Stacked(["q", "k", "v"].map(|part| format!("{block}.self_attn.{part}_proj.{kind}")));
    }
    match name {
        "visual.proj" | "text_projection" => Stored::Transposed(renamed),
        _ => Stored::Same(renamed),
    }
}
