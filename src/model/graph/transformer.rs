//! The residual attention block that both encoders are made of:
//! `x + attention(layer_norm(x))`, then `x + mlp(layer_norm(x))`.

use super::builder::{Builder, Value};
use crate::model::ModelError;
use crate::model::checkpoint::{Checkpoint, transpose};
use crate::model::config::{Activation, TransformerConfig};

/// PyTorch's default, which open_clip does not change.
const LAYER_NORM_EPSILON: f32 = 1e-5;

/// Writes one encoder: its graph so far, and the checkpoint that its weights come from.
pub(super) struct Writer<'w> {
    pub(super) graph: Builder,
    pub(super) checkpoint: &'w mut Checkpoint,
}

/// Which tokens leave a block, and what they may look at.
struct Attention<'v> {
    /// `[batch, queries, width]`: the tokens that leave.
    queries: &'v Value,
    /// `[batch, tokens, width]`: the tokens that are looked at.
    context: &'v Value,
    /// Added to the attention logits, broadcast to `[batch, heads, queries, tokens]`.
    mask: Option<&'v Value>,
}

impl Writer<'_> {
    /// Blocks `0..layers` of the transformer whose tensors are named `prefix.N...`.
    ///
    /// The last one is computed for the token alone that becomes the embedding, which `pool` picks from
    /// `[batch, tokens, width]`: the others' results would be thrown away. Returns `[batch, 1, width]`.
    pub(super) fn transformer(
        &mut self,
        prefix: &str,
        config: &TransformerConfig,
        mut x: Value,
        mask: Option<&Value>,
        pool: impl FnOnce(&mut Builder, &Value) -> (Value, Option<Value>),
    ) -> Result<Value, ModelError> {
        let last = config.layers - 1;
        for layer in 0..last {
            let name = format!("{prefix}.{layer}");
            x = self.block(&name, config, Attention { queries: &x, context: &x, mask })?;
        }
        let (pooled, pooled_mask) = pool(&mut self.graph, &x);
        let attention = Attention { queries: &pooled, context: &x, mask: pooled_mask.as_ref() };
        self.block(&format!("{prefix}.{last}"), config, attention)
    }

    /// `x` scaled to mean 0 and variance 1 per token, times a weight, plus a bias.
    pub(super) fn layer_norm(&mut self, name: &str, width: usize, x: &Value) -> Result<Value, ModelError> {
        let (weight, bias) = self.layer_norm_weights(name, width)?;
        Ok(self.graph.layer_norm(x, &weight, &bias, LAYER_NORM_EPSILON))
    }

    /// A tensor that goes into the graph as it is.
    pub(super) fn weight(&mut self, name: &str, shape: &[usize]) -> Result<Value, ModelError> {
        let values = self.checkpoint.take(name, shape)?;
        Ok(self.graph.weight(name, shape, values))
    }

    fn block(
        &mut self,
        name: &str,
        config: &TransformerConfig,
        attention: Attention<'_>,
    ) -> Result<Value, ModelError> {
        let attended = self.attention(name, config, &attention)?;
        let x = self.graph.add(attention.queries, &attended);
        let normed = self.layer_norm(&format!("{name}.ln_2"), config.width, &x)?;
        let refined = self.mlp(&format!("{name}.mlp"), config, &normed)?;
        Ok(self.graph.add(&x, &refined))
    }

    fn attention(
        &mut self,
        name: &str,
        config: &TransformerConfig,
        attention: &Attention<'_>,
    ) -> Result<Value, ModelError> {
        let width = config.width;
        let (norm_weight, norm_bias) = self.layer_norm_weights(&format!("{name}.ln_1"), width)?;
        let mut norm = |x: &Value| self.graph.layer_norm(x, &norm_weight, &norm_bias, LAYER_NORM_EPSILON);
        let context = norm(attention.context);
        let queries =
            if attention.queries == attention.context { context.clone() } else { norm(attention.queries) };

        let [query, key, value] = self.projections(&format!("{name}.attn"), config)?;
        let query = self.graph.linear(&queries, &query.weight, &query.bias);
        let key = self.graph.linear(&context, &key.weight, &key.bias);
        let value = self.graph.linear(&context, &value.weight, &value.bias);

        // [batch, tokens, width] to [batch, heads, tokens, head width]; keys transposed for the product.
        let heads = [0, 0, config.heads as i64, -1];
        let mut split = |x: &Value, axes: &[i64]| {
            let x = self.graph.reshape(x, &heads);
            self.graph.transpose(&x, axes)
        };
        let (query, key, value) =
            (split(&query, &[0, 2, 1, 3]), split(&key, &[0, 2, 3, 1]), split(&value, &[0, 2, 1, 3]));
        let mut logits = self.graph.matmul(&query, &key);
        if let Some(mask) = attention.mask {
            logits = self.graph.add(&logits, mask);
        }
        let weights = self.graph.softmax(&logits);
        let x = self.graph.matmul(&weights, &value);
        let x = self.graph.transpose(&x, &[0, 2, 1, 3]);
        let x = self.graph.reshape(&x, &[0, 0, width as i64]);
        self.linear(&format!("{name}.attn.out_proj"), width, width, &x)
    }

    fn mlp(&mut self, name: &str, config: &TransformerConfig, x: &Value) -> Result<Value, ModelError> {
        let x = self.linear(&format!("{name}.c_fc"), config.width, config.mlp_width, x)?;
        let x = match config.activation {
            Activation::Gelu => self.graph.gelu(&x),
            Activation::QuickGelu => {
                let factor = self.graph.number(1.702);
                let scaled = self.graph.multiply(&x, &factor);
                let gate = self.graph.sigmoid(&scaled);
                self.graph.multiply(&x, &gate)
            }
        };
        self.linear(&format!("{name}.c_proj"), config.mlp_width, config.width, &x)
    }

    fn linear(&mut self, name: &str, inputs: usize, outputs: usize, x: &Value) -> Result<Value, ModelError> {
        let weight_name = format!("{name}.weight");
        let weight = self.checkpoint.take_transposed(&weight_name, outputs, inputs)?;
        let weight = self.graph.weight(&weight_name, &[inputs, outputs], weight);
        let bias = self.weight(&format!("{name}.bias"), &[outputs])?;
        Ok(self.graph.linear(x, &weight, &bias))
    }

    /// PyTorch keeps the three input projections of attention in one tensor, `[3 * width, width]`.
    /// The logits' factor `1 / sqrt(head width)` is folded into the query's.
    fn projections(&mut self, name: &str, config: &TransformerConfig) -> Result<[Projection; 3], ModelError> {
        let width = config.width;
        let weights = self.checkpoint.take(&format!("{name}.in_proj_weight"), &[3 * width, width])?;
        let biases = self.checkpoint.take(&format!("{name}.in_proj_bias"), &[3 * width])?;
        let scale = ((width / config.heads) as f32).sqrt().recip();
        let mut projection = |part: usize, suffix: &str, scale: f32| {
            let mut weight = transpose(&weights[part * width * width..][..width * width], width, width);
            let mut bias = biases[part * width..][..width].to_vec();
            weight.iter_mut().chain(&mut bias).for_each(|value| *value *= scale);
            Projection {
                weight: self.graph.weight(&format!("{name}.{suffix}.weight"), &[width, width], weight),
                bias: self.graph.weight(&format!("{name}.{suffix}.bias"), &[width], bias),
            }
        };
        Ok([projection(0, "query", scale), projection(1, "key", 1.0), projection(2, "value", 1.0)])
    }

    fn layer_norm_weights(&mut self, name: &str, width: usize) -> Result<(Value, Value), ModelError> {
        Ok((
            self.weight(&format!("{name}.weight"), &[width])?,
            self.weight(&format!("{name}.bias"), &[width])?,
        ))
    }
}

/// A linear layer's tensors in the graph.
struct Projection {
    /// `[inputs, outputs]`.
    weight: Value,
    /// `[outputs]`.
    bias: Value,
}
