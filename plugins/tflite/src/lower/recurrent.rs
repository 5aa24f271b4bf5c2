//! Recurrent layers, unrolled: a step consists of a few operators, and all steps share their weights.
//!
//! The runtime's own LSTM keeps its state from one call to the next and fixes the batch, and it has no GRU.

use std::borrow::Cow;
use std::sync::Arc;

use plugin_api::graph::{Node, Recurrent};
use plugin_api::{Error, Result};

use super::recipe::{named, read};
use super::{Lowering, Value};
use crate::builtin::{Builtin, Scalar};
use crate::layout::Layout;
use crate::program::{Element, Recipe, TensorId};

/// The most steps, over all layers and directions, of an unrolled program.
const MOST_STEPS: i64 = 2048;

/// The new places of the gates of PyTorch's LSTM (input, forget, cell, output): those with a logistic function
/// together.
const LSTM_GATES: [i64; 4] = [0, 1, 3, 2];
const GRU_GATES: [i64; 3] = [0, 1, 2];

/// One direction of one layer.
struct Cell<'n> {
    node: &'n Node,
    /// The suffix of its tensors: `l0_reverse`.
    suffix: String,
    inputs: i64,
    hidden: i64,
    gates: &'static [i64],
}

impl Cell<'_> {
    /// The rows of a tensor with the gates in their new places.
    fn recipe(&self, tensor: &str, columns: i64) -> Recipe {
        let name = named(self.node, &format!("{tensor}_{}", self.suffix));
        let (gates, size) = (self.gates, (self.hidden * columns) as usize);
        Arc::new(move |weights| {
            let values = read(weights, &name, gates.len() * size)?;
            if gates.is_sorted() {
                return Ok(Cow::Borrowed(values));
            }
            let gate = |gate: &i64| values[*gate as usize * size..][..size].iter().copied();
            Ok(Cow::Owned(gates.iter().flat_map(gate).collect()))
        })
    }

    /// The bias of the projected inputs, plus that of the state, except for the gates from `own` on, which are
    /// separate.
    fn input_bias(&self, own: usize) -> Recipe {
        let (input, state) = (self.recipe("bias_ih", 1), self.recipe("bias_hh", 1));
        let together = own * self.hidden as usize;
        Arc::new(move |weights| {
            let (input, state) = (input(weights)?, state(weights)?);
            let sum =
                |(place, (input, state)): (usize, (&f32, &f32))| if place < together { input + state } else { *input };
            Ok(Cow::Owned(input.iter().zip(state.iter()).enumerate().map(sum).collect()))
        })
    }

    /// The bias of only the last gate.
    fn own_bias(&self) -> Recipe {
        let (state, first) = (self.recipe("bias_hh", 1), (self.gates.len() - 1) * self.hidden as usize);
        Arc::new(move |weights| Ok(Cow::Owned(state(weights)?[first..].to_vec())))
    }
}

