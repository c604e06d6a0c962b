use half::{bf16, f16};
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
        let mut checkpoint = Checkpoint::parse(&file).unwrap();
        assert_eq!(checkpoint.take("weight", &[2, 2]).unwrap(), numbers);
        checkpoint.finish().unwrap();
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
