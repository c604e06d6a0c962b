//! The image encoder, a vision transformer (Dosovitskiy et al. 2020): CLIP's, with a class token and an extra norm, or
//! SigLIP's, with neither and a pooling of its own. Or a ResNet, which has a file of its own.
//!
//! Its input is the picture's bytes: conversion to 0..1, mean and standard deviation are folded into the
//! first layer's weights, so four times fewer bytes are copied and little is computed per pixel. That
//! layer is a convolution whose patches do not overlap, written as cutting the picture and one product:
//! ONNX Runtime rearranges a convolution's weights when it loads a graph, before shared ones are known.
//!
//! Bytes are centred before that product. Weights that are rounded to 16 or 8 bits are a little off, and what that
//! makes of a picture grows with its mean; 128 less is exact in all of these types, and the bias makes up for it.

use super::attention::Mask;
use super::builder::{Builder, Value};
use super::onnx::ElementType;
use super::parts::Dim;
use super::resnet::resnet;
use super::transformer::{ALL, Pool};
use super::writer::Writer;
use super::{Form, Graph, IMAGE_INPUT, WeightType};
use crate::model::ModelError;
use crate::model::checkpoint::Checkpoint;
use crate::model::config::{
    ImageConfig, ImageEncoder, ImagePool, PreprocessConfig, TransformerConfig, VisionTransformer,
};

/// The middle of the bytes.
const CENTRE: f32 = 128.0;

/// The first layer's weights have the 255 of a byte and the deviation of colours divided out: they are so small that
/// fp16 would lose digits. So there they are multiplied by this, and the bytes are divided by it, both without
/// rounding.
const HALF_SCALE: f32 = 256.0;

/// Writes the graph of open_clip's `VisionTransformer` or `ModifiedResNet`, or of timm's transformer for SigLIP;
/// tensors `visual.*`.
pub(in crate::model) fn image_encoder(
    checkpoint: &mut Checkpoint,
    config: &ImageConfig,
    embed_dim: usize,
    form: Form,
) -> Result<Graph, ModelError> {
    let mut writer = Writer::new("image", form, checkpoint);
    let shape = [Dim::Dynamic("batch"), Dim::Fixed(config.height), Dim::Fixed(config.width), Dim::Fixed(3)];
    let image = writer.graph.input(IMAGE_INPUT, ElementType::Uint8, &shape);
    let x = match &config.encoder {
        ImageEncoder::Transformer(encoder) => transformer(&mut writer, config, encoder, embed_dim, &image)?,
        ImageEncoder::ResNet(encoder) => resnet(&mut writer, config, encoder, embed_dim, &image)?,
    };
    let x = writer.graph.reshape(&x, &[0, embed_dim as i64]);
    Ok(writer.graph.finish(&x, embed_dim))
}

/// The embedding, `[batch, 1, embed_dim]`.
fn transformer(
    writer: &mut Writer<'_>,
    config: &ImageConfig,
    encoder: &VisionTransformer,
    embed_dim: usize,
    image: &Value,
) -> Result<Value, ModelError> {
    let (width, patch) = (encoder.transformer.width, encoder.patch);
    let grid = [config.height / patch, config.width / patch];
    let patches = cut_into_patches(&mut writer.graph, image, config, patch);

    let kernel = writer.checkpoint.take("visual.conv1.weight", &[width, 3, patch, patch])?;
    let (mut kernel, mut bias) = fold_normalisation(&kernel, patch, &config.preprocess);
    if encoder.patch_bias {
        let own = writer.checkpoint.take("visual.conv1.bias", &[width])?;
        bias.iter_mut().zip(own).for_each(|(bias, own)| *bias += own);
    }
    let centre = writer.graph.number(CENTRE);
    let mut pixels = writer.graph.float(&patches);
    pixels = writer.graph.subtract(&pixels, &centre);
    if writer.graph.form().weights == WeightType::Fp16 {
        let scale = writer.graph.number(HALF_SCALE.recip());
        pixels = writer.graph.multiply(&pixels, &scale);
        kernel.iter_mut().for_each(|value| *value *= HALF_SCALE);
    }
    let inputs = patch * patch * 3;
    let pixels = writer.graph.operand("visual.conv1", &pixels, inputs)?;
    let x = writer.graph.product(&pixels, "visual.conv1.weight", [inputs, width], kernel);
    let mut x = with_positions(writer, encoder, grid, x, &bias)?;
    if encoder.norm_before {
        x = writer.layer_norm("visual.ln_pre", &encoder.transformer, &x)?;
    }

    let (blocks, transformer) = ("visual.transformer.resblocks", &encoder.transformer);
    match encoder.pool {
        ImagePool::ClassToken => {
            let pick = |graph: &mut Builder, x: &Value| {
                let one = graph.integers(&[1]);
                graph.first(x, &one, 1)
            };
            let pool = Pool { pick, mask: Mask::None };
            let x = writer.transformer(blocks, transformer, x, Mask::None, pool)?;
            normed_and_projected(writer, transformer, embed_dim, &x)
        }
        ImagePool::Mean => {
            let x = writer.transformer(blocks, transformer, x, Mask::None, ALL)?;
            let patches = if encoder.class_token { writer.graph.rest(&x, 1) } else { x };
            let x = writer.graph.mean(&patches, 1);
            normed_and_projected(writer, transformer, embed_dim, &x)
        }
        ImagePool::Attention => {
            let x = writer.transformer(blocks, transformer, x, Mask::None, ALL)?;
            let x = writer.layer_norm("visual.ln_post", transformer, &x)?;
            let x = writer.attention_pool("visual.attn_pool", transformer, &x)?;
            Ok(writer.graph.full_precision(&x))
        }
    }
}

