//! The residual attention block that both encoders are made of:
//! `x + attention(layer_norm(x))`, then `x + mlp(layer_norm(x))`.
//!
//! A sum and the norm of it are written together, and so are a bias and what follows it: where the graph may use
//! ONNX Runtime's own operators, each of these is one. Layer scale is put into the layer before it.

use super::Operators;
use super::attention::{Attention, Mask};
use super::builder::{Builder, Value};
use super::writer::{Unbiased, Writer};
use crate::model::ModelError;
use crate::model::config::{Activation, TransformerConfig};

/// `x * sigmoid(1.702 * x)`, as OpenAI's models have it instead of the exact function (Hendrycks and Gimpel 2016).
const QUICK_GELU: f32 = 1.702;

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

impl Writer<'_> {
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
    fn mlp(&mut self, block: &str, config: &TransformerConfig, x: &Value) -> Result<Unbiased, ModelError> {
        let (width, mlp_width) = (config.width, config.mlp_width);
        let name = format!("{block}.mlp.c_fc");
        let x = self.graph.operand(&name, x, width)?;
        let x = self.linear(&name, [width, mlp_width], &x)?;
        let x = self.activation(config.activation, &x);
        let name = format!("{block}.mlp.c_proj");
        let x = self.graph.operand(&name, &x, mlp_width)?;
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
}
