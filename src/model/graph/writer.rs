//! One encoder being written: its graph so far, the checkpoint that its weights come from, and the layers that all
//! encoders have in common.

use super::Form;
use super::builder::{Builder, Operand, Value};
use crate::model::ModelError;
use crate::model::checkpoint::{Checkpoint, transpose};
use crate::model::config::TransformerConfig;

/// Writes one encoder.
pub(super) struct Writer<'w> {
    pub(super) graph: Builder,
    pub(super) checkpoint: &'w mut Checkpoint,
}

/// A linear layer's result whose bias is yet to be added.
pub(super) struct Unbiased {
    pub(super) product: Value,
    pub(super) bias: Value,
}

impl<'w> Writer<'w> {
    pub(super) fn new(name: &str, form: Form, checkpoint: &'w mut Checkpoint) -> Writer<'w> {
        Writer { graph: Builder::new(name, form), checkpoint }
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

    /// A linear layer with its bias; it is not rounded.
    pub(super) fn projected(
        &mut self,
        name: &str,
        sizes: [usize; 2],
        x: &Value,
    ) -> Result<Value, ModelError> {
        let projected = self.linear(name, sizes, &Operand::float(x))?;
        Ok(self.biased(&projected))
    }

    /// A tensor that goes into the graph as it is.
    pub(super) fn weight(&mut self, name: &str, shape: &[usize]) -> Result<Value, ModelError> {
        let values = self.checkpoint.take(name, shape)?;
        Ok(self.graph.weight(name, shape, values))
    }

    /// A layer that PyTorch keeps as `[outputs, inputs]`.
    pub(super) fn linear(
        &mut self,
        name: &str,
        [inputs, outputs]: [usize; 2],
        x: &Operand,
    ) -> Result<Unbiased, ModelError> {
        let weight = self.checkpoint.take(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = self.checkpoint.take(&format!("{name}.bias"), &[outputs])?;
        Ok(self.linear_of(name, [inputs, outputs], (weight, bias), x))
    }

    /// A layer of weights `[outputs, inputs]` and biases.
    pub(super) fn linear_of(
        &mut self,
        name: &str,
        [inputs, outputs]: [usize; 2],
        (weight, bias): (Vec<f32>, Vec<f32>),
        x: &Operand,
    ) -> Unbiased {
        let weight = transpose(&weight, outputs, inputs);
        let product = self.graph.product(x, &format!("{name}.weight"), [inputs, outputs], weight);
        let bias = self.graph.weight(&format!("{name}.bias"), &[outputs], bias);
        Unbiased { product, bias }
    }

    pub(super) fn biased(&mut self, x: &Unbiased) -> Value {
        self.graph.add(&x.product, &x.bias)
    }

    /// Layer scale: what a layer with weights `[width, inputs]` and biases adds to each number of a token is multiplied
    /// by a weight of its own.
    pub(super) fn scale(
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

    pub(super) fn layer_norm_weights(&mut self, name: &str, width: usize) -> Result<[Value; 2], ModelError> {
        Ok([
            self.weight(&format!("{name}.weight"), &[width])?,
            self.weight(&format!("{name}.bias"), &[width])?,
        ])
    }
}
