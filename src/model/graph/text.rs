//! The text encoder, a transformer in which a token sees only those before it.
//!
//! Its work is proportional to the longest row of the batch, not to the context length. Padding after a
//! row's end token changes nothing: earlier tokens never look at it.

use super::builder::{Builder, Value};
use super::onnx::ElementType;
use super::parts::Dim;
use super::transformer::{Mask, Pool, Writer};
use super::{Form, Graph, TEXT_INPUT};
use crate::model::ModelError;
use crate::model::checkpoint::Checkpoint;
use crate::model::config::TextConfig;

/// Writes the graph of open_clip's `TextTransformer`.
pub(in crate::model) fn text_encoder(
    checkpoint: &mut Checkpoint,
    config: &TextConfig,
    embed_dim: usize,
    form: Form,
) -> Result<Graph, ModelError> {
    let mut writer = Writer::new("text", form, checkpoint);
    let width = config.transformer.width;
    let name = |tensor: &str| format!("{}{tensor}", config.prefix);

    let shape = [Dim::Dynamic("batch"), Dim::Dynamic("length")];
    let tokens = writer.graph.input(TEXT_INPUT, ElementType::Int64, &shape);
    let length = writer.graph.size(&tokens, 1);
    let vocabulary = writer.weight(&name("token_embedding.weight"), &[config.vocab_size, width])?;
    let x = writer.graph.gather(&vocabulary, &tokens);
    let position = writer.weight(&name("positional_embedding"), &[config.context_length, width])?;
    let position = writer.graph.first(&position, &length, 0);
    let x = writer.graph.add(&x, &position);

    let mask_shape = [config.context_length; 2];
    let mask = writer.graph.weight("causal_mask", &mask_shape, causal_mask(config.context_length));
    let mask = writer.graph.first(&mask, &length, 0);
    let mask = writer.graph.first(&mask, &length, 1);

    // The end token has the highest id; what follows it is padding.
    let end = writer.graph.arg_max(&tokens, 1);
    // [batch, 1, length] to [batch, heads, queries, tokens]
    let end_mask = writer.graph.gather(&mask, &end);
    let end_mask = writer.graph.unsqueeze(&end_mask, 1);
    let pick = |graph: &mut Builder, x: &Value| {
        let picked = graph.gather_in_batch(x, &end);
        graph.unsqueeze(&picked, 1)
    };
    let pool = Pool { pick, mask: Mask::Row(&end_mask) };
    let prefix = name("transformer.resblocks");
    let x = writer.transformer(&prefix, &config.transformer, x, Mask::Causal(&mask), pool)?;

    let x = writer.graph.full_precision(&x);
    let x = writer.layer_norm(&name("ln_final"), width, &x)?;
    let projection = writer.matrix(&name("text_projection"), [width, embed_dim])?;
    let x = writer.graph.matmul(&x, &projection);
    let x = writer.graph.reshape(&x, &[0, embed_dim as i64]);
    Ok(writer.graph.finish(&x, embed_dim))
}

/// Row `i` is 0 up to column `i` and minus infinity after it.
fn causal_mask(length: usize) -> Vec<f32> {
    (0..length)
        .flat_map(|row| (0..length).map(move |column| if column <= row { 0.0 } else { f32::NEG_INFINITY }))
        .collect()
}
