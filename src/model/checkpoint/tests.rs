use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::*;

/// The same numbers in every type, exact in all of them.
#[test]
fn every_type_becomes_f32() {
    let numbers = [0.0_f32, -1.5, 0.25, 1024.0];
    let f32s = numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let f16s = numbers.iter().flat_map(|&number| f16::from_f32(number).to_le_bytes()).collect();
    let bf16s = numbers.iter().flat_map(|&number| bf16::from_f32(number).to_le_bytes()).collect();
    for (dtype, bytes) in [(Dtype::F32, f32s), (Dtype::F16, f16s), (Dtype::BF16, bf16s)] {
        let view = TensorView::new(dtype, vec![2, 2], &bytes).unwrap();
        let file = safetensors::serialize([("weight", view)], None).unwrap();
        let shard = Shard::in_memory("file", file).unwrap();
        let mut checkpoint = Checkpoint::new("file", vec![shard], Naming::OpenClip).unwrap();
        assert_eq!(checkpoint.take("weight", &[2, 2]).unwrap(), numbers);
        checkpoint.finish().unwrap();
    }
}

/// Larger than what is read at a time, and not a multiple of it.
#[test]
fn a_large_tensor_is_read_whole() {
    let numbers: Vec<f32> = (0..300_001).map(|index| index as f32).collect();
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![numbers.len()], &bytes).unwrap();
    let file = safetensors::serialize([("weight", view)], None).unwrap();
    let mut shard = Shard::in_memory("file", file).unwrap();
    assert_eq!(shard.read("weight", &[numbers.len()]).unwrap(), numbers);
}

#[test]
fn transformers_names_are_derived_from_open_clips() {
    let block = "vision_model.encoder.layers.11";
    let same = |name: &str| Stored::Same(name.to_owned());
    for (name, expected) in [
        ("visual.conv1.weight", same("vision_model.embeddings.patch_embedding.weight")),
        ("visual.proj", Stored::Transposed("visual_projection.weight".to_owned())),
        ("positional_embedding", same("text_model.embeddings.position_embedding.weight")),
        ("text_projection", Stored::Transposed("text_projection.weight".to_owned())),
        ("transformer.resblocks.0.mlp.c_proj.bias", same("text_model.encoder.layers.0.mlp.fc2.bias")),
        ("visual.transformer.resblocks.11.ln_2.bias", same(&format!("{block}.layer_norm2.bias"))),
        (
            "visual.transformer.resblocks.11.attn.in_proj_weight",
            Stored::Stacked(
                ["q", "k", "v"].map(|part| (format!("{block}.self_attn.{part}_proj.weight"), 1)).to_vec(),
            ),
        ),
        ("text_projection.bias", same("text_model.head.bias")),
        ("visual.attn_pool.attn.in_proj_weight", same("vision_model.head.attention.in_proj_weight")),
        ("visual.attn_pool.attn.out_proj.bias", same("vision_model.head.attention.out_proj.bias")),
        ("visual.attn_pool.mlp.c_fc.bias", same("vision_model.head.mlp.fc1.bias")),
        ("logit_bias", same("logit_bias")),
    ] {
        assert_eq!(Naming::Transformers.stored(name), expected);
        assert_eq!(Naming::OpenClip.stored(name), same(name));
    }
}

#[test]
fn timms_names_are_derived_from_open_clips() {
    let same = |name: &str| Stored::Same(name.to_owned());
    let pool = "visual.trunk.attn_pool";
    for (name, expected) in [
        ("visual.conv1.bias", same("visual.trunk.patch_embed.proj.bias")),
        ("visual.positional_embedding", Stored::Batched("visual.trunk.pos_embed".to_owned())),
        ("visual.transformer.resblocks.3.attn.in_proj_bias", same("visual.trunk.blocks.3.attn.qkv.bias")),
        (
            "visual.transformer.resblocks.3.attn.out_proj.weight",
            same("visual.trunk.blocks.3.attn.proj.weight"),
        ),
        ("visual.transformer.resblocks.3.mlp.c_fc.weight", same("visual.trunk.blocks.3.mlp.fc1.weight")),
        ("visual.transformer.resblocks.3.ln_2.bias", same("visual.trunk.blocks.3.norm2.bias")),
        ("visual.ln_post.weight", same("visual.trunk.norm.weight")),
        (
            "visual.attn_pool.attn.in_proj_weight",
            Stored::Stacked(vec![(format!("{pool}.q.weight"), 1), (format!("{pool}.kv.weight"), 2)]),
        ),
        ("visual.attn_pool.attn.out_proj.weight", same(&format!("{pool}.proj.weight"))),
        ("visual.attn_pool.ln.weight", same(&format!("{pool}.norm.weight"))),
        ("visual.attn_pool.mlp.c_proj.bias", same(&format!("{pool}.mlp.fc2.bias"))),
        ("text.transformer.resblocks.0.ln_1.bias", same("text.transformer.resblocks.0.ln_1.bias")),
    ] {
        assert_eq!(Naming::Timm.stored(name), expected);
    }
}

#[test]
fn transposing_twice_changes_nothing() {
    assert_eq!(transpose(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    // Not a multiple of the tile in either direction.
    let (rows, columns) = (45, 70);
    let values: Vec<f32> = (0..rows * columns).map(|index| index as f32).collect();
    assert_eq!(transpose(&transpose(&values, rows, columns), columns, rows), values);
}
