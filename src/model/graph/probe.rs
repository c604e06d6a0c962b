//! A graph that is fast where models are fast: one MLP of a transformer block, the size of ViT-B/16's.
//!
//! It computes nothing of use. An engine's speed on it tells how fast the engine is on this CPU, without loading a
//! model.

use super::builder::Builder;
use super::onnx::ElementType;
use super::parts::Dim;
use super::{Form, Graph};

/// Rows of the input: a picture of 224 x 224 in patches of 16, and the class token.
pub const TOKENS: usize = 197;
/// Columns of the input and the output.
pub const WIDTH: usize = 768;
const MLP_WIDTH: usize = 4 * WIDTH;

/// `[batch, TOKENS, WIDTH]` to as many numbers.
pub fn mlp() -> Graph {
    let mut graph = Builder::new("probe", Form::PORTABLE);
    let shape = [Dim::Dynamic("batch"), Dim::Fixed(TOKENS), Dim::Fixed(WIDTH)];
    let x = graph.input("x", ElementType::Float, &shape);
    let fc = graph.weight("c_fc.weight", &[WIDTH, MLP_WIDTH], numbers(WIDTH * MLP_WIDTH));
    let proj = graph.weight("c_proj.weight", &[MLP_WIDTH, WIDTH], numbers(WIDTH * MLP_WIDTH));
    let x = graph.matmul(&x, &fc);
    let x = graph.gelu(&x);
    let x = graph.matmul(&x, &proj);
    let x = graph.reshape(&x, &[0, (TOKENS * WIDTH) as i64]);
    graph.finish(&x, TOKENS * WIDTH)
}

/// Between -0.02 and 0.02, as weights are, and all over it: a runtime must not find anything to leave out.
fn numbers(count: usize) -> Vec<f32> {
    // The golden ratio's multiples modulo 1 are spread evenly.
    (0..count).map(|index| ((index as f64 * 0.618_033_988_75).fract() as f32 - 0.5) * 0.04).collect()
}
