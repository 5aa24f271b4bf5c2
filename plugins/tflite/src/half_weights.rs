//! Weights of 16 bits, which the runtime converts to f32 when it loads them.

use crate::builtin::Builtin;
use crate::program::{Content, Element, HALF, Operator, Program};

/// Stores every weight in 16 bits; constants of the operators stay unchanged.
pub(crate) fn halve(program: &mut Program) {
    let mut widening: Vec<Operator> = Vec::new();
    for place in 0..program.tensors.len() {
        let tensor = &program.tensors[place];
        if !matches!(tensor.content, Some(Content::Weight(_))) {
            continue;
        }
        let mut stored = tensor.clone();
        stored.name.push_str(HALF);
        stored.element = Element::F16;
        program.tensors[place].content = None;
        let half = program.tensors.len();
        program.tensors.push(stored);
        widening.push(Operator {
            builtin: Builtin::Dequantize,
            options: Vec::new(),
            activation: Default::default(),
            inputs: vec![Some(half)],
            outputs: vec![place],
            node: String::new(),
        });
    }
    widening.append(&mut program.operators);
    program.operators = widening;
}