impl Lowering<'_> {
    pub(super) fn recurrent(
        &mut self,
        node: &Node,
        input: &Value,
        recurrent: &Recurrent,
        is_lstm: bool,
    ) -> Result<(TensorId, Layout)> {
        let [length, _] = input.shape[..] else { return Err(Error::new("needs a sequence")) };
        let (layers, directions) = (recurrent.num_layers, recurrent.directions());
        if length * layers * directions > MOST_STEPS {
            return Err(Error::new(format!(
                "would be unrolled to {} steps, but at most {MOST_STEPS} are allowed; use shorter sequences",
                length * layers * directions
            )));
        }
        let hidden = recurrent.hidden_size as i32;
        let mut sequence = self.plain(input);
        let mut features = recurrent.input_size;
        for layer in 0..layers {
            let is_end = recurrent.last_only && layer + 1 == layers;
            let mut states: Vec<Vec<TensorId>> = Vec::new();
            for direction in 0..directions {
                let suffix = format!("l{layer}{}", if direction == 1 { "_reverse" } else { "" });
                let gates: &'static [i64] = if is_lstm { &LSTM_GATES } else { &GRU_GATES };
                let cell = Cell { node, suffix, inputs: features, hidden: recurrent.hidden_size, gates };
                states.push(self.direction(&cell, sequence, length as i32, direction == 1, is_lstm));
            }
            if is_end {
                let last: Vec<TensorId> = states.iter().filter_map(|states| states.last().copied()).collect();
                return Ok((self.joined(&last, &[1, hidden * directions as i32]), Layout::plain(1)));
            }
            let stacked: Vec<TensorId> = states
                .iter()
                .map(|states| {
                    let options = [(0, Scalar::I32(states.len() as i32)), (1, Scalar::I32(1))];
                    self.program.apply(Builtin::Pack, &options, states, &[1, length as i32, hidden])
                })
                .collect();
            sequence = self.joined(&stacked, &[1, length as i32, hidden * directions as i32]);
            features = recurrent.hidden_size * directions;
        }
        Ok((sequence, Layout::plain(2)))
    }

    /// Concatenates values along the last dimension.
    fn joined(&mut self, parts: &[TensorId], shape: &[i32]) -> TensorId {
        match parts {
            [part] => *part,
            _ => {
                let axis = Scalar::I32(shape.len() as i32 - 1);
                self.program.apply(Builtin::Concatenation, &[(0, axis)], parts, shape)
            }
        }
    }

    /// Parts of equal length of the last dimension of `[batch, parts × length]`.
    fn split(&mut self, input: TensorId, parts: usize, length: i32) -> Vec<TensorId> {
        let axis = self.program.tensor(&[], Element::I32, Some(crate::program::Content::I32(vec![1])));
        let outputs: Vec<_> = (0..parts).map(|_| self.program.tensor(&[1, length], Element::F32, None)).collect();
        let options = [(0, Scalar::I32(parts as i32))];
        self.program.push(Builtin::Split, &options, vec![Some(axis), Some(input)], outputs.clone());
        outputs
    }

    /// The states at each position, in the order of the positions.
    fn direction(
        &mut self,
        cell: &Cell<'_>,
        sequence: TensorId,
        length: i32,
        is_reverse: bool,
        is_lstm: bool,
    ) -> Vec<TensorId> {
        let (gates, hidden) = (cell.gates.len(), cell.hidden as i32);
        let width = hidden * gates as i32;
        let bias = cell.input_bias(if is_lstm { 4 } else { 2 });
        let sizes = [cell.inputs, i64::from(width)];
        let projected = self.fully_connected(
            sequence,
            cell.recipe("weight_ih", cell.inputs),
            Some(bias),
            sizes,
            &[1, length, width],
        );
        let steps: Vec<_> = (0..length).map(|_| self.program.tensor(&[1, width], Element::F32, None)).collect();
        let options = [(0, Scalar::I32(length)), (1, Scalar::I32(1))];
        self.program.push(Builtin::Unpack, &options, vec![Some(projected)], steps.clone());
        let weight = self.program.weight(&[width, hidden], cell.recipe("weight_hh", cell.hidden));
        let order: Vec<usize> = if is_reverse { (0..steps.len()).rev().collect() } else { (0..steps.len()).collect() };
        let mut states = vec![0; steps.len()];
        if is_lstm {
            let mut before: Option<[TensorId; 2]> = None;
            for place in order {
                let now = self.lstm_step(steps[place], weight, before, hidden);
                states[place] = now[0];
                before = Some(now);
            }
        } else {
            let own = self.program.weight(&[hidden], cell.own_bias());
            let mut before = None;
            for place in order {
                let now = self.gru_step(steps[place], [weight, own], before, hidden);
                states[place] = now;
                before = Some(now);
            }
        }
        states
    }

    /// State and cell after a step. Before the first both are zero, so their terms are omitted.
    fn lstm_step(
        &mut self,
        projected: TensorId,
        weight: TensorId,
        before: Option<[TensorId; 2]>,
        hidden: i32,
    ) -> [TensorId; 2] {
        let mut gates = projected;
        if let Some([state, _]) = before {
            let of_state = self.connected(state, weight, None, &[1, 4 * hidden]);
            gates = self.program.binary(Builtin::Add, of_state, gates);
        }
        let parts = self.split(gates, 4, hidden);
        let [input, forget, output] = [0, 1, 2].map(|gate| self.program.unary(Builtin::Logistic, &[], parts[gate]));
        let new = self.program.unary(Builtin::Tanh, &[], parts[3]);
        let mut cell = self.program.binary(Builtin::Mul, input, new);
        if let Some([_, old]) = before {
            let kept = self.program.binary(Builtin::Mul, forget, old);
            cell = self.program.binary(Builtin::Add, kept, cell);
        }
        let shown = self.program.unary(Builtin::Tanh, &[], cell);
        [self.program.binary(Builtin::Mul, output, shown), cell]
    }

    /// The state after a step: `n + z (h − n)`, with `n = tanh(x + r (W h + b))`.
    fn gru_step(
        &mut self,
        projected: TensorId,
        [weight, own]: [TensorId; 2],
        before: Option<TensorId>,
        hidden: i32,
    ) -> TensorId {
        let inputs = self.split(projected, 3, hidden);
        let parts = before.map(|state| {
            let of_state = self.connected(state, weight, None, &[1, 3 * hidden]);
            self.split(of_state, 3, hidden)
        });
        let [reset, update] = [0, 1].map(|gate| {
            let sum = match &parts {
                Some(parts) => self.program.binary(Builtin::Add, inputs[gate], parts[gate]),
                None => inputs[gate],
            };
            self.program.unary(Builtin::Logistic, &[], sum)
        });
        let of_state = match &parts {
            Some(parts) => {
                let sum = self.program.binary(Builtin::Add, parts[2], own);
                self.program.binary(Builtin::Mul, reset, sum)
            }
            None => self.program.binary(Builtin::Mul, reset, own),
        };
        let new = self.program.binary(Builtin::Add, inputs[2], of_state);
        let new = self.program.unary(Builtin::Tanh, &[], new);
        let kept = match before {
            Some(state) => {
                let apart = self.program.binary(Builtin::Sub, state, new);
                self.program.binary(Builtin::Mul, update, apart)
            }
            None => {
                let taken = self.program.binary(Builtin::Mul, update, new);
                return self.program.binary(Builtin::Sub, new, taken);
            }
        };
        self.program.binary(Builtin::Add, new, kept)
    }
}
