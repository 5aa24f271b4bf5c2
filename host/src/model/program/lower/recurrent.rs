//! LSTM and GRU.

use super::arguments::Call;
use super::{Lowering, Reason, Value};
use crate::model::{Op, Recurrent};

impl<'d> Lowering<'d> {
    /// Recurrent layers from states of zero, over sequences that begin with the batch.
    pub(super) fn recurrent(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let is_lstm = call.operator() == "lstm";
        let input = self.input(call)?;
        if !call.flag("batch_first", false)? {
            return Err(Reason::from("its sequences do not begin with the batch: `batch_first` is needed"));
        }
        let states = if is_lstm { call.tensors("hx")? } else { vec![call.tensor("hx")?] };
        if states.iter().any(|state| !matches!(self.values.get(state), Some(Value::Zeros))) {
            return Err(Reason::from("its first states are not zeros"));
        }
        let num_layers = call.integer("num_layers", 1)?;
        let bidirectional = call.flag("bidirectional", false)?;
        let own = names(num_layers, bidirectional);
        let given = call.tensors("params")?;
        if !call.flag("has_biases", true)? || given.len() != own.len() {
            return Err(Reason::from("it has no biases, or projections"));
        }
        let given = given.into_iter().map(|name| self.tensor(name)).collect::<Result<Vec<_>, _>>()?;
        let (Some([_, input_size]), Some([_, hidden_size])) =
            (given.first().map(|name| self.tensor_shape(name)), given.get(1).map(|name| self.tensor_shape(name)))
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
        let pairs: Vec<(&str, &str)> = own.iter().map(String::as_str).zip(given).collect();
        let owner = self.owner(&pairs)?;
        let op = if is_lstm { Op::Lstm(recurrent) } else { Op::Gru(recurrent) };
        self.add_as(call, output, owner, op, &[&input])
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

/// The names of the parameters, in PyTorch's order.
fn names(layers: i64, bidirectional: bool) -> Vec<String> {
    let directions: &[&str] = if bidirectional { &["", "_reverse"] } else { &[""] };
    // A list of parameters as long as that is not read from a file of any size.
    (0..layers.clamp(0, 1024))
        .flat_map(|layer| directions.iter().map(move |direction| format!("l{layer}{direction}")))
        .flat_map(|end| ["weight_ih", "weight_hh", "bias_ih", "bias_hh"].map(|name| format!("{name}_{end}")))
        .collect()
}
