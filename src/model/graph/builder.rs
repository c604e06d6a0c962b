//! Puts an ONNX graph together, one operator at a time.
//!
//! It knows operators, not CLIP. Each method adds one node (or constant) and returns the name of its
//! result; no shapes are inferred or checked here, the runtime does that when it loads the graph.
//!
//! What type a number is stored and computed in is decided here, where it is written: see [`Form`].

use half::f16;
use prost::Message;

use super::int8::quantised;
use super::onnx::{
    AttributeProto, CONTRIB_DOMAIN, CONTRIB_VERSION, ElementType, GraphProto, IR_VERSION, ModelProto,
    NodeProto, OPSET_VERSION, OperatorSetIdProto, TensorProto,
};
use super::parts::{Dim, dims, external, float, int, ints, text, value_info};
use super::{Form, Graph, OUTPUT, Operators, Values, Weight, WeightType};

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
    has_convolutions: bool,
}

impl Builder {
    pub(super) fn new(name: &str, form: Form) -> Builder {
        let element = match form.weights {
            WeightType::Fp32 | WeightType::Int8 => ElementType::Float,
            WeightType::Fp16 => ElementType::Float16,
        };
        let graph = GraphProto { name: name.to_owned(), ..GraphProto::default() };
        Builder { form, element, graph, weights: Vec::new(), has_convolutions: false }
    }

