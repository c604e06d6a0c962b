//! The few ONNX protobuf messages that the graphs need.
//!
//! Tags are the field numbers of `onnx/onnx.proto` (ONNX 1.15, the release of opset 20); fields the
//! graphs never set are left out. A `oneof` is written as optional fields with the same numbers,
//! which is the same on the wire.

/// Version of the file format that goes with opset 20.
pub(in crate::model) const IR_VERSION: i64 = 9;
/// Operator set of every graph.
pub(in crate::model) const OPSET_VERSION: i64 = 20;
/// The operators that ONNX Runtime adds, and their version.
pub(in crate::model) const CONTRIB_DOMAIN: &str = "com.microsoft";
pub(in crate::model) const CONTRIB_VERSION: i64 = 1;

#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::model) struct ModelProto {
    #[prost(int64, tag = "1")]
    pub(in crate::model) ir_version: i64,
    #[prost(string, tag = "2")]
    pub(in crate::model) producer_name: String,
    #[prost(message, optional, tag = "7")]
    pub(in crate::model) graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    pub(in crate::model) opset_import: Vec<OperatorSetIdProto>,
}

/// An empty domain is the standard one, `ai.onnx`.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::model) struct OperatorSetIdProto {
    #[prost(string, tag = "1")]
    pub(in crate::model) domain: String,
    #[prost(int64, tag = "2")]
    pub(in crate::model) version: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::model) struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    pub(in crate::model) node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    pub(in crate::model) name: String,
    #[prost(message, repeated, tag = "5")]
    pub(in crate::model) initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    pub(in crate::model) input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    pub(in crate::model) output: Vec<ValueInfoProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::model) struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    pub(in crate::model) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(in crate::model) output: Vec<String>,
    #[prost(string, tag = "3")]
    pub(in crate::model) name: String,
    #[prost(string, tag = "4")]
    pub(in crate::model) op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub(in crate::model) attribute: Vec<AttributeProto>,
    #[prost(string, tag = "7")]
    pub(in crate::model) domain: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::model) struct AttributeProto {
    #[prost(string, tag = "1")]
    pub(in crate::model) name: String,
    #[prost(float, optional, tag = "2")]
    pub(in crate::model) f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    pub(in crate::model) i: Option<i64>,
    #[prost(bytes = "vec", optional, tag = "4")]
    pub(in crate::model) s: Option<Vec<u8>>,
    #[prost(message, optional, boxed, tag = "6")]
    pub(in crate::model) g: Option<Box<GraphProto>>,
    #[prost(int64, repeated, tag = "8")]
    pub(in crate::model) ints: Vec<i64>,
    #[prost(enumeration = "AttributeType", tag = "20")]
    pub(in crate::model) r#type: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(in crate::model) enum AttributeType {
    Undefined = 0,
    Float = 1,
    Int = 2,
    String = 3,
    Ints = 7,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::model) struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    pub(in crate::model) dims: Vec<i64>,
    #[prost(enumeration = "ElementType", tag = "2")]
    pub(in crate::model) data_type: i32,
    #[prost(float, repeated, tag = "4")]
    pub(in crate::model) float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    pub(in crate::model) int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    pub(in crate::model) int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    pub(in crate::model) name: String,
    #[prost(message, repeated, tag = "13")]
    pub(in crate::model) external_data: Vec<StringStringEntryProto>,
    #[prost(enumeration = "DataLocation", tag = "14")]
    pub(in crate::model) data_location: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(in crate::model) enum ElementType {
    Undefined = 0,
    Float = 1,
    Uint8 = 2,
    Int8 = 3,
    Int32 = 6,
    Int64 = 7,
    Bool = 9,
    Float16 = 10,
}

impl ElementType {
    /// Bytes of one.
    pub(in crate::model) fn bytes(self) -> usize {
        match self {
            ElementType::Undefined => 0,
            ElementType::Uint8 | ElementType::Int8 | ElementType::Bool => 1,
            ElementType::Float16 => 2,
            ElementType::Float | ElementType::Int32 => 4,
            ElementType::Int64 => 8,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(in crate::model) enum DataLocation {
    Default = 0,
    External = 1,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::model) struct StringStringEntryProto {
    #[prost(string, tag = "1")]
    pub(in crate::model) key: String,
    #[prost(string, tag = "2")]
    pub(in crate::model) value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::model) struct ValueInfoProto {
    #[prost(string, tag = "1")]
    pub(in crate::model) name: String,
    #[prost(message, optional, tag = "2")]
    pub(in crate::model) r#type: Option<TypeProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::model) struct TypeProto {
    #[prost(message, optional, tag = "1")]
    pub(in crate::model) tensor_type: Option<TensorTypeProto>,
}

/// `TypeProto.Tensor`.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::model) struct TensorTypeProto {
    #[prost(enumeration = "ElementType", tag = "1")]
    pub(in crate::model) elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub(in crate::model) shape: Option<TensorShapeProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::model) struct TensorShapeProto {
    #[prost(message, repeated, tag = "1")]
    pub(in crate::model) dim: Vec<DimensionProto>,
}

/// `TensorShapeProto.Dimension`: a fixed size or the name of one that is known at run time.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::model) struct DimensionProto {
    #[prost(int64, optional, tag = "1")]
    pub(in crate::model) dim_value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub(in crate::model) dim_param: Option<String>,
}
