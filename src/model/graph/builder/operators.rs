//! The operators that CLIP's graphs are made of, a method each.

use super::{Builder, Sight, Value};
use crate::model::graph::onnx::ElementType;
use crate::model::graph::parts::{float, int, ints, text};

impl Builder {
    pub(in crate::model::graph) fn add(&mut self, a: &Value, b: &Value) -> Value {
        self.node("Add", &[a, b], vec![])
    }

    pub(in crate::model::graph) fn multiply(&mut self, a: &Value, b: &Value) -> Value {
        self.node("Mul", &[a, b], vec![])
    }

    pub(in crate::model::graph) fn matmul(&mut self, a: &Value, b: &Value) -> Value {
        self.node("MatMul", &[a, b], vec![])
    }

    pub(in crate::model::graph) fn subtract(&mut self, a: &Value, b: &Value) -> Value {
        self.node("Sub", &[a, b], vec![])
    }

    pub(in crate::model::graph) fn layer_norm(
        &mut self,
        x: &Value,
        weight: &Value,
        bias: &Value,
        epsilon: f32,
    ) -> Value {
        self.node("LayerNormalization", &[x, weight, bias], vec![int("axis", -1), float("epsilon", epsilon)])
    }

    pub(in crate::model::graph) fn gelu(&mut self, x: &Value) -> Value {
        self.node("Gelu", &[x], vec![])
    }

    /// The approximation by a hyperbolic tangent.
    pub(in crate::model::graph) fn tanh_gelu(&mut self, x: &Value) -> Value {
        self.node("Gelu", &[x], vec![text("approximate", "tanh")])
    }

    pub(in crate::model::graph) fn sigmoid(&mut self, x: &Value) -> Value {
        self.node("Sigmoid", &[x], vec![])
    }

    /// Over the last axis.
    pub(in crate::model::graph) fn softmax(&mut self, x: &Value) -> Value {
        self.node("Softmax", &[x], vec![int("axis", -1)])
    }

    /// Attention of several heads in one operator of ONNX Runtime: `[batch, queries, width]` and twice
    /// `[batch, tokens, width]` to `[batch, queries, width]`. Logits are the products themselves.
    pub(in crate::model::graph) fn multi_head_attention(
        &mut self,
        [query, key, value]: [&Value; 3],
        heads: usize,
        sight: Sight,
    ) -> Value {
        let attributes = vec![
            int("num_heads", heads as i64),
            float("scale", 1.0),
            int("unidirectional", (sight == Sight::Causal).into()),
        ];
        self.contrib("MultiHeadAttention", &[query, key, value], attributes)
    }

    /// `sum = x + (branch + bias)` and its layer norm in one operator of ONNX Runtime. Returns both.
    pub(in crate::model::graph) fn skip_layer_norm(
        &mut self,
        [x, branch, bias]: [&Value; 3],
        [norm_weight, norm_bias]: [&Value; 2],
        epsilon: f32,
    ) -> (Value, Value) {
        let inputs = [branch, x, norm_weight, norm_bias, bias];
        let Value(normed) = self.contrib("SkipLayerNormalization", &inputs, vec![float("epsilon", epsilon)]);
        let sum = format!("{normed}/sum");
        // Between them are the mean and the deviation, which nobody needs.
        let outputs = [String::new(), String::new(), sum.clone()];
        self.graph.node.last_mut().expect("it was just added").output.extend(outputs);
        (Value(sum), Value(normed))
    }

    /// `gelu(x + bias)` in one operator of ONNX Runtime.
    pub(in crate::model::graph) fn bias_gelu(&mut self, x: &Value, bias: &Value) -> Value {
        self.contrib("BiasGelu", &[x, bias], vec![])
    }

    /// `tanh_gelu(x + bias)` in one operator of ONNX Runtime.
    pub(in crate::model::graph) fn fast_gelu(&mut self, x: &Value, bias: &Value) -> Value {
        self.contrib("FastGelu", &[x, bias], vec![])
    }

    /// `x * sigmoid(factor * x)` in one operator of ONNX Runtime.
    pub(in crate::model::graph) fn quick_gelu(&mut self, x: &Value, factor: f32) -> Value {
        self.contrib("QuickGelu", &[x], vec![float("alpha", factor)])
    }

    pub(in crate::model::graph) fn cast(&mut self, x: &Value, element: ElementType) -> Value {
        self.node("Cast", &[x], vec![int("to", element as i64)])
    }

    /// Integers as the numbers that this graph computes with.
    pub(in crate::model::graph) fn float(&mut self, x: &Value) -> Value {
        self.cast(x, self.element)
    }

    /// What follows is stored and computed in fp32, beginning with `x`.
    pub(in crate::model::graph) fn full_precision(&mut self, x: &Value) -> Value {
        if self.element == ElementType::Float {
            return x.clone();
        }
        self.element = ElementType::Float;
        self.cast(x, ElementType::Float)
    }