/// Adds positions to `[batch, patches, width]`, and `bias`, that of the first layer; and puts the class token in front,
/// if there is one.
fn with_positions(
    writer: &mut Writer<'_>,
    encoder: &VisionTransformer,
    [rows, columns]: [usize; 2],
    mut x: Value,
    bias: &[f32],
) -> Result<Value, ModelError> {
    let width = encoder.transformer.width;
    let class = if encoder.class_token {
        // It is a row of zeros here; what it holds comes with the positions.
        let one = writer.graph.integers(&[1]);
        let row = writer.graph.first(&x, &one, 1);
        let zeros = writer.graph.subtract(&row, &row);
        x = writer.graph.concat(&[&zeros, &x], 1);
        Some(writer.checkpoint.take("visual.class_embedding", &[width])?)
    } else {
        None
    };
    let shape = [rows * columns + usize::from(class.is_some()), width];
    let mut position = writer.checkpoint.take("visual.positional_embedding", &shape)?;
    let added = class.as_deref().into_iter().chain(std::iter::repeat(bias));
    for (position, added) in position.chunks_exact_mut(width).zip(added) {
        position.iter_mut().zip(added).for_each(|(position, added)| *position += added);
    }
    let position = writer.graph.weight("visual.positional_embedding", &shape, position);
    Ok(writer.graph.add(&x, &position))
}

/// What CLIP does to what was pooled, in full precision.
fn normed_and_projected(
    writer: &mut Writer<'_>,
    config: &TransformerConfig,
    embed_dim: usize,
    x: &Value,
) -> Result<Value, ModelError> {
    let x = writer.graph.full_precision(x);
    let x = writer.layer_norm("visual.ln_post", config, &x)?;
    let projection = writer.weight("visual.proj", &[config.width, embed_dim])?;
    Ok(writer.graph.matmul(&x, &projection))
}

/// `[batch, height, width, 3]` to `[batch, patches, patch * patch * 3]`.
fn cut_into_patches(graph: &mut Builder, image: &Value, config: &ImageConfig, patch: usize) -> Value {
    let (rows, columns) = ((config.height / patch) as i64, (config.width / patch) as i64);
    let patch = patch as i64;
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

/// Turns the convolution's kernel for `(byte / 255 - mean) / std` into a linear layer's weight for `byte - CENTRE`,
/// and the bias that goes with it: `[width, 3, patch, patch]` to `[patch * patch * 3, width]` and `[width]`.
fn fold_normalisation(kernel: &[f32], patch: usize, preprocess: &PreprocessConfig) -> (Vec<f32>, Vec<f32>) {
    let area = patch * patch;
    let width = kernel.len() / (3 * area);
    let mut weight = vec![0.0; kernel.len()];
    let mut bias = vec![0.0; width];
    for (output, filter) in kernel.chunks_exact(3 * area).enumerate() {
        let mut offset = 0.0;
        for (channel, pixels) in filter.chunks_exact(area).enumerate() {
            let mean = f64::from(preprocess.mean[channel]);
            let std = f64::from(preprocess.std[channel]);
            for (pixel, &factor) in pixels.iter().enumerate() {
                let factor = f64::from(factor);
                offset += factor * (f64::from(CENTRE) / 255.0 - mean) / std;
                weight[(pixel * 3 + channel) * width + output] = (factor / (255.0 * std)) as f32;
            }
        }
        bias[output] = offset as f32;
    }
    (weight, bias)
}
