//! Attention of several heads (Vaswani et al. 2017), in operators of the standard or in one of ONNX Runtime's own.
//!
//! Three factors and terms are put into weights instead of nodes:
//! - the logits' factor `1 / sqrt(head width)` into the query's projection;
//! - the key's bias into nothing: it adds the same to all logits of a query, which softmax takes off again;
//! - the value's bias into that of the output: softmax's weights add up to 1, so it passes through unchanged.

use super::Operators;
use super::builder::{Operand, Sight, Value};
use super::writer::{Unbiased, Writer};
use crate::model::ModelError;
use crate::model::checkpoint::transpose;
use crate::model::config::TransformerConfig;

/// What is added to the attention logits.
#[derive(Clone, Copy)]
pub(super) enum Mask<'v> {
    None,
    /// `[tokens, tokens]`: minus infinity for tokens that come later.
    Causal(&'v Value),
    /// `[batch, 1, 1, tokens]`, for a single query.
    Row(&'v Value),
}

/// Which tokens leave attention, what they look at, and what of that they see.
pub(super) struct Attention<'v> {
    /// `[batch, queries, width]`, normed.
    pub(super) queries: &'v Value,
    /// `[batch, tokens, width]`, normed.
    pub(super) context: &'v Value,
    pub(super) mask: Mask<'v>,
}

impl Writer<'_> {
    /// That of the block `block`.
    pub(super) fn attention(
        &mut self,
        block: &str,
        config: &TransformerConfig,
        attention: &Attention<'_>,
    ) -> Result<Unbiased, ModelError> {
        let width = config.width;
        let name = format!("{block}.attn");
        let (x, value_bias) = self.attended(&name, width, config.heads, attention)?;
        let name = format!("{name}.out_proj");
        let (mut weight, mut bias) = self.out_projection(&name, [width, width], &value_bias)?;
        self.scale(&format!("{block}.ls_1.gamma"), config, &mut weight, &mut bias)?;
        let x = self.graph.operand(&name, &x, width)?;
        Ok(self.linear_of(&name, [width, width], (weight, bias), &x))
    }

    /// What one query of each row finds, projected to another width.
    pub(super) fn attention_to(
        &mut self,
        name: &str,
        [width, outputs]: [usize; 2],
        heads: usize,
        [queries, context]: [&Value; 2],
    ) -> Result<Value, ModelError> {
        let attention = Attention { queries, context, mask: Mask::None };
        let (x, value_bias) = self.attended(&format!("{name}.attn"), width, heads, &attention)?;
        let name = format!("{name}.attn.out_proj");
        let layer = self.out_projection(&name, [width, outputs], &value_bias)?;
        let found = self.linear_of(&name, [width, outputs], layer, &Operand::float(&x));
        Ok(self.biased(&found))
    }

    /// Weights `[outputs, inputs]` and biases of the layer behind attention, with the bias of its values in them.
    fn out_projection(
        &mut self,
        name: &str,
        [inputs, outputs]: [usize; 2],
        value_bias: &[f32],
    ) -> Result<(Vec<f32>, Vec<f32>), ModelError> {
        let weight = self.checkpoint.take(&format!("{name}.weight"), &[outputs, inputs])?;
        let mut bias = self.checkpoint.take(&format!("{name}.bias"), &[outputs])?;
        add_product(&mut bias, &weight, value_bias);
        Ok((weight, bias))
    }

    /// Attention without its last layer, and the bias of its values, which is yet to be added.
    fn attended(
        &mut self,
        name: &str,
        width: usize,
        heads: usize,
        attention: &Attention<'_>,
    ) -> Result<(Value, Vec<f32>), ModelError> {
        // PyTorch keeps the three input projections in one tensor, `[3 * width, width]`.
        let weights = self.checkpoint.take(&format!("{name}.in_proj_weight"), &[3 * width, width])?;
        let mut biases = self.checkpoint.take(&format!("{name}.in_proj_bias"), &[3 * width])?;
        let scale = ((width / heads) as f32).sqrt().recip();
        let context = self.graph.operand(name, attention.context, width)?;
        // A few tokens of a row, if they are not all: they cost little, and are not rounded.
        let few = Operand::float(attention.queries);
        let queries = if attention.queries == attention.context { &context } else { &few };
        let mut project = |part: usize, suffix: &str, scale: f32, x: &Operand| {
            let mut weight = transpose(&weights[part * width * width..][..width * width], width, width);
            weight.iter_mut().for_each(|value| *value *= scale);
            self.graph.product(x, &format!("{name}.{suffix}.weight"), [width, width], weight)
        };
        let query = project(0, "query", scale, queries);
        let key = project(1, "key", 1.0, &context);
        let value = project(2, "value", 1.0, &context);
        let query_bias = biases[..width].iter().map(|value| value * scale).collect();
        let query_bias = self.graph.weight(&format!("{name}.query.bias"), &[width], query_bias);
        let query = self.graph.add(&query, &query_bias);
        let x = self.attend([&query, &key, &value], [width, heads], attention.mask);
        Ok((x, biases.split_off(2 * width)))
    }

    /// `softmax(query @ key + mask) @ value` in every head, back to `[batch, queries, width]`.
    fn attend(
        &mut self,
        [query, key, value]: [&Value; 3],
        [width, head_count]: [usize; 2],
        mask: Mask<'_>,
    ) -> Value {
        let graph = &mut self.graph;
        // A mask that is an input would rule the fast kernels out.
        let sight = match (graph.form().operators, mask) {
            (Operators::Fused, Mask::None) => Some(Sight::All),
            (Operators::Fused, Mask::Causal(_)) => Some(Sight::Causal),
            (Operators::Fused, Mask::Row(_)) | (Operators::Standard, _) => None,
        };
        if let Some(sight) = sight {
            return graph.multi_head_attention([query, key, value], head_count, sight);
        }
        // [batch, tokens, width] to [batch, heads, tokens, head width]; keys transposed for the product.
        let heads = [0, 0, head_count as i64, -1];
        let mut split = |x: &Value, axes: &[i64]| {
            let x = graph.reshape(x, &heads);
            graph.transpose(&x, axes)
        };
        let (query, key, value) =
            (split(query, &[0, 2, 1, 3]), split(key, &[0, 2, 3, 1]), split(value, &[0, 2, 1, 3]));
        let mut logits = graph.matmul(&query, &key);
        if let Mask::Causal(mask) | Mask::Row(mask) = mask {
            logits = graph.add(&logits, mask);
        }
        let weights = graph.softmax(&logits);
        let x = graph.matmul(&weights, &value);
        let x = graph.transpose(&x, &[0, 2, 1, 3]);
        graph.reshape(&x, &[0, 0, width as i64])
    }
}

/// `sum += matrix @ vector`, for a matrix `[outputs, inputs]`; rounded once.
pub(super) fn add_product(sum: &mut [f32], matrix: &[f32], vector: &[f32]) {
    for (sum, row) in sum.iter_mut().zip(matrix.chunks_exact(vector.len())) {
        let products = row.iter().zip(vector).map(|(a, b)| f64::from(*a) * f64::from(*b));
        *sum = (f64::from(*sum) + products.sum::<f64>()) as f32;
    }
}