    pub(super) fn form(&self) -> Form {
        self.form
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

    /// The same for what rows are multiplied with, `[inputs, outputs]`, which may be kept in 8 bits.
    pub(super) fn matrix(&mut self, name: &str, [inputs, outputs]: [usize; 2], values: Vec<f32>) -> Value {
        let narrow = match self.form.weights {
            WeightType::Int8 => quantised(name, [inputs, outputs], &values),
            WeightType::Fp32 | WeightType::Fp16 => None,
        };
        let Some((integers, scales)) = narrow else { return self.weight(name, &[inputs, outputs], values) };
        let (integers, scales) = (self.beside(integers), self.beside(scales));
        self.node("DequantizeLinear", &[&integers, &scales], vec![int("axis", 1)])
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

    pub(super) fn add(&mut self, a: &Value, b: &Value) -> Value {
        self.node("Add", &[a, b], vec![])
    }

    pub(super) fn multiply(&mut self, a: &Value, b: &Value) -> Value {
        self.node("Mul", &[a, b], vec![])
    }

    pub(super) fn matmul(&mut self, a: &Value, b: &Value) -> Value {
        self.node("MatMul", &[a, b], vec![])
    }

    pub(super) fn subtract(&mut self, a: &Value, b: &Value) -> Value {
        self.node("Sub", &[a, b], vec![])
    }

    pub(super) fn layer_norm(&mut self, x: &Value, weight: &Value, bias: &Value, epsilon: f32) -> Value {
        self.node("LayerNormalization", &[x, weight, bias], vec![int("axis", -1), float("epsilon", epsilon)])
    }

    pub(super) fn gelu(&mut self, x: &Value) -> Value {
        self.node("Gelu", &[x], vec![])
    }

    /// The approximation by a hyperbolic tangent.
    pub(super) fn tanh_gelu(&mut self, x: &Value) -> Value {
        self.node("Gelu", &[x], vec![text("approximate", "tanh")])
    }

    pub(super) fn sigmoid(&mut self, x: &Value) -> Value {
        self.node("Sigmoid", &[x], vec![])
    }

    /// Over the last axis.
    pub(super) fn softmax(&mut self, x: &Value) -> Value {
        self.node("Softmax", &[x], vec![int("axis", -1)])
    }

    /// Attention of several heads in one operator of ONNX Runtime: `[batch, queries, width]` and twice
    /// `[batch, tokens, width]` to `[batch, queries, width]`. Logits are the products themselves.
    pub(super) fn multi_head_attention(
        &mut self,
        [query, key, value]: [&Value; 3],
        heads: usize,
        sight: Sight,
    ) -> Value {
        let attributes = vec![
            int("num_heads", heads as i64),
            float("scale", 1.0),
            int("unidirectional", (sight == Sight::Causal).into()),
        ];
        self.contrib("MultiHeadAttention", &[query, key, value], attributes)
    }

    /// `sum = x + (branch + bias)` and its layer norm in one operator of ONNX Runtime. Returns both.
    pub(super) fn skip_layer_norm(
        &mut self,
        [x, branch, bias]: [&Value; 3],
        [norm_weight, norm_bias]: [&Value; 2],
        epsilon: f32,
    ) -> (Value, Value) {
        let inputs = [branch, x, norm_weight, norm_bias, bias];
        let Value(normed) = self.contrib("SkipLayerNormalization", &inputs, vec![float("epsilon", epsilon)]);
        let sum = format!("{normed}/sum");
        // Between them are the mean and the deviation, which nobody needs.
        let outputs = [String::new(), String::new(), sum.clone()];
        self.graph.node.last_mut().expect("it was just added").output.extend(outputs);
        (Value(sum), Value(normed))
    }

    /// `gelu(x + bias)` in one operator of ONNX Runtime.
    pub(super) fn bias_gelu(&mut self, x: &Value, bias: &Value) -> Value {
        self.contrib("BiasGelu", &[x, bias], vec![])
    }

    /// `tanh_gelu(x + bias)` in one operator of ONNX Runtime.
    pub(super) fn fast_gelu(&mut self, x: &Value, bias: &Value) -> Value {
        self.contrib("FastGelu", &[x, bias], vec![])
    }

    /// `x * sigmoid(factor * x)` in one operator of ONNX Runtime.
    pub(super) fn quick_gelu(&mut self, x: &Value, factor: f32) -> Value {
        self.contrib("QuickGelu", &[x], vec![float("alpha", factor)])
    }

    pub(super) fn cast(&mut self, x: &Value, element: ElementType) -> Value {
        self.node("Cast", &[x], vec![int("to", element as i64)])
    }

    /// Integers as the numbers that this graph computes with.
    pub(super) fn float(&mut self, x: &Value) -> Value {
        self.cast(x, self.element)
    }

    /// What follows is stored and computed in fp32, beginning with `x`.
    pub(super) fn full_precision(&mut self, x: &Value) -> Value {
        if self.element == ElementType::Float {
            return x.clone();
        }
        self.element = ElementType::Float;
        self.cast(x, ElementType::Float)
    }

    /// In `shape`, 0 keeps the size at that position and -1 takes what is left.
    pub(super) fn reshape(&mut self, x: &Value, shape: &[i64]) -> Value {
        let shape = self.integers(shape);
        self.node("Reshape", &[x, &shape], vec![])
    }

    pub(super) fn transpose(&mut self, x: &Value, axes: &[i64]) -> Value {
        self.node("Transpose", &[x], vec![ints("perm", axes)])
    }

    /// A new axis of size 1 at `axis`.
    pub(super) fn unsqueeze(&mut self, x: &Value, axis: i64) -> Value {
        let axes = self.integers(&[axis]);
        self.node("Unsqueeze", &[x, &axes], vec![])
    }

    pub(super) fn concat(&mut self, values: &[&Value], axis: i64) -> Value {
        self.node("Concat", values, vec![int("axis", axis)])
    }

    /// The size of `x` along `axis`, as a vector of one.
    pub(super) fn size(&mut self, x: &Value, axis: i64) -> Value {
        self.node("Shape", &[x], vec![int("start", axis), int("end", axis + 1)])
    }

    /// The first `size` places along `axis`.
    pub(super) fn first(&mut self, x: &Value, size: &Value, axis: i64) -> Value {
        let start = self.integers(&[0]);
        let axis = self.integers(&[axis]);
        self.node("Slice", &[x, &start, size, &axis], vec![])
    }

    /// The last place along `axis`.
    pub(super) fn last(&mut self, x: &Value, axis: i64) -> Value {
        let (start, end) = (self.integers(&[-1]), self.integers(&[i64::MAX]));
        let axis = self.integers(&[axis]);
        self.node("Slice", &[x, &start, &end, &axis], vec![])
    }

    /// What is left along `axis` without the first place.
    pub(super) fn rest(&mut self, x: &Value, axis: i64) -> Value {
        let (start, end) = (self.integers(&[1]), self.integers(&[i64::MAX]));
        let axis = self.integers(&[axis]);
        self.node("Slice", &[x, &start, &end, &axis], vec![])
    }

    /// Along `axis`, which stays, with size 1.
    pub(super) fn mean(&mut self, x: &Value, axis: i64) -> Value {
        let axes = self.integers(&[axis]);
        self.node("ReduceMean", &[x, &axes], vec![])
    }

    /// Of `[batch, channels, height, width]`, with as much padding on every side.
    pub(super) fn convolution(&mut self, inputs: [&Value; 3], stride: usize, padding: usize) -> Value {
        self.has_convolutions = true;
        let (stride, padding) = (stride as i64, padding as i64);
        self.node("Conv", &inputs, vec![ints("strides", &[stride; 2]), ints("pads", &[padding; 4])])
    }

    /// Over squares that do not overlap.
    pub(super) fn average_pool(&mut self, x: &Value, side: usize) -> Value {
        let side = [side as i64; 2];
        self.node("AveragePool", &[x], vec![ints("kernel_shape", &side), ints("strides", &side)])
    }

    pub(super) fn relu(&mut self, x: &Value) -> Value {
        self.node("Relu", &[x], vec![])
    }

    pub(super) fn equal(&mut self, a: &Value, b: &Value) -> Value {
        self.node("Equal", &[a, b], vec![])
    }

    pub(super) fn not(&mut self, x: &Value) -> Value {
        self.node("Not", &[x], vec![])
    }

    /// Rows of `table` by number: `result[..., :] = table[indices[...], :]`.
    pub(super) fn gather(&mut self, table: &Value, indices: &Value) -> Value {
        self.node("Gather", &[table, indices], vec![int("axis", 0)])
    }

    /// One row of each batch entry: `result[b] = x[b, indices[b, 0]]`, for `indices` of `[batch, 1]`.
    pub(super) fn gather_in_batch(&mut self, x: &Value, indices: &Value) -> Value {
        self.node("GatherND", &[x, indices], vec![int("batch_dims", 1)])
    }

    /// Where the largest value along `axis` first occurs; the axis stays, with size 1. Not the operator ArgMax, for
    /// which ONNX Runtime (1.31) has no CUDA kernel since opset 12.
    pub(super) fn arg_max(&mut self, x: &Value, axis: i64) -> Value {
        let one = self.integers(&[1]);
        let Value(name) = self.node("TopK", &[x, &one], vec![int("axis", axis)]);
        let place = format!("{name}/place");
        self.graph.node.last_mut().expect("it was just added").output.push(place.clone());
        Value(place)
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

    /// Declares `result`, a float tensor of `[batch, width]`, as the graph's output.
    pub(super) fn output(&mut self, result: &Value, width: Dim) {
        self.graph.output.push(value_info(&result.0, ElementType::Float, &[Dim::Dynamic("batch"), width]));
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
        Graph { proto, weights: self.weights, is_rearranged, ..Graph::default() }
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
