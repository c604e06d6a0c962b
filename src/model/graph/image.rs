//! The image encoder, a vision transformer (Dosovitskiy et al. 2020) with CLIP's extra layer norm.
//!
//! Its input is the picture's bytes: conversion to 0..1, mean and standard deviation are folded into the
//! first layer's weights, so four times fewer bytes are copied and nothing is computed per pixel. That
//! layer is a convolution whose patches do not overlap, written as cutting the picture and one product:
//! ONNX Runtime rearranges a convolution's weights when it loads a graph, before shared ones are known.

use super::builder::{Builder, Dim, Value};
use super::onnx::ElementType;
use super::transformer::Writer;
use super::{Graph, IMAGE_INPUT};
use crate::model::ModelError;
use crate::model::checkpoint::Checkpoint;
use crate::model::config::ImageConfig;

/// Writes the graph of open_clip's `VisionTransformer`, tensors `visual.*`.
pub(in crate::model) fn image_encoder(
    checkpoint: &mut Checkpoint,
    config: &ImageConfig,
    embed_dim: usize,
) -> Result<Graph, ModelError> {
    let mut writer = Writer { graph: Builder::new("image"), checkpoint };
    let width = config.transformer.width;
    let shape = [Dim::Dynamic("batch"), Dim::Fixed(config.height), Dim::Fixed(config.width), Dim::Fixed(3)];
    let image = writer.graph.input(IMAGE_INPUT, ElementType::Uint8, &shape);
    let pixels = cut_into_patches(&mut writer.graph, &image, config);
    let pixels = writer.graph.cast(&pixels, ElementType::Float);
    let kernel = writer.checkpoint.take("visual.conv1.weight", &[width, 3, config.patch, config.patch])?;
    let (kernel, bias) = fold_normalisation(&kernel, config);
    let kernel =
        writer.graph.weight("visual.conv1.weight", &[config.patch * config.patch * 3, width], kernel);
    let bias = writer.graph.weight("visual.conv1.bias", &[width], bias);
    let x = writer.graph.linear(&pixels, &kernel, &bias);

    let class = writer.checkpoint.take("visual.class_embedding", &[width])?;
    let class = writer.graph.weight("visual.class_embedding", &[1, 1, width], class);
    let batch = writer.graph.size(&image, 0);
    let token = writer.graph.integers(&[1, width as i64]);
    let class_shape = writer.graph.concat(&[&batch, &token], 0);
    let class = writer.graph.expand(&class, &class_shape);
    let x = writer.graph.concat(&[&class, &x], 1);
    let position =
        writer.weight("visual.positional_embedding", &[config.rows() * config.columns() + 1, width])?;
    let x = writer.graph.add(&x, &position);
    let x = writer.layer_norm("visual.ln_pre", width, &x)?;

    let x =
        writer.transformer("visual.transformer.resblocks", &config.transformer, x, None, |graph, x| {
            let one = graph.integers(&[1]);
            (graph.first(x, &one, 1), None)
        })?;

    let x = writer.layer_norm("visual.ln_post", width, &x)?;
    let projection = writer.weight("visual.proj", &[width, embed_dim])?;
    let x = writer.graph.matmul(&x, &projection);
    let x = writer.graph.reshape(&x, &[0, embed_dim as i64]);
    Ok(writer.graph.finish(&x, embed_dim))
}

/// `[batch, height, width, 3]` to `[batch, patches, patch * patch * 3]`.
fn cut_into_patches(graph: &mut Builder, image: &Value, config: &ImageConfig) -> Value {
    let (patch, rows, columns) = (config.patch as i64, config.rows() as i64, config.columns() as i64);
    let mut image = image.clone();
    for (axis, seen, size) in [(1, rows * patch, config.height), (2, columns * patch, config.width)] {
        if seen < size as i64 {
            let seen = graph.integers(&[seen]);
            image = graph.first(&image, &seen, axis);
        }
    }
    let lines = graph.reshape(&image, &[0, rows, patch, columns, patch * 3]);
    let patches = graph.transpose(&lines, &[0, 1, 3, 2, 4]);
    graph.reshape(&patches, &[0, rows * columns, patch * patch * 3])
}

/// Turns the convolution's kernel for `(byte / 255 - mean) / std` into a linear layer's weight for bytes,
/// and the bias that goes with it: `[width, 3, patch, patch]` to `[patch * patch * 3, width]` and `[width]`.
fn fold_normalisation(kernel: &[f32], config: &ImageConfig) -> (Vec<f32>, Vec<f32>) {
    let (area, width) = (config.patch * config.patch, config.transformer.width);
    let mut weight = vec![0.0; kernel.len()];
    let mut bias = vec![0.0; width];
    for (output, filter) in kernel.chunks_exact(3 * area).enumerate() {
        let mut offset = 0.0;
        for (channel, pixels) in filter.chunks_exact(area).enumerate() {
            let mean = f64::from(config.preprocess.mean[channel]);
            let std = f64::from(config.preprocess.std[channel]);
            for (pixel, &factor) in pixels.iter().enumerate() {
                let factor = f64::from(factor);
                offset -= factor * mean / std;
                weight[(pixel * 3 + channel) * width + output] = (factor / (255.0 * std)) as f32;
            }
        }
        bias[output] = offset as f32;
    }
    (weight, bias)
}
