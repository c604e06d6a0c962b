//! OpenAI's residual networks (He et al. 2015, as changed by Radford et al. 2021): three convolutions at first instead
//! of one, averages instead of strides, and attention at the end, in which the mean of all places asks.
//!
//! Convolutions pad with black in the space of normalised pixels, so that pixels are normalised before them and not by
//! their weights. Batch norms are constants by now, and part of the convolution before them.

use super::builder::Value;
use super::onnx::ElementType;
use super::writer::Writer;
use crate::model::ModelError;
use crate::model::config::{ImageConfig, ResNet};

/// PyTorch's default for batch norms.
const EPSILON: f32 = 1e-5;
/// A block's last convolution has so many times the channels of the others.
const EXPANSION: usize = 4;

/// The embedding, `[batch, 1, embed_dim]`, of `image`.
pub(super) fn resnet(
    writer: &mut Writer<'_>,
    config: &ImageConfig,
    encoder: &ResNet,
    embed_dim: usize,
    image: &Value,
) -> Result<Value, ModelError> {
    let x = normalised(writer, config, image);
    let (half, width) = (encoder.width / 2, encoder.width);
    let x = writer.activated("visual.", 1, Shape { inputs: 3, outputs: half, side: 3, stride: 2 }, &x)?;
    let x = writer.activated("visual.", 2, Shape { inputs: half, outputs: half, side: 3, stride: 1 }, &x)?;
    let x = writer.activated("visual.", 3, Shape { inputs: half, outputs: width, side: 3, stride: 1 }, &x)?;
    let mut x = writer.graph.average_pool(&x, 2);
    let mut inputs = width;
    for (stage, &blocks) in encoder.stages.iter().enumerate() {
        let planes = width << stage;
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            x = bottleneck(
                writer,
                &format!("visual.layer{}.{block}.", stage + 1),
                [inputs, planes],
                stride,
                &x,
            )?;
            inputs = EXPANSION * planes;
        }
    }
    let places = (config.height / 32) * (config.width / 32);
    // [batch, channels, height, width] to [batch, places, channels]
    let x = writer.graph.reshape(&x, &[0, inputs as i64, places as i64]);
    let x = writer.graph.transpose(&x, &[0, 2, 1]);
    let mean = writer.graph.mean(&x, 1);
    let x = writer.graph.concat(&[&mean, &x], 1);
    let positions = writer.weight("visual.attnpool.positional_embedding", &[places + 1, inputs])?;
    let x = writer.graph.add(&x, &positions);
    let one = writer.graph.integers(&[1]);
    let query = writer.graph.first(&x, &one, 1);
    let x = writer.attention_to("visual.attnpool", [inputs, embed_dim], encoder.heads, [&query, &x])?;
    Ok(writer.graph.full_precision(&x))
}

/// `(byte / 255 - mean) / std`, with colours before places.
fn normalised(writer: &mut Writer<'_>, config: &ImageConfig, image: &Value) -> Value {
    let graph = &mut writer.graph;
    let (mean, std) = (config.preprocess.mean, config.preprocess.std);
    let x = graph.cast(image, ElementType::Float);
    let x = graph.transpose(&x, &[0, 3, 1, 2]);
    let x = graph.float(&x);
    let factor = graph.numbers(&std.map(|std| 1.0 / (255.0 * std)), &[3, 1, 1]);
    let offset = graph.numbers(&[0, 1, 2].map(|channel| -mean[channel] / std[channel]), &[3, 1, 1]);
    let x = graph.multiply(&x, &factor);
    graph.add(&x, &offset)
}

/// A block that is added to what went into it, both with fewer places if the stride is 2.
fn bottleneck(
    writer: &mut Writer<'_>,
    name: &str,
    [inputs, planes]: [usize; 2],
    stride: usize,
    x: &Value,
) -> Result<Value, ModelError> {
    let outputs = EXPANSION * planes;
    let shape = |inputs, outputs, side| Shape { inputs, outputs, side, stride: 1 };
    let branch = writer.activated(name, 1, shape(inputs, planes, 1), x)?;
    let mut branch = writer.activated(name, 2, shape(planes, planes, 3), &branch)?;
    let mut x = x.clone();
    if stride > 1 {
        branch = writer.graph.average_pool(&branch, stride);
        x = writer.graph.average_pool(&x, stride);
    }
    let last = [format!("{name}conv3"), format!("{name}bn3")];
    let branch = writer.convolved(&last, shape(planes, outputs, 1), &branch)?;
    if stride > 1 || inputs != outputs {
        let names = [format!("{name}downsample.0"), format!("{name}downsample.1")];
        x = writer.convolved(&names, shape(inputs, outputs, 1), &x)?;
    }
    let sum = writer.graph.add(&branch, &x);
    Ok(writer.graph.relu(&sum))
}

/// Of a convolution: channels, and the side of a square kernel.
#[derive(Clone, Copy)]
struct Shape {
    inputs: usize,
    outputs: usize,
    side: usize,
    stride: usize,
}

impl Writer<'_> {
    /// The convolution, norm and activation of this number.
    fn activated(&mut self, name: &str, number: usize, shape: Shape, x: &Value) -> Result<Value, ModelError> {
        let names = [format!("{name}conv{number}"), format!("{name}bn{number}")];
        let x = self.convolved(&names, shape, x)?;
        Ok(self.graph.relu(&x))
    }

    fn convolved(
        &mut self,
        [conv, norm]: &[String; 2],
        shape: Shape,
        x: &Value,
    ) -> Result<Value, ModelError> {
        let Shape { inputs, outputs, side, stride } = shape;
        let name = format!("{conv}.weight");
        let dims = [outputs, inputs, side, side];
        let mut kernel = self.checkpoint.take(&name, &dims)?;
        let mut of = |part: &str| self.checkpoint.take(&format!("{norm}.{part}"), &[outputs]);
        let (gain, shift, mean, variance) =
            (of("weight")?, of("bias")?, of("running_mean")?, of("running_var")?);
        let mut bias = vec![0.0; outputs];
        for (output, filter) in kernel.chunks_exact_mut(inputs * side * side).enumerate() {
            let factor = gain[output] / (variance[output] + EPSILON).sqrt();
            filter.iter_mut().for_each(|value| *value *= factor);
            bias[output] = shift[output] - mean[output] * factor;
        }
        let kernel = self.graph.weight(&name, &dims, kernel);
        let bias = self.graph.weight(&format!("{conv}.bias"), &[outputs], bias);
        Ok(self.graph.convolution([x, &kernel, &bias], stride, side / 2))
    }
}
