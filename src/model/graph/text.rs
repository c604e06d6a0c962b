//! The text encoder, a transformer: CLIP's, in which a token sees only those before it, or SigLIP's, in which it sees
//! all.
//!
//! CLIP's work is proportional to the longest row of the batch, not to the context length. Padding after a row's end
//! token changes nothing: earlier tokens never look at it. SigLIP's rows all have the context length.

use super::attention::Mask;
use super::builder::{Builder, Value};
use super::onnx::ElementType;
use super::parts::Dim;
use super::transformer::Pool;
use super::writer::Writer;
use super::{Form, Graph, TEXT_INPUT};
use crate::model::ModelError;
use crate::model::checkpoint::Checkpoint;
use crate::model::config::{Projection, TextConfig, TextPool};

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

    let row = if config.rows_are_full() { Dim::Fixed(config.context_length) } else { Dim::Dynamic("length") };
    let tokens = writer.graph.input(TEXT_INPUT, ElementType::Int64, &[Dim::Dynamic("batch"), row]);
    let length = writer.graph.size(&tokens, 1);
    let vocabulary = writer.weight(&name("token_embedding.weight"), &[config.vocab_size, width])?;
    let x = writer.graph.gather(&vocabulary, &tokens);
    let position = writer.weight(&name("positional_embedding"), &[config.context_length, width])?;
    let position = writer.graph.first(&position, &length, 0);
    let x = writer.graph.add(&x, &position);

    let mask = config.causal.then(|| {
        let mask_shape = [config.context_length; 2];
        let mask = writer.graph.weight("causal_mask", &mask_shape, causal_mask(config.context_length));
        let mask = writer.graph.first(&mask, &length, 0);
        writer.graph.first(&mask, &length, 1)
    });
    let end = pooled(&mut writer.graph, config, &tokens);
    // [batch, 1, length] to [batch, heads, queries, tokens]
    let end_mask = mask.as_ref().zip(end.as_ref()).map(|(mask, end)| {
        let end_mask = writer.graph.gather(mask, end);
        writer.graph.unsqueeze(&end_mask, 1)
    });
    let pick = |graph: &mut Builder, x: &Value| match &end {
        Some(end) => {
            let picked = graph.gather_in_batch(x, end);
            graph.unsqueeze(&picked, 1)
        }
        None => graph.last(x, 1),
    };
    let pool = Pool { pick, mask: end_mask.as_ref().map_or(Mask::None, Mask::Row) };
    let sight = mask.as_ref().map_or(Mask::None, Mask::Causal);
    let x = writer.transformer(&name("transformer.resblocks"), &config.transformer, x, sight, pool)?;

    let x = writer.graph.full_precision(&x);
    let x = writer.layer_norm(&name("ln_final"), &config.transformer, &x)?;
    let projection = name("text_projection");
    let x = match config.projection {
        Projection::None => x,
        Projection::Matrix => {
            let projection = writer.weight(&projection, &[width, embed_dim])?;
            writer.graph.matmul(&x, &projection)
        }
        Projection::Linear => writer.projected(&projection, [width, embed_dim], &x)?,
    };
    let x = writer.graph.reshape(&x, &[0, embed_dim as i64]);
    let length = config.rows_are_full().then_some(config.context_length);
    Ok(Graph { length, ..writer.graph.finish(&x, embed_dim) })
}

/// Where in each row of `[batch, length]` the token is that becomes the embedding: `[batch, 1]`. `None`: it is the
/// last.
fn pooled(graph: &mut Builder, config: &TextConfig, tokens: &Value) -> Option<Value> {
    match config.pool {
        TextPool::Last => None,
        // The end token has the highest id; what follows it is padding.
        TextPool::Highest => Some(graph.arg_max(tokens, 1)),
        TextPool::First(id) => {
            let id = graph.integers(&[id.into()]);
            let ends = graph.equal(tokens, &id);
            let ends = graph.cast(&ends, ElementType::Int64);
            Some(graph.arg_max(&ends, 1))
        }
    }
}

/// Row `i` is 0 up to column `i` and minus infinity after it.
fn causal_mask(length: usize) -> Vec<f32> {
    (0..length)
        .flat_map(|row| (0..length).map(move |column| if column <= row { 0.0 } else { f32::NEG_INFINITY }))
        .collect()
}
