//! The residual attention block that both encoders are made of:
//! `x + attention(layer_norm(x))`, then `x + mlp(layer_norm(x))`.
//!
//! A sum and the norm of it are written together, and so are a bias and what follows it: where the graph may use
//! ONNX Runtime's own operators, each of these is one. Four factors and terms are put into weights instead of nodes:
//! - the logits' factor `1 / sqrt(head width)` into the query's projection;
//! - the key's bias into nothing: it adds the same to all logits of a query, which softmax takes off again;
//! - the value's bias into that of the output: softmax's weights add up to 1, so it passes through unchanged;
//! - layer scale into the layer before it.

use super::builder::{Builder, Sight, Value};
use super::{Form, Operators};
use crate::model::ModelError;
use crate::model::checkpoint::{Checkpoint, transpose};
use crate::model::config::{Activation, TransformerConfig};

/// `x * sigmoid(1.702 * x)`, as OpenAI's models have it instead of the exact function (Hendrycks and Gimpel 2016).
const QUICK_GELU: f32 = 1.702;

/// Writes one encoder: its graph so far, and the checkpoint that its weights come from.
pub(super) struct Writer<'w> {
    pub(super) graph: Builder,
    pub(super) checkpoint: &'w mut Checkpoint,
}

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
struct Attention<'v> {
    /// `[batch, queries, width]`, normed.
    queries: &'v Value,
    /// `[batch, tokens, width]`, normed.
    context: &'v Value,
    mask: Mask<'v>,
}

/// A linear layer's result whose bias is yet to be added.
struct Unbiased {
    product: Value,
    bias: Value,
}

/// The tokens of a row that leave the last block: one, or all.
pub(super) struct Pool<'v, P> {
    /// `[batch, tokens, width]` to `[batch, 1, width]`, or to itself.
    pub(super) pick: P,
    /// What they see.
    pub(super) mask: Mask<'v>,
}

/// Every token leaves the last block.
pub(super) const ALL: Pool<'static, fn(&mut Builder, &Value) -> Value> =
    Pool { pick: |_, x| x.clone(), mask: Mask::None };

