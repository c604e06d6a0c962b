//! Graphs that others exported, made to take and give what ours do.
//!
//! It does not look at their operators or weights. The given bytes stay as they are, but for the declared
//! input and output: nodes in front turn our rows into the given input, and one behind makes the output
//! float. So weights stay where the exporter put them, in the file or beside it.

use prost::{Message, decode_length_delimiter, encode_length_delimiter};

use super::builder::{Builder, Value};
use super::onnx::{DimensionProto, ElementType, GraphProto, ModelProto, TensorTypeProto, ValueInfoProto};
use super::parts::Dim;
use super::{Form, Graph};
use crate::model::config::ready_made::ReadyMadeConfig;

/// Field numbers of `onnx.proto`.
const MODEL_GRAPH: usize = 7;
const GRAPH_INPUT: usize = 11;
const GRAPH_OUTPUT: usize = 12;

/// An encoder as it was exported. Errors are texts, for whoever knows the file's name.
pub(in crate::model) struct ReadyMade {
    bytes: Vec<u8>,
    graph: GraphProto,
    input: ValueInfoProto,
}

impl ReadyMade {
    pub(in crate::model) fn parse(bytes: Vec<u8>) -> Result<ReadyMade, String> {
        let model = ModelProto::decode(bytes.as_slice()).map_err(|error| format!("not ONNX: {error}"))?;
        let graph = model.graph.ok_or("not ONNX: no graph")?;
        // Before format version 4, weights were inputs as well.
        let is_weight = |name: &str| graph.initializer.iter().any(|tensor| tensor.name == name);
        let mut inputs = graph.input.iter().filter(|input| !is_weight(&input.name));
        let (Some(input), None, [_]) = (inputs.next(), inputs.next(), graph.output.as_slice()) else {
            return Err("supported are graphs with one input and one output".to_owned());
        };
        Ok(ReadyMade { input: input.clone(), graph, bytes })
    }

    /// Files that weights are in, as the graph names them.
    pub(in crate::model) fn weight_files(&self) -> impl Iterator<Item = &str> {
        let entries = self.graph.initializer.iter().flat_map(|tensor| &tensor.external_data);
        entries.filter(|entry| entry.key == "location").map(|entry| entry.value.as_str())
    }

    /// Takes float or half-precision pixels, `[batch, 3, height, width]`, normalised.
    pub(in crate::model) fn image_encoder(self, config: &ReadyMadeConfig) -> Result<Graph, String> {
        let (element, dims) = self.input_type();
        let sizes = [3, config.height, config.width];
        let fits =
            dims.len() == 4 && dims[1..].iter().zip(sizes).all(|(dim, size)| dim.is_none_or(|d| d == size));
        if !fits || !matches!(element, ElementType::Float | ElementType::Float16) {
            return Err(self.refusal(&format!("float [batch, 3, {}, {}]", config.height, config.width)));
        }
        let rows = self.rows(dims[0])?;
        let mut front = Builder::new("clipd", Form::PORTABLE);
        let shape = [batch(rows), Dim::Fixed(config.height), Dim::Fixed(config.width), Dim::Fixed(3)];
        let image = front.input("clipd/image", ElementType::Uint8, &shape);
        let x = front.cast(&image, ElementType::Float);
        let x = front.transpose(&x, &[0, 3, 1, 2]);
        let (mean, std) = (config.preprocess.mean, config.preprocess.std);
        let factor = front.numbers(&std.map(|std| 1.0 / (255.0 * std)), &[3, 1, 1]);
        let offset = front.numbers(&[0, 1, 2].map(|channel| -mean[channel] / std[channel]), &[3, 1, 1]);
        let x = front.multiply(&x, &factor);
        let x = front.add(&x, &offset);
        let x = front.cast(&x, element);
        Ok(Graph { rows, ..self.wrap(front, &x, config.embed_dim)? })
    }

    /// Takes token ids, `[batch, length]`. A fixed length is the context length.
    pub(in crate::model) fn text_encoder(self, config: &ReadyMadeConfig) -> Result<Graph, String> {
        let (element, dims) = self.input_type();
        let context_length = config.text.context_length;
        let fits = dims.len() == 2 && dims[1].is_none_or(|length| length == context_length);
        if !fits || !matches!(element, ElementType::Int32 | ElementType::Int64) {
            return Err(self.refusal(&format!("int32 or int64 [batch, {context_length}]")));
        }
        let (rows, length) = (self.rows(dims[0])?, dims[1]);
        let mut front = Builder::new("clipd", Form::PORTABLE);
        let shape = [batch(rows), length.map_or(Dim::Dynamic("length"), Dim::Fixed)];
        let tokens = front.input("clipd/tokens", ElementType::Int64, &shape);
        let x = front.cast(&tokens, element);
        Ok(Graph { rows, length, ..self.wrap(front, &x, config.embed_dim)? })
    }

