//! Graphs that others exported, made to take and give what ours do.
//!
//! It does not look at their operators or weights. The given bytes stay as they are, but for the declared inputs and
//! output, and for what the output does not depend on: nodes in front turn our rows into the given inputs, and one
//! behind makes the output float. So weights stay where the exporter put them, in the file or beside it.

use std::collections::BTreeSet;

use prost::{Message, decode_length_delimiter, encode_length_delimiter};

use super::builder::{Builder, Value};
use super::onnx::{
    DimensionProto, ElementType, GraphProto, ModelProto, NodeProto, TensorProto, TensorTypeProto,
    ValueInfoProto,
};
use super::parts::Dim;
use super::{Form, Graph};
use crate::clip::spec::{PaddedTo, TextSpec, Tokenization};
use crate::model::config::ready_made::ReadyMadeConfig;

/// Field numbers of `onnx.proto`.
const MODEL_GRAPH: usize = 7;
const GRAPH_NODE: usize = 1;
const GRAPH_INITIALIZER: usize = 5;
const GRAPH_INPUT: usize = 11;
const GRAPH_OUTPUT: usize = 12;
/// What exporters found out about values on the way: hints.
const GRAPH_VALUE_INFO: usize = 13;

/// Inputs of the image encoder, and of texts' ids, where there are others beside them.
const IMAGE_INPUTS: [&str; 3] = ["pixel_values", "image", "input"];
const TEXT_INPUTS: [&str; 3] = ["input_ids", "text", "tokens"];

/// A graph as it was exported. Errors are texts, for whoever knows the file's name.
pub(in crate::model) struct ReadyMade {
    bytes: Vec<u8>,
    graph: GraphProto,
}

/// What is left of a graph for one of its outputs.
struct Needed {
    output: ValueInfoProto,
    inputs: Vec<ValueInfoProto>,
    /// By their place among the nodes.
    nodes: BTreeSet<usize>,
    /// Names of values.
    values: BTreeSet<String>,
}

impl ReadyMade {
    pub(in crate::model) fn parse(bytes: Vec<u8>) -> Result<ReadyMade, String> {
        let model = ModelProto::decode(bytes.as_slice()).map_err(|error| format!("not ONNX: {error}"))?;
        let graph = model.graph.ok_or("not ONNX: no graph")?;
        Ok(ReadyMade { graph, bytes })
    }

    /// Files that weights are in, as the graph names them.
    pub(in crate::model) fn weight_files(&self) -> impl Iterator<Item = &str> {
        let entries = self.graph.initializer.iter().flat_map(|tensor| &tensor.external_data);
        entries.filter(|entry| entry.key == "location").map(|entry| entry.value.as_str())
    }

    /// Takes float or half-precision pixels, `[batch, 3, height, width]`, normalised. `outputs` are names that the
    /// embedding may have.
    pub(in crate::model) fn image_encoder(
        self,
        config: &ReadyMadeConfig,
        outputs: &[&str],
    ) -> Result<Graph, String> {
        let needed = self.needed(outputs, config.embed_dim)?;
        let [input] = needed.inputs.as_slice() else { return Err(needed.refusal(&IMAGE_INPUTS)) };
        let (element, dims) = input_type(input);
        let sizes = [3, config.height, config.width];
        let fits =
            dims.len() == 4 && dims[1..].iter().zip(sizes).all(|(dim, size)| dim.is_none_or(|d| d == size));
        if !fits || !matches!(element, ElementType::Float | ElementType::Float16) {
            return Err(refusal(input, &format!("float [batch, 3, {}, {}]", config.height, config.width)));
        }
        let rows = fixed_rows(input, dims[0])?;
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
        front.name(&x, &input.name);
        Ok(Graph { rows, ..self.wrap(front, &needed, config.embed_dim)? })
    }

