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
            Stored::Stacked(["q", "k", "v"].map(|part| format!("{block}.self_attn.{part}_proj.weight"))),
        ),
    ] {
        assert_eq!(Naming::Transformers.stored(name), expected);
        assert_eq!(Naming::OpenClip.stored(name), same(name));
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
