//! The small messages that a graph is made of: initializers, inputs and outputs, attributes.

use super::onnx::{
    AttributeProto, AttributeType, DataLocation, DimensionProto, ElementType, StringStringEntryProto,
    TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};

/// A size in the shape of an input or output.
pub(super) enum Dim {
    Fixed(usize),
    /// Known when a batch runs; the name is for people.
    Dynamic(&'static str),
}

/// The initializer of a [`super::Weight`].
pub(super) fn external(name: &str, shape: &[usize], element: ElementType) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: dims(shape),
        data_type: element.into(),
        data_location: DataLocation::External.into(),
        // Each is a file of its own, of its name, which is in memory.
        external_data: [
            ("location", name.to_owned()),
            ("offset", "0".to_owned()),
            ("length", (shape.iter().product::<usize>() * element.bytes()).to_string()),
        ]
        .map(|(key, value)| StringStringEntryProto { key: key.to_owned(), value })
        .to_vec(),
        ..TensorProto::default()
    }
}

pub(super) fn value_info(name: &str, element: ElementType, shape: &[Dim]) -> ValueInfoProto {
    let dim = shape
        .iter()
        .map(|dim| match dim {
            Dim::Fixed(size) => DimensionProto { dim_value: Some(*size as i64), dim_param: None },
            Dim::Dynamic(name) => DimensionProto { dim_value: None, dim_param: Some((*name).to_owned()) },
        })
        .collect();
    let tensor = TensorTypeProto { elem_type: element.into(), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { tensor_type: Some(tensor) }) }
}

pub(super) fn dims(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&size| size as i64).collect()
}

pub(super) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name, AttributeType::Int) }
}

pub(super) fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { ints: values.to_vec(), ..attribute(name, AttributeType::Ints) }
}

pub(super) fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), ..attribute(name, AttributeType::Float) }
}

pub(super) fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: Some(value.as_bytes().to_vec()), ..attribute(name, AttributeType::String) }
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: kind.into(), ..AttributeProto::default() }
}
