//! Puts an ONNX graph together: inputs, constants, weights and outputs, and one operator at a time ([`operators`]).
//!
//! It knows ONNX, not CLIP. Each method adds one node (or constant) and returns the name of its
//! result; no shapes are inferred or checked here, the runtime does that when it loads the graph.
//!
//! What type a number is stored and computed in is decided here, where it is written: see [`Form`].

mod operators;
mod products;

use half::f16;
use prost::Message;

use super::onnx::{
    AttributeProto, CONTRIB_DOMAIN, CONTRIB_VERSION, ElementType, GraphProto, IR_VERSION, ModelProto,
    NodeProto, OPSET_VERSION, OperatorSetIdProto, TensorProto,
};
use super::parts::{Dim, dims, external, value_info};
use super::{Form, Graph, OUTPUT, Observed, Operators, Values, Weight, WeightType};
pub(super) use products::Operand;

/// The result of a node, a constant or an input, by its name in the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value(String);

impl Value {
    /// The result of a node that another builder added.
    pub(super) fn named(name: &str) -> Value {
        Value(name.to_owned())
    }
}

/// Whether a token sees those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    All,
    /// Itself and those before it.
    Causal,
}

/// A graph being built.
pub(super) struct Builder {
    form: Form,
    /// What numbers are at this point of the graph.
    element: ElementType,
    graph: GraphProto,
    weights: Vec<Weight>,
    observed: Vec<Observed>,
    has_convolutions: bool,
}

impl Builder {
    pub(super) fn new(name: &str, form: Form) -> Builder {
        let element = match form.weights {
            WeightType::Fp32 => ElementType::Float,
            WeightType::Fp16 => ElementType::Float16,
        };
        let graph = GraphProto { name: name.to_owned(), ..GraphProto::default() };
        Builder { form, element, graph, weights: Vec::new(), observed: Vec::new(), has_convolutions: false }
    }

    pub(super) fn form(&self) -> &Form {
        &self.form
    }

    pub(super) fn input(&mut self, name: &str, element: ElementType, shape: &[Dim]) -> Value {
        self.graph.input.push(value_info(name, element, shape));
        Value(name.to_owned())
    }

    /// A tensor that is handed to the runtime beside the protobuf.
    pub(super) fn weight(&mut self, name: &str, shape: &[usize], values: Vec<f32>) -> Value {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "{name}: as many values as its shape says");
        let values = match self.element {
            ElementType::Float16 => Values::F16(values.into_iter().map(f16::from_f32).collect()),
            _ => Values::F32(values),
        };
        self.beside(Weight { name: name.to_owned(), shape: shape.to_vec(), values })
    }

    fn beside(&mut self, weight: Weight) -> Value {
        self.graph.initializer.push(external(&weight.name, &weight.shape, weight.values.element()));
        let value = Value(weight.name.clone());
        self.weights.push(weight);
        value
    }

    /// A vector of integers inside the protobuf: sizes, axes, positions.
    pub(super) fn integers(&mut self, values: &[i64]) -> Value {
        let name = values.iter().map(|value| value.to_string()).collect::<Vec<_>>().join(",");
        let name = format!("[{name}]");
        self.constant(TensorProto {
            name,
            dims: dims(&[values.len()]),
            data_type: ElementType::Int64.into(),
            int64_data: values.to_vec(),
            ..TensorProto::default()
        })
    }

    /// A number inside the protobuf, broadcast to any shape.
    pub(super) fn number(&mut self, value: f32) -> Value {
        self.numbers(&[value], &[])
    }

    /// A small tensor inside the protobuf.
    pub(super) fn numbers(&mut self, values: &[f32], shape: &[usize]) -> Value {
        let (float_data, int32_data) = match self.element {
            // Their bits, as onnx.proto says.
            ElementType::Float16 => {
                (vec![], values.iter().map(|value| f16::from_f32(*value).to_bits().into()).collect())
            }
            _ => (values.to_vec(), vec![]),
        };
        self.constant(TensorProto {
            name: format!("{:?} {values:?}", self.element),
            dims: dims(shape),
            data_type: self.element.into(),
            float_data,
            int32_data,
            ..TensorProto::default()
        })
    }

    /// Gives `x` a second name.
    pub(super) fn name(&mut self, x: &Value, name: &str) {
        self.graph.node.push(NodeProto {
            input: vec![x.0.clone()],
            output: vec![name.to_owned()],
            name: name.to_owned(),
            op_type: "Identity".to_owned(),
            ..NodeProto::default()
        });
    }

    /// Declares `result`, a float tensor of `[batch, width]`, as the graph's first output.
    pub(super) fn output(&mut self, result: &Value, width: Dim) {
        let output = value_info(&result.0, ElementType::Float, &[Dim::Dynamic("batch"), width]);
        self.graph.output.insert(0, output);
    }

    /// Ends the graph with `result`, a float tensor of `[batch, width]`.
    pub(super) fn finish(mut self, result: &Value, width: usize) -> Graph {
        self.name(result, OUTPUT);
        self.output(&Value::named(OUTPUT), Dim::Fixed(width));
        let mut opset_import = vec![OperatorSetIdProto { domain: String::new(), version: OPSET_VERSION }];
        if self.form.operators == Operators::Fused {
            let domain = CONTRIB_DOMAIN.to_owned();
            opset_import.push(OperatorSetIdProto { domain, version: CONTRIB_VERSION });
        }
        let model = ModelProto {
            ir_version: IR_VERSION,
            producer_name: env!("CARGO_PKG_NAME").to_owned(),
            graph: Some(self.graph),
            opset_import,
        };
        let (proto, is_rearranged) = (model.encode_to_vec(), self.has_convolutions);
        Graph { proto, weights: self.weights, observed: self.observed, is_rearranged, ..Graph::default() }
    }

    /// What was added so far, to be part of another graph.
    pub(super) fn into_proto(self) -> GraphProto {
        self.graph
    }

    /// Constants are named after what they hold, so equal ones are one.
    fn constant(&mut self, tensor: TensorProto) -> Value {
        let value = Value(tensor.name.clone());
        if !self.graph.initializer.iter().any(|known| known.name == tensor.name) {
            self.graph.initializer.push(tensor);
        }
        value
    }

    /// An operator of the standard.
    fn node(&mut self, op_type: &str, inputs: &[&Value], attribute: Vec<AttributeProto>) -> Value {
        self.operator("", op_type, inputs, attribute)
    }

    /// An operator that ONNX Runtime adds.
    fn contrib(&mut self, op_type: &str, inputs: &[&Value], attribute: Vec<AttributeProto>) -> Value {
        assert_eq!(self.form.operators, Operators::Fused, "{op_type} is no operator of the standard");
        self.operator(CONTRIB_DOMAIN, op_type, inputs, attribute)
    }

    fn operator(
        &mut self,
        domain: &str,
        op_type: &str,
        inputs: &[&Value],
        attribute: Vec<AttributeProto>,
    ) -> Value {
        let name = format!("{}/{op_type}_{}", self.graph.name, self.graph.node.len());
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(|value| value.0.clone()).collect(),
            output: vec![name.clone()],
            name: name.clone(),
            op_type: op_type.to_owned(),
            attribute,
            domain: domain.to_owned(),
        });
        Value(name)
    }
}