    /// In `shape`, 0 keeps the size at that position and -1 takes what is left.
    pub(in crate::model::graph) fn reshape(&mut self, x: &Value, shape: &[i64]) -> Value {
        let shape = self.integers(shape);
        self.node("Reshape", &[x, &shape], vec![])
    }

    pub(in crate::model::graph) fn transpose(&mut self, x: &Value, axes: &[i64]) -> Value {
        self.node("Transpose", &[x], vec![ints("perm", axes)])
    }

    /// A new axis of size 1 at `axis`.
    pub(in crate::model::graph) fn unsqueeze(&mut self, x: &Value, axis: i64) -> Value {
        let axes = self.integers(&[axis]);
        self.node("Unsqueeze", &[x, &axes], vec![])
    }

    pub(in crate::model::graph) fn concat(&mut self, values: &[&Value], axis: i64) -> Value {
        self.node("Concat", values, vec![int("axis", axis)])
    }

    /// The size of `x` along `axis`, as a vector of one.
    pub(in crate::model::graph) fn size(&mut self, x: &Value, axis: i64) -> Value {
        self.node("Shape", &[x], vec![int("start", axis), int("end", axis + 1)])
    }

    /// The first `size` places along `axis`.
    pub(in crate::model::graph) fn first(&mut self, x: &Value, size: &Value, axis: i64) -> Value {
        let start = self.integers(&[0]);
        let axis = self.integers(&[axis]);
        self.node("Slice", &[x, &start, size, &axis], vec![])
    }

    /// The last place along `axis`.
    pub(in crate::model::graph) fn last(&mut self, x: &Value, axis: i64) -> Value {
        let (start, end) = (self.integers(&[-1]), self.integers(&[i64::MAX]));
        let axis = self.integers(&[axis]);
        self.node("Slice", &[x, &start, &end, &axis], vec![])
    }

    /// What is left along `axis` without the first place.
    pub(in crate::model::graph) fn rest(&mut self, x: &Value, axis: i64) -> Value {
        let (start, end) = (self.integers(&[1]), self.integers(&[i64::MAX]));
        let axis = self.integers(&[axis]);
        self.node("Slice", &[x, &start, &end, &axis], vec![])
    }

    /// Along `axis`, which stays, with size 1.
    pub(in crate::model::graph) fn mean(&mut self, x: &Value, axis: i64) -> Value {
        let axes = self.integers(&[axis]);
        self.node("ReduceMean", &[x, &axes], vec![])
    }

    /// Of `[batch, channels, height, width]`, with as much padding on every side.
    pub(in crate::model::graph) fn convolution(
        &mut self,
        inputs: [&Value; 3],
        stride: usize,
        padding: usize,
    ) -> Value {
        self.has_convolutions = true;
        let (stride, padding) = (stride as i64, padding as i64);
        self.node("Conv", &inputs, vec![ints("strides", &[stride; 2]), ints("pads", &[padding; 4])])
    }

    /// Over squares that do not overlap.
    pub(in crate::model::graph) fn average_pool(&mut self, x: &Value, side: usize) -> Value {
        let side = [side as i64; 2];
        self.node("AveragePool", &[x], vec![ints("kernel_shape", &side), ints("strides", &side)])
    }

    pub(in crate::model::graph) fn relu(&mut self, x: &Value) -> Value {
        self.node("Relu", &[x], vec![])
    }

    pub(in crate::model::graph) fn equal(&mut self, a: &Value, b: &Value) -> Value {
        self.node("Equal", &[a, b], vec![])
    }

    pub(in crate::model::graph) fn not(&mut self, x: &Value) -> Value {
        self.node("Not", &[x], vec![])
    }

    /// Rows of `table` by number: `result[..., :] = table[indices[...], :]`.
    pub(in crate::model::graph) fn gather(&mut self, table: &Value, indices: &Value) -> Value {
        self.node("Gather", &[table, indices], vec![int("axis", 0)])
    }

    /// One row of each batch entry: `result[b] = x[b, indices[b, 0]]`, for `indices` of `[batch, 1]`.
    pub(in crate::model::graph) fn gather_in_batch(&mut self, x: &Value, indices: &Value) -> Value {
        self.node("GatherND", &[x, indices], vec![int("batch_dims", 1)])
    }

    /// Where the largest value along `axis` first occurs; the axis stays, with size 1. Not the operator ArgMax, for
    /// which ONNX Runtime (1.31) has no CUDA kernel since opset 12.
    pub(in crate::model::graph) fn arg_max(&mut self, x: &Value, axis: i64) -> Value {
        let one = self.integers(&[1]);
        let Value(name) = self.node("TopK", &[x, &one], vec![int("axis", axis)]);
        let place = format!("{name}/place");
        self.graph.node.last_mut().expect("it was just added").output.push(place.clone());
        Value(place)
    }
}