impl<'w> Writer<'w> {
    pub(super) fn new(name: &str, form: Form, checkpoint: &'w mut Checkpoint) -> Writer<'w> {
        Writer { graph: Builder::new(name, form), checkpoint }
    }

    /// Blocks `0..layers` of the transformer whose tensors are named `prefix.N...`.
    ///
    /// The last one is computed for the tokens alone that `pool` picks: what becomes of others would be thrown away.
    /// Returns `[batch, picked, width]`.
    pub(super) fn transformer(
        &mut self,
        prefix: &str,
        config: &TransformerConfig,
        mut x: Value,
        mask: Mask<'_>,
        pool: Pool<'_, impl Fn(&mut Builder, &Value) -> Value>,
    ) -> Result<Value, ModelError> {
        let block = |layer: usize| format!("{prefix}.{layer}");
        let last = config.layers - 1;
        let mut normed = self.layer_norm(&format!("{}.ln_1", block(0)), config, &x)?;
        for layer in 0..last {
            let attention = Attention { queries: &normed, context: &normed, mask };
            let refined;
            (x, refined) = self.block(&block(layer), config, &x, &attention)?;
            (x, normed) = self.add_and_norm(&x, &refined, &format!("{}.ln_1", block(layer + 1)), config)?;
        }
        let (x, queries) = ((pool.pick)(&mut self.graph, &x), (pool.pick)(&mut self.graph, &normed));
        let attention = Attention { queries: &queries, context: &normed, mask: pool.mask };
        let (x, refined) = self.block(&block(last), config, &x, &attention)?;
        let refined = self.biased(&refined);
        Ok(self.graph.add(&x, &refined))
    }

    /// What a probe finds that attends to all tokens, and an MLP makes of it: `[batch, tokens, width]` to
    /// `[batch, 1, width]`.
    pub(super) fn attention_pool(
        &mut self,
        name: &str,
        config: &TransformerConfig,
        x: &Value,
    ) -> Result<Value, ModelError> {
        // The same probe for every picture: rows of zeros bring it to the batch.
        let one = self.graph.integers(&[1]);
        let row = self.graph.first(x, &one, 1);
        let zeros = self.graph.subtract(&row, &row);
        let probe = self.weight(&format!("{name}.probe"), &[1, 1, config.width])?;
        let probe = self.graph.add(&zeros, &probe);
        let attention = Attention { queries: &probe, context: x, mask: Mask::None };
        let found = self.attention(name, config, &attention)?;
        let found = self.biased(&found);
        let normed = self.layer_norm(&format!("{name}.ln"), config, &found)?;
        let refined = self.mlp(name, config, &normed)?;
        let refined = self.biased(&refined);
        Ok(self.graph.add(&found, &refined))
    }

    /// `x` scaled to mean 0 and variance 1 per token, times a weight, plus a bias.
    pub(super) fn layer_norm(
        &mut self,
        name: &str,
        config: &TransformerConfig,
        x: &Value,
    ) -> Result<Value, ModelError> {
        let [weight, bias] = self.layer_norm_weights(name, config.width)?;
        Ok(self.graph.layer_norm(x, &weight, &bias, config.epsilon))
    }

    /// A linear layer with its bias.
    pub(super) fn projected(
        &mut self,
        name: &str,
        sizes: [usize; 2],
        x: &Value,
    ) -> Result<Value, ModelError> {
        let projected = self.linear(name, sizes, x)?;
        Ok(self.biased(&projected))
    }

    /// A tensor that goes into the graph as it is.
    pub(super) fn weight(&mut self, name: &str, shape: &[usize]) -> Result<Value, ModelError> {
        let values = self.checkpoint.take(name, shape)?;
        Ok(self.graph.weight(name, shape, values))
    }

    /// A matrix that the checkpoint has as `[inputs, outputs]`.
    pub(super) fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Value, ModelError> {
        let values = self.checkpoint.take(name, &shape)?;
        Ok(self.graph.matrix(name, shape, values))
    }

    /// A block without its last addition: what it is added to, and what is to be added.
    fn block(
        &mut self,
        name: &str,
        config: &TransformerConfig,
        x: &Value,
        attention: &Attention<'_>,
    ) -> Result<(Value, Unbiased), ModelError> {
        let attended = self.attention(name, config, attention)?;
        let (x, normed) = self.add_and_norm(x, &attended, &format!("{name}.ln_2"), config)?;
        Ok((x, self.mlp(name, config, &normed)?))
    }

    /// That of the block `block`.
    fn attention(
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
        let found = self.linear_of(&name, [width, outputs], layer, &x);
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
        let mut project = |part: usize, suffix: &str, scale: f32, x: &Value| {
            let mut weight = transpose(&weights[part * width * width..][..width * width], width, width);
            weight.iter_mut().for_each(|value| *value *= scale);
            let weight = self.graph.matrix(&format!("{name}.{suffix}.weight"), [width, width], weight);
            self.graph.matmul(x, &weight)
        };
        let query = project(0, "query", scale, attention.queries);
        let key = project(1, "key", 1.0, attention.context);
        let value = project(2, "value", 1.0, attention.context);
        let query_bias = biases[..width].iter().map(|value| value * scale).collect();
        let query_bias = self.graph.weight(&format!("{name}.query.bias"), &[width], query_bias);
        let query = self.graph.add(&query, &query_bias);
        let x = self.attend([&query, &key, &value], [width, heads], attention.mask);
        Ok((x, biases.split_off(2 * width)))
    }

    /// Layer scale: what a layer with weights `[width, inputs]` and biases adds to each number of a token is multiplied
    /// by a weight of its own.
    fn scale(
        &mut self,
        gamma: &str,
        config: &TransformerConfig,
        weight: &mut [f32],
        bias: &mut [f32],
    ) -> Result<(), ModelError> {
        if config.layer_scale {
            let inputs = weight.len() / config.width;
            let gamma = self.checkpoint.take(gamma, &[config.width])?;
            for ((row, bias), gamma) in weight.chunks_exact_mut(inputs).zip(bias).zip(gamma) {
                row.iter_mut().for_each(|weight| *weight *= gamma);
                *bias *= gamma;
            }
        }
        Ok(())
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

    /// That of the block `block`.
    fn mlp(&mut self, block: &str, config: &TransformerConfig, x: &Value) -> Result<Unbiased, ModelError> {
        let (width, mlp_width) = (config.width, config.mlp_width);
        let x = self.linear(&format!("{block}.mlp.c_fc"), [width, mlp_width], x)?;
        let x = self.activation(config.activation, &x);
        let name = format!("{block}.mlp.c_proj");
        let mut weight = self.checkpoint.take(&format!("{name}.weight"), &[width, mlp_width])?;
        let mut bias = self.checkpoint.take(&format!("{name}.bias"), &[width])?;
        self.scale(&format!("{block}.ls_2.gamma"), config, &mut weight, &mut bias)?;
        Ok(self.linear_of(&name, [mlp_width, width], (weight, bias), &x))
    }

    fn activation(&mut self, activation: Activation, x: &Unbiased) -> Value {
        match (self.graph.form().operators, activation) {
            (Operators::Fused, Activation::Gelu) => self.graph.bias_gelu(&x.product, &x.bias),
            (Operators::Fused, Activation::TanhGelu) => self.graph.fast_gelu(&x.product, &x.bias),
            (Operators::Fused, Activation::QuickGelu) => {
                let x = self.biased(x);
                self.graph.quick_gelu(&x, QUICK_GELU)
            }
            (Operators::Standard, Activation::Gelu) => {
                let x = self.biased(x);
                self.graph.gelu(&x)
            }
            (Operators::Standard, Activation::TanhGelu) => {
                let x = self.biased(x);
                self.graph.tanh_gelu(&x)
            }
            (Operators::Standard, Activation::QuickGelu) => {
                let x = self.biased(x);
                let factor = self.graph.number(QUICK_GELU);
                let scaled = self.graph.multiply(&x, &factor);
                let gate = self.graph.sigmoid(&scaled);
                self.graph.multiply(&x, &gate)
            }
        }
    }

    /// A layer that PyTorch keeps as `[outputs, inputs]`.
    fn linear(
        &mut self,
        name: &str,
        [inputs, outputs]: [usize; 2],
        x: &Value,
    ) -> Result<Unbiased, ModelError> {
        let weight = self.checkpoint.take(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = self.checkpoint.take(&format!("{name}.bias"), &[outputs])?;
        Ok(self.linear_of(name, [inputs, outputs], (weight, bias), x))
    }

    /// A layer of weights `[outputs, inputs]` and biases.
    fn linear_of(
        &mut self,
        name: &str,
        [inputs, outputs]: [usize; 2],
        (weight, bias): (Vec<f32>, Vec<f32>),
        x: &Value,
    ) -> Unbiased {
        let weight = transpose(&weight, outputs, inputs);
        let weight = self.graph.matrix(&format!("{name}.weight"), [inputs, outputs], weight);
        let bias = self.graph.weight(&format!("{name}.bias"), &[outputs], bias);
        Unbiased { product: self.graph.matmul(x, &weight), bias }
    }

    fn biased(&mut self, x: &Unbiased) -> Value {
        self.graph.add(&x.product, &x.bias)
    }

    /// `x + branch`, and the norm `name` of that.
    fn add_and_norm(
        &mut self,
        x: &Value,
        branch: &Unbiased,
        name: &str,
        config: &TransformerConfig,
    ) -> Result<(Value, Value), ModelError> {
        let [weight, bias] = self.layer_norm_weights(name, config.width)?;
        match self.graph.form().operators {
            Operators::Fused => {
                let Unbiased { product, bias: branch_bias } = branch;
                let terms = [x, product, branch_bias];
                Ok(self.graph.skip_layer_norm(terms, [&weight, &bias], config.epsilon))
            }
            Operators::Standard => {
                let branch = self.biased(branch);
                let sum = self.graph.add(x, &branch);
                let normed = self.graph.layer_norm(&sum, &weight, &bias, config.epsilon);
                Ok((sum, normed))
            }
        }
    }

    fn layer_norm_weights(&mut self, name: &str, width: usize) -> Result<[Value; 2], ModelError> {
        Ok([
            self.weight(&format!("{name}.weight"), &[width])?,
            self.weight(&format!("{name}.bias"), &[width])?,
        ])
    }
}

/// `sum += matrix @ vector`, for a matrix `[outputs, inputs]`; rounded once.
pub(super) fn add_product(sum: &mut [f32], matrix: &[f32], vector: &[f32]) {
    for (sum, row) in sum.iter_mut().zip(matrix.chunks_exact(vector.len())) {
        let products = row.iter().zip(vector).map(|(a, b)| f64::from(*a) * f64::from(*b));
        *sum = (f64::from(*sum) + products.sum::<f64>()) as f32;
    }
}