    /// Takes token ids, `[batch, length]`; a fixed length is the context length. Besides, a mask of what does not pad,
    /// and types of tokens, which are all 0.
    pub(in crate::model) fn text_encoder(
        self,
        texts: &TextSpec,
        embed_dim: usize,
        outputs: &[&str],
    ) -> Result<Graph, String> {
        let needed = self.needed(outputs, embed_dim)?;
        let ids = match needed.inputs.as_slice() {
            [only] => Some(only),
            several => several.iter().find(|input| TEXT_INPUTS.contains(&&*input.name)),
        };
        let Some(ids) = ids else { return Err(needed.refusal(&TEXT_INPUTS)) };
        let (element, dims) = input_type(ids);
        let context_length = texts.context_length;
        let fits = dims.len() == 2 && dims[1].is_none_or(|length| length == context_length);
        if !fits || !matches!(element, ElementType::Int32 | ElementType::Int64) {
            return Err(refusal(ids, &format!("int32 or int64 [batch, {context_length}]")));
        }
        let (rows, length) = (fixed_rows(ids, dims[0])?, dims[1]);
        let full = matches!(texts.padding.rows, PaddedTo::Context(_));
        let length = length.or(full.then_some(context_length));
        let mut front = Builder::new("clipd", Form::PORTABLE);
        let shape = [batch(rows), length.map_or(Dim::Dynamic("length"), Dim::Fixed)];
        let tokens = front.input("clipd/tokens", ElementType::Int64, &shape);
        let x = front.cast(&tokens, element);
        front.name(&x, &ids.name);
        let mut masked = false;
        for input in needed.inputs.iter().filter(|input| input.name != ids.name) {
            let x = match &*input.name {
                "attention_mask" => {
                    masked = true;
                    attention_mask(&mut front, &tokens, texts)
                }
                "token_type_ids" => front.subtract(&tokens, &tokens),
                _ => return Err(needed.refusal(&TEXT_INPUTS)),
            };
            let x = front.cast(&x, input_type(input).0);
            front.name(&x, &input.name);
        }
        if !masked && !full && texts.tokenization != Tokenization::Clip {
            return Err("it has no input attention_mask, by which such an encoder knows what pads".to_owned());
        }
        Ok(Graph { rows, length, ..self.wrap(front, &needed, embed_dim)? })
    }

    /// What the embedding depends on: the first output of `names`, or the only one.
    fn needed(&self, names: &[&str], embed_dim: usize) -> Result<Needed, String> {
        let outputs = &self.graph.output;
        let named = names.iter().find_map(|name| outputs.iter().find(|output| output.name == *name));
        let output = match (named, outputs.as_slice()) {
            (Some(output), _) | (None, [output]) => output.clone(),
            _ => {
                let found: Vec<&str> = outputs.iter().map(|output| &*output.name).collect();
                let supported = if names.is_empty() { "one alone".to_owned() } else { names.join(" or ") };
                return Err(format!("outputs are [{}], supported is {supported}", found.join(", ")));
            }
        };
        let (_, dims) = input_type(&output);
        if !dims.is_empty() && (dims.len() != 2 || dims[1].is_some_and(|width| width != embed_dim)) {
            return Err(refusal_of("output", &output, &format!("[batch, {embed_dim}]")));
        }
        let mut values = BTreeSet::from([output.name.clone()]);
        let mut nodes = BTreeSet::new();
        // A node comes after those whose results it reads.
        for (place, node) in self.graph.node.iter().enumerate().rev() {
            if node.output.iter().any(|result| values.contains(result)) {
                nodes.insert(place);
                values.extend(read_by(node));
            }
        }
        // Before format version 4, weights were inputs as well.
        let is_weight = |name: &str| self.graph.initializer.iter().any(|tensor| tensor.name == name);
        let inputs = self.graph.input.iter().filter(|input| values.contains(&input.name));
        let inputs = inputs.filter(|input| !is_weight(&input.name)).cloned().collect();
        Ok(Needed { output, inputs, nodes, values })
    }

