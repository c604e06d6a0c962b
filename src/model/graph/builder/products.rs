//! What linear layers take, and their products: of numbers as they are, or of integers of 8 bits.

use super::{Builder, Value};
use crate::model::ModelError;
use crate::model::calibration::Rounding;
use crate::model::graph::int8::rounded;
use crate::model::graph::onnx::{ElementType, TensorProto};
use crate::model::graph::parts::{Dim, dims, int, value_info};
use crate::model::graph::{Observed, Products};

/// What a linear layer takes.
pub(in crate::model::graph) struct Operand {
    value: Value,
    kind: Kind,
}

enum Kind {
    Float,
    /// The number of its entry in [`Builder::observed`].
    Observed(usize),
    /// With what was divided out of its channels.
    Rounded(Vec<f32>),
}

impl Operand {
    /// It is never rounded.
    pub(in crate::model::graph) fn float(x: &Value) -> Operand {
        Operand { value: x.clone(), kind: Kind::Float }
    }
}

impl Builder {
    /// What the layer `name`, or layers that have this in common, take: `x`, of so many channels.
    ///
    /// # Errors
    /// If it is of another width in the calibration.
    pub(in crate::model::graph) fn operand(
        &mut self,
        name: &str,
        x: &Value,
        channels: usize,
    ) -> Result<Operand, ModelError> {
        match &self.form.products {
            Products::Float => Ok(Operand::float(x)),
            Products::Observed => Ok(self.observe(name, x, channels)),
            Products::Int8(calibration) => match calibration.tensors.get(name).cloned() {
                None => Ok(Operand::float(x)),
                Some(rounding) if [0, channels].contains(&rounding.factors.len()) => {
                    Ok(self.round(name, x, &rounding))
                }
                Some(rounding) => Err(ModelError::Calibration(format!(
                    "{name} has factors for {} channels, this model has {channels}",
                    rounding.factors.len()
                ))),
            },
        }
    }

    /// `x @ values`, for a matrix `[inputs, outputs]`.
    pub(in crate::model::graph) fn product(
        &mut self,
        x: &Operand,
        name: &str,
        [inputs, outputs]: [usize; 2],
        mut values: Vec<f32>,
    ) -> Value {
        let matrix = match &x.kind {
            Kind::Float => self.weight(name, &[inputs, outputs], values),
            Kind::Observed(number) => {
                self.observed[*number].weights.push(name.to_owned());
                self.weight(name, &[inputs, outputs], values)
            }
            Kind::Rounded(factors) => {
                for (row, factor) in values.chunks_exact_mut(outputs).zip(factors) {
                    row.iter_mut().for_each(|value| *value *= factor);
                }
                let [integers, steps] = rounded(name, [inputs, outputs], &values);
                let (integers, steps) = (self.beside(integers), self.beside(steps));
                self.node("DequantizeLinear", &[&integers, &steps], vec![int("axis", 1)])
            }
        };
        self.matmul(&x.value, &matrix)
    }

    fn observe(&mut self, name: &str, x: &Value, channels: usize) -> Operand {
        let output = format!("observed/{name}");
        self.name(x, &output);
        let shape = [Dim::Dynamic("batch"), Dim::Dynamic("tokens"), Dim::Fixed(channels)];
        self.graph.output.push(value_info(&output, ElementType::Float, &shape));
        self.observed.push(Observed { name: name.to_owned(), weights: Vec::new() });
        Operand { value: x.clone(), kind: Kind::Observed(self.observed.len() - 1) }
    }

    /// To integers and back; a runtime that knows the pattern multiplies the integers.
    fn round(&mut self, name: &str, x: &Value, rounding: &Rounding) -> Operand {
        let factors: Vec<f32> = rounding.factors.iter().map(|log| Rounding::factor(*log)).collect();
        let mut x = x.clone();
        if !factors.is_empty() {
            let inverse = factors.iter().map(|factor| factor.recip()).collect();
            let inverse = self.weight(&format!("{name}.factors"), &[factors.len()], inverse);
            x = self.multiply(&x, &inverse);
        }
        let (step, zero) = (self.number(rounding.step), self.zero(rounding.zero));
        let integers = self.node("QuantizeLinear", &[&x, &step, &zero], vec![]);
        let value = self.node("DequantizeLinear", &[&integers, &step, &zero], vec![]);
        Operand { value, kind: Kind::Rounded(factors) }
    }

    /// As in [`Rounding::zero`].
    fn zero(&mut self, zero: Option<u8>) -> Value {
        let element = if zero.is_some() { ElementType::Uint8 } else { ElementType::Int8 };
        let zero = zero.unwrap_or(0);
        self.constant(TensorProto {
            name: format!("{element:?} {zero}"),
            dims: dims(&[]),
            data_type: element.into(),
            int32_data: vec![zero.into()],
            ..TensorProto::default()
        })
    }
}