    /// `None` for a size that is known when a batch runs.
    fn input_type(&self) -> (ElementType, Vec<Option<usize>>) {
        let tensor: TensorTypeProto =
            self.input.r#type.as_ref().and_then(|r#type| r#type.tensor_type.clone()).unwrap_or_default();
        let size = |dim: &DimensionProto| dim.dim_value.and_then(|size| usize::try_from(size).ok());
        let dims = tensor.shape.iter().flat_map(|shape| &shape.dim).map(size).collect();
        (tensor.elem_type(), dims)
    }

    fn rows(&self, batch: Option<usize>) -> Result<Option<usize>, String> {
        match batch {
            None | Some(1) => Ok(batch),
            Some(_) => Err(self.refusal("a batch of any size, or of 1")),
        }
    }

    fn refusal(&self, supported: &str) -> String {
        let (element, dims) = self.input_type();
        let dims: Vec<String> =
            dims.iter().map(|dim| dim.map_or("?".to_owned(), |d| d.to_string())).collect();
        format!("input {} is {element:?} [{}], supported is {supported}", self.input.name, dims.join(", "))
    }

    /// `x` of `front` takes the place of the input.
    fn wrap(self, mut front: Builder, x: &Value, embed_dim: usize) -> Result<Graph, String> {
        front.name(x, &self.input.name);
        let mut back = Builder::new("clipd_back", Form::PORTABLE);
        let output = Value::named(&self.graph.output[0].name);
        let output = back.cast(&output, ElementType::Float);
        back.output(&output, Dim::Fixed(embed_dim));

        // What a message says twice is merged, so the graph may come in parts.
        let mut proto = Vec::with_capacity(self.bytes.len() + (1 << 12));
        push_graph(&mut proto, &[&front.into_proto().encode_to_vec()]);
        for field in fields(&self.bytes)? {
            if field.tag == MODEL_GRAPH {
                let mut kept = fields(field.content)?;
                kept.retain(|field| match field.tag {
                    GRAPH_INPUT => !self.is_input(field.content),
                    tag => tag != GRAPH_OUTPUT,
                });
                push_graph(&mut proto, &kept.iter().map(|field| field.raw).collect::<Vec<_>>());
            } else {
                proto.extend_from_slice(field.raw);
            }
        }
        push_graph(&mut proto, &[&back.into_proto().encode_to_vec()]);
        Ok(Graph { proto, ..Graph::default() })
    }

    fn is_input(&self, value_info: &[u8]) -> bool {
        ValueInfoProto::decode(value_info).is_ok_and(|info| info.name == self.input.name)
    }
}

fn batch(rows: Option<usize>) -> Dim {
    rows.map_or(Dim::Dynamic("batch"), Dim::Fixed)
}

/// A field of a protobuf message.
struct Field<'a> {
    tag: usize,
    /// With its number and length.
    raw: &'a [u8],
    /// What follows the length; empty for numbers.
    content: &'a [u8],
}

/// `prost` drops the fields that a type does not have, so what must stay as it is stays as bytes.
fn fields(mut bytes: &[u8]) -> Result<Vec<Field<'_>>, String> {
    let invalid = || "not ONNX: a broken protobuf message".to_owned();
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let start = bytes;
        let varint = |bytes: &mut &[u8]| decode_length_delimiter(bytes).map_err(|_| invalid());
        let key = varint(&mut bytes)?;
        let length = match key & 7 {
            0 => varint(&mut bytes).map(|_| 0)?,
            1 => 8,
            2 => varint(&mut bytes)?,
            5 => 4,
            _ => return Err(invalid()),
        };
        let content;
        (content, bytes) = bytes.split_at_checked(length).ok_or_else(invalid)?;
        found.push(Field { tag: key >> 3, raw: &start[..start.len() - bytes.len()], content });
    }
    Ok(found)
}

/// Appends `ModelProto.graph`, made of `parts`.
fn push_graph(model: &mut Vec<u8>, parts: &[&[u8]]) {
    let length = parts.iter().map(|part| part.len()).sum();
    model.push((MODEL_GRAPH << 3 | 2) as u8);
    encode_length_delimiter(length, model).expect("a vector grows");
    parts.iter().for_each(|part| model.extend_from_slice(part));
}