    /// What `front` names takes the place of the inputs.
    fn wrap(self, front: Builder, needed: &Needed, embed_dim: usize) -> Result<Graph, String> {
        let mut back = Builder::new("clipd_back", Form::PORTABLE);
        let output = Value::named(&needed.output.name);
        let output = back.cast(&output, ElementType::Float);
        back.output(&output, Dim::Fixed(embed_dim));

        let is_whole = needed.nodes.len() == self.graph.node.len();
        let mut place = 0..;
        let mut keep = |field: &Field<'_>| match field.tag {
            GRAPH_NODE => place.next().is_some_and(|place| needed.nodes.contains(&place)),
            GRAPH_INITIALIZER => is_whole || needed.values.contains(&name_of_tensor(field.content)),
            GRAPH_INPUT => needed.keeps(field.content),
            GRAPH_VALUE_INFO => is_whole,
            tag => tag != GRAPH_OUTPUT,
        };
        // What a message says twice is merged, so the graph may come in parts.
        let mut proto = Vec::with_capacity(self.bytes.len() + (1 << 12));
        push_graph(&mut proto, &[&front.into_proto().encode_to_vec()]);
        for field in fields(&self.bytes)? {
            if field.tag == MODEL_GRAPH {
                let mut kept = fields(field.content)?;
                kept.retain(&mut keep);
                push_graph(&mut proto, &kept.iter().map(|field| field.raw).collect::<Vec<_>>());
            } else {
                proto.extend_from_slice(field.raw);
            }
        }
        push_graph(&mut proto, &[&back.into_proto().encode_to_vec()]);
        Ok(Graph { proto, ..Graph::default() })
    }
}

impl Needed {
    /// Whether an input of the graph is a weight that is read: the others are fed.
    fn keeps(&self, value_info: &[u8]) -> bool {
        let input = ValueInfoProto::decode(value_info).unwrap_or_default();
        self.values.contains(&input.name) && !self.inputs.iter().any(|fed| fed.name == input.name)
    }

    /// Of inputs that nobody knows how to feed.
    fn refusal(&self, supported: &[&str]) -> String {
        let found: Vec<&str> = self.inputs.iter().map(|input| &*input.name).collect();
        let more = if supported == TEXT_INPUTS { ", with attention_mask and token_type_ids" } else { "" };
        let supported = supported.join(" or ");
        format!(
            "{} depends on inputs [{}], supported is {supported}{more}",
            self.output.name,
            found.join(", ")
        )
    }
}

/// 1 where a token is text. Of CLIP's rows, what pads is behind the end token, where nobody looks; and SigLIP sees it.
fn attention_mask(front: &mut Builder, tokens: &Value, texts: &TextSpec) -> Value {
    let all = front.equal(tokens, tokens);
    if texts.tokenization == Tokenization::Clip || matches!(texts.padding.rows, PaddedTo::Context(_)) {
        return all;
    }
    let pad = front.integers(&[texts.padding.id.into()]);
    let pads = front.equal(tokens, &pad);
    front.not(&pads)
}

/// Values that a node reads, and those that graphs inside it may.
fn read_by(node: &NodeProto) -> Vec<String> {
    let inner = node.attribute.iter().filter_map(|attribute| attribute.g.as_deref());
    let inner = inner.flat_map(|graph| &graph.node).flat_map(read_by);
    node.input.iter().cloned().chain(inner).collect()
}

fn name_of_tensor(tensor: &[u8]) -> String {
    TensorProto::decode(tensor).unwrap_or_default().name
}

/// `None` for a size that is known when a batch runs.
fn input_type(value: &ValueInfoProto) -> (ElementType, Vec<Option<usize>>) {
    let tensor: TensorTypeProto =
        value.r#type.as_ref().and_then(|r#type| r#type.tensor_type.clone()).unwrap_or_default();
    let size = |dim: &DimensionProto| dim.dim_value.and_then(|size| usize::try_from(size).ok());
    let dims = tensor.shape.iter().flat_map(|shape| &shape.dim).map(size).collect();
    (tensor.elem_type(), dims)
}

fn fixed_rows(input: &ValueInfoProto, batch: Option<usize>) -> Result<Option<usize>, String> {
    match batch {
        None | Some(1) => Ok(batch),
        Some(_) => Err(refusal(input, "a batch of any size, or of 1")),
    }
}

fn refusal(input: &ValueInfoProto, supported: &str) -> String {
    refusal_of("input", input, supported)
}

fn refusal_of(what: &str, value: &ValueInfoProto, supported: &str) -> String {
    let (element, dims) = input_type(value);
    let dims: Vec<String> = dims.iter().map(|dim| dim.map_or("?".to_owned(), |d| d.to_string())).collect();
    format!("{what} {} is {element:?} [{}], supported is {supported}", value.name, dims.join(", "))
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
