//! LSTM and GRU.

use super::arguments::Call;
use super::constants::is_zero;
use super::{Lowering, Reason, Value};
use crate::model::{Op, Recurrent};

impl<'d> Lowering<'d> {
    /// Recurrent layers from states of zero, over sequences that begin with the batch.
    pub(super) fn recurrent(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let is_lstm = call.operator() == "lstm";
        let input = self.plain_input(call)?;
        if !call.flag("batch_first", false)? {
            return Err(Reason::from("its sequences do not begin with the batch: `batch_first` is needed"));
        }
        let states = if is_lstm { call.tensors("hx")? } else { vec![call.tensor("hx")?] };
        let is_zero = |state: &&str| match self.values.get(*state) {
            Some(Value::Zeros) => true,
            Some(Value::Constant(value)) => is_zero(value),
            _ => false,
        };
        if !states.iter().all(is_zero) {
            return Err(Reason::from("its first states are not zeros"));
        }
        let num_layers = call.integer("num_layers", 1)?;
        let bidirectional = call.flag("bidirectional", false)?;
        let given = call.tensors("params")?;
        let saved = given.iter().map(|name| self.tensor(name)).collect::<Result<Vec<_>, _>>()?;
        let (Some([_, input_size]), Some([_, hidden_size])) =
            (saved.first().map(|name| self.tensor_shape(name)), saved.get(1).map(|name| self.tensor_shape(name)))
        else {
            return Err(Reason::from("its weights are no matrices"));
        };
        let mut recurrent = Recurrent {
            input_size: *input_size,
            hidden_size: *hidden_size,
            num_layers,
            bidirectional,
            dropout: call.double("dropout", 0.0)?,
            last_only: false,
        };
        let count = Op::Lstm(recurrent.clone()).parameter_names().len();
        if !call.flag("has_biases", true)? || given.len() != count {
            return Err(Reason::from("it has no biases, or projections"));
        }
        let mut outputs = call.outputs();
        let mut output = outputs.next().flatten().ok_or_else(|| Reason::from("it has no value"))?;
        for state in outputs.flatten() {
            self.values.insert(state, Value::Missing(Reason::from("it reads the last state of a recurrent layer")));
        }
        if let Some((selected, nodes)) = self.last_position(output, input.shape.first().copied()) {
            recurrent.last_only = true;
            output = selected;
            self.done.extend(nodes);
        }
        let op = if is_lstm { Op::Lstm(recurrent) } else { Op::Gru(recurrent) };
        self.layer_as(call, output, op, &input, &given)
    }

    /// If all that is read of a sequence of this length is its last position: the name of that value, and the nodes that take
    /// it.
    fn last_position(&self, sequence: &'d str, length: Option<i64>) -> Option<(&'d str, Vec<usize>)> {
        let mut value = sequence;
        let mut nodes = Vec::new();
        loop {
            let [place] = self.readers.get(value)?[..] else { return None };
            // A file may have a node that reads what it makes.
            if value == self.output || nodes.last().is_some_and(|last| place <= *last) {
                return None;
            }
            let call = Call::new(self.document.graph_module.graph.nodes.get(place)?);
            nodes.push(place);
            value = call.output().ok()?;
            match call.operator() {
                "slice" if call.is_whole() => {}
                "select" => {
                    let index = call.integer("index", 0).ok()?;
                    let is_last = index == -1 || length == Some(index.saturating_add(1));
                    return (matches!(call.integer("dim", 0), Ok(1)) && is_last).then_some((value, nodes));
                }
                _ => return None,
            }
        }
    }
}
