//! What a file adds around the model. It computes with floats, also around a model of integers.

use export::{Added, Normalization};

use super::Lowering;
use crate::builtin::{Builtin, Scalar};
use crate::layout::Layout;
use crate::program::{Element, TensorId};

impl Lowering<'_> {
    /// The normalized input, as the front of the program.
    pub(super) fn normalized(&mut self, input: TensorId, layout: &Layout, by: &Normalization) -> TensorId {
        self.program.scope = "normalize".to_owned();
        let groups = by.offset.len() as i32;
        let shape: Vec<i32> = match layout {
            Layout::Order(order) => {
                std::iter::once(1).chain(order.iter().map(|dim| if *dim == 0 { groups } else { 1 })).collect()
            }
            Layout::Flat { .. } => vec![1, groups],
        };
        let offset = self.program.numbers(&shape, by.offset.clone());
        let scale = self.program.numbers(&shape, by.scale.clone());
        let shifted = self.program.binary(Builtin::Sub, input, offset);
        let normalized = self.program.binary(Builtin::Div, shifted, scale);
        self.program.front = std::mem::take(&mut self.program.operators);
        normalized
    }

    /// What is added after the model's output, as the ending of the program.
    pub(super) fn ended(&mut self, output: TensorId, added: Added) -> TensorId {
        let model = std::mem::take(&mut self.program.operators);
        let ended = match added {
            Added::Nothing => output,
            Added::Softmax => self.program.unary(Builtin::Softmax, &[(0, Scalar::F32(1.0))], output),
            Added::Sigmoid => self.program.unary(Builtin::Logistic, &[], output),
            Added::Largest => self.largest(output),
            Added::AboveZero => self.above_zero(output),
        };
        self.program.ending = std::mem::replace(&mut self.program.operators, model);
        if let Some(name) = output_name(added) {
            self.program.tensors[ended].name = name.to_owned();
        }
        ended
    }

    fn largest(&mut self, output: TensorId) -> TensorId {
        let shape = self.program.shape(output).to_vec();
        let last = shape.len() as i32 - 1;
        let axis = self.program.integers(&[last]);
        let class = self.program.tensor(&shape[..last as usize], Element::I64, None);
        let output_type = [(0, Scalar::I8(Element::I64.code()))];
        self.program.push(Builtin::ArgMax, &output_type, vec![Some(output), Some(axis)], vec![class]);
        class
    }

    fn above_zero(&mut self, output: TensorId) -> TensorId {
        let shape = self.program.shape(output).to_vec();
        let zero = self.program.numbers(&[1], vec![0.0]);
        let is_above = self.program.tensor(&shape, Element::Bool, None);
        self.program.push(Builtin::Greater, &[], vec![Some(output), Some(zero)], vec![is_above]);
        let number = self.program.tensor(&shape, Element::I64, None);
        let types = [(0, Scalar::I8(Element::Bool.code())), (1, Scalar::I8(Element::I64.code()))];
        self.program.push(Builtin::Cast, &types, vec![Some(is_above)], vec![number]);
        // The last dimension is 1.
        let shape = &shape[..shape.len() - 1];
        let target: Vec<i32> = std::iter::once(-1).chain(shape.iter().skip(1).copied()).collect();
        let target = self.program.integers(&target);
        let class = self.program.tensor(shape, Element::I64, None);
        self.program.push(Builtin::Reshape, &[], vec![Some(number), Some(target)], vec![class]);
        class
    }
}

/// The name of a file's output after an addition.
pub(crate) fn output_name(added: Added) -> Option<&'static str> {
    match added {
        Added::Nothing => None,
        Added::Softmax | Added::Sigmoid => Some("probabilities"),
        Added::Largest | Added::AboveZero => Some("class"),
    }
}
