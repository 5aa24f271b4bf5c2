//! LSTM and GRU.

use plugin_api::Result;
use plugin_api::graph::{Node, Recurrent};

use super::{Lowering, tensor_name};
use crate::proto::Attribute;

/// The differences between ONNX's operator and PyTorch's module.
pub struct Cell {
    operator: &'static str,
    /// For each gate of ONNX, that of PyTorch.
    gates: &'static [usize],
    /// GRU: the reset gate is applied after the product, as in PyTorch and cuDNN.
    linear_before_reset: bool,
}

/// PyTorch: input, forget, cell, output; ONNX: input, output, forget, cell.
pub const LSTM: Cell = Cell { operator: "LSTM", gates: &[0, 3, 1, 2], linear_before_reset: false };

/// PyTorch: reset, update, new; ONNX: update, reset, hidden.
pub const GRU: Cell = Cell { operator: "GRU", gates: &[1, 0, 2], linear_before_reset: true };

impl<'a> Lowering<'a, '_> {
    pub(super) fn recurrent(&mut self, node: &'a Node, of: &Recurrent, cell: &Cell) -> Result<String> {
        let input = self.input(node)?;
        let length = self.input_shape(node)?.first().copied().unwrap_or(1);
        let part = |part: &str| format!("{}/{part}", node.name);
        // ONNX has the sequence first; runtimes do not support its other layout.
        let swapped = || vec![Attribute::ints("perm", [1, 0, 2])];
        let mut value = self.builder.node("Transpose", &part("by_position"), &[input], swapped());
        let width = of.hidden_size * of.directions();
        let joined = self.builder.integers(&part("joined"), &[0, 0, width]);
        for layer in 0..of.num_layers {
            let part = |part: &str| format!("{}/{layer}/{part}", node.name);
            let [weights, recurrence, biases] = self.gates(node, of, cell, layer)?;
            let mut attributes = vec![
                Attribute::int("hidden_size", of.hidden_size),
                Attribute::text("direction", if of.bidirectional { "bidirectional" } else { "forward" }),
            ];
            if cell.linear_before_reset {
                attributes.push(Attribute::int("linear_before_reset", 1));
            }
            let inputs = [value, weights, recurrence, biases];
            // [length, directions, batch, hidden]
            let states = self.builder.node(cell.operator, &part("states"), &inputs, attributes);
            let order = vec![Attribute::ints("perm", [0, 2, 1, 3])];
            let states = self.builder.node("Transpose", &part("by_direction"), &[states], order);
            value = self.builder.node("Reshape", &part("outputs"), &[&states, &joined], Vec::new());
        }
        if of.last_only {
            let last = self.builder.index(&part("last"), length - 1);
            return Ok(self.builder.node("Gather", &node.name, &[value, last], vec![Attribute::int("axis", 0)]));
        }
        Ok(self.builder.node("Transpose", &node.name, &[value], swapped()))
    }

    /// The three tensors of a layer, its directions one after the other and the gates in ONNX's order.
    fn gates(&mut self, node: &Node, of: &Recurrent, cell: &Cell, layer: i64) -> Result<[String; 3]> {
        let (mut inputs, mut states, mut biases) = (Vec::new(), Vec::new(), Vec::new());
        for suffix in ["", "_reverse"].into_iter().take(of.directions() as usize) {
            let tensor = |name: &str| self.weights.f32(tensor_name(node, &format!("{name}_l{layer}{suffix}"))?);
            let reorder = |values: &[f32], into: &mut Vec<f32>| {
                let gate = values.len() / cell.gates.len();
                into.extend(cell.gates.iter().flat_map(|index| &values[index * gate..(index + 1) * gate]));
            };
            reorder(tensor("weight_ih")?, &mut inputs);
            reorder(tensor("weight_hh")?, &mut states);
            reorder(tensor("bias_ih")?, &mut biases);
            reorder(tensor("bias_hh")?, &mut biases);
        }
        let (directions, gates) = (of.directions(), cell.gates.len() as i64 * of.hidden_size);
        let features = if layer == 0 { of.input_size } else { of.hidden_size * directions };
        // The names show that they are no longer the state dict's.
        let name = |name: &str| format!("{}.{name}_l{layer}/reordered", node.name);
        Ok([
            self.builder.weight(&name("weight_ih"), &[directions, gates, features], inputs),
            self.builder.weight(&name("weight_hh"), &[directions, gates, of.hidden_size], states),
            self.builder.weight(&name("bias"), &[directions, 2 * gates], biases),
        ])
    }
}
