//! Linear layers and lookups of rows.

use plugin_api::graph::{Node, Op};
use plugin_api::{Error, Result};

use super::recipe::{Norm, bias, chosen, named, reordered, whole};
use super::{Lowering, Value, memory_shape};
use crate::builtin::{Builtin, Scalar};
use crate::layout::Layout;
use crate::program::{Content, Element, Recipe, TensorId};

impl<'g> Lowering<'g> {
    /// A batch norm that reads only `node` and can become part of it; it is then absorbed.
    pub(super) fn following_norm(&mut self, node: &'g Node, channels: i64) -> Option<(&'g Node, Norm)> {
        let reader = self.only_reader(node)?;
        let Op::BatchNorm { num_features, eps, .. } = &reader.op else { return None };
        (*num_features == channels).then(|| (reader, Norm::new(reader, channels, *eps)))
    }

    /// Makes the value of an absorbed node that of `node`.
    pub(super) fn absorb(&mut self, reader: &'g Node, tensor: TensorId, layout: &Layout) -> Result<()> {
        self.absorbed.insert(&reader.name);
        self.note_origin(reader, tensor, layout);
        let (shape, layout) = (reader.shape.clone(), layout.clone());
        let value = Value { tensor, shape, layout, is_shared: false, is_same: false };
        self.keep(&reader.name, value)
    }

    pub(super) fn linear(&mut self, node: &'g Node, input: &Value) -> Result<(TensorId, Layout)> {
        let Op::Linear { in_features, out_features, bias: has_bias, transposed } = node.op else {
            return Err(Error::new("is not a linear layer"));
        };
        let last = input.shape.len().saturating_sub(1);
        let following =
            if last == 0 && !transposed && !input.is_same { self.following_norm(node, out_features) } else { None };
        let norm = following.as_ref().map(|(_, norm)| norm.clone());
        // The columns are reordered like the values that were flattened, so that no transpose is needed.
        let (tensor, layout, columns) = match &input.layout {
            Layout::Flat { shape, order } if !transposed => {
                (input.tensor, Layout::plain(1), Some((shape.clone(), order.clone())))
            }
            Layout::Order(order) if order.last() == Some(&last) => (input.tensor, input.layout.clone(), None),
            Layout::Order(_) | Layout::Flat { .. } => (self.plain(input), Layout::plain(last + 1), None),
        };
        let name = named(node, "weight");
        let stored = [out_features as i32, in_features as i32];
        let weight = match columns {
            Some((shape, order)) => {
                self.program.weight(&stored, columns_reordered(name, out_features, shape, order, norm.clone()))
            }
            None if transposed => {
                self.program.weight(&stored, reordered(name, vec![in_features, out_features], vec![1, 0], None))
            }
            None if norm.is_some() => {
                let recipe = reordered(name, vec![out_features, in_features], vec![0, 1], norm.clone());
                self.program.weight(&stored, recipe)
            }
            None => self.stored(name, &stored),
        };
        let bias = bias(has_bias.then(|| named(node, "bias")), out_features, norm);
        let bias = bias.map(|bias| self.program.weight(&[out_features as i32], bias));
        let shape = memory_shape(&node.shape, &layout)?;
        let output = self.connected(tensor, weight, bias, &shape);
        if let Some((reader, _)) = following {
            self.absorb(reader, output, &layout)?;
        }
        Ok((output, layout))
    }

    /// A weight as it is, stored once however many nodes read it.
    pub(super) fn stored(&mut self, name: String, shape: &[i32]) -> TensorId {
        let key = (name.clone(), shape.to_vec());
        if let Some(known) = self.stored.get(&key) {
            return *known;
        }
        let count = shape.iter().map(|length| i64::from(*length)).product();
        let tensor = self.program.weight(shape, whole(name, count));
        self.stored.insert(key, tensor);
        tensor
    }

    /// The value of a node that reads nothing.
    pub(super) fn constant(&mut self, node: &'g Node) -> Result<TensorId> {
        let shape = memory_shape(&node.shape, &Layout::plain(node.shape.len()))?;
        match &node.op {
            Op::Parameter { .. } => Ok(self.stored(named(node, "value"), &shape)),
            Op::Constant { values, .. } => {
                self.constants.insert(&node.name, values);
                let numbers = values.iter().map(|value| i32::try_from(*value)).collect::<std::result::Result<_, _>>();
                let numbers = numbers.map_err(|_| Error::new("has numbers of more than 32 bits"))?;
                Ok(self.program.tensor(&shape, Element::I32, Some(Content::I32(numbers))))
            }
            _ => Err(Error::new("has no input")),
        }
    }

    /// `x Wᵀ + b` over the last dimension.
    pub(super) fn fully_connected(
        &mut self,
        input: TensorId,
        weight: Recipe,
        bias: Option<Recipe>,
        [inputs, outputs]: [i64; 2],
        shape: &[i32],
    ) -> TensorId {
        let weight = self.program.weight(&[outputs as i32, inputs as i32], weight);
        let bias = bias.map(|bias| self.program.weight(&[outputs as i32], bias));
        self.connected(input, weight, bias, shape)
    }

    pub(super) fn connected(
        &mut self,
        input: TensorId,
        weight: TensorId,
        bias: Option<TensorId>,
        shape: &[i32],
    ) -> TensorId {
        let output = self.program.tensor(shape, Element::F32, None);
        let mut options = Vec::new();
        if shape.len() > 2 {
            options.push((2, Scalar::Bool(true)));
        }
        self.program.push(Builtin::FullyConnected, &options, vec![Some(input), Some(weight), bias], vec![output]);
        output
    }

    pub(super) fn embedding(&mut self, node: &Node, input: &Value) -> Result<(TensorId, Layout)> {
        let (Op::Embedding { num_embeddings: rows, embedding_dim }
        | Op::PositionalEmbedding { max_length: rows, embedding_dim }) = node.op
        else {
            return Err(Error::new("is not an embedding"));
        };
        let input = self.plain(input);
        let layout = Layout::plain(node.shape.len());
        let shape = memory_shape(&node.shape, &layout)?;
        let name = named(node, "weight");
        let constant = node.inputs.first().and_then(|input| self.constants.get(input.as_str()).copied());
        let tensor = if let Some(indices) = constant {
            if let Some(index) = indices.iter().find(|index| !(0..rows).contains(*index)) {
                return Err(Error::new(format!("reads row {index} of {rows}")));
            }
            self.program.weight(&shape, chosen(name, [rows, embedding_dim], indices.to_vec()))
        } else if matches!(node.op, Op::Embedding { .. }) {
            let weight = self.stored(name, &[rows as i32, embedding_dim as i32]);
            self.program.apply(Builtin::Gather, &[], &[weight, input], &shape)
        } else {
            let length = node.shape.first().copied().unwrap_or(0);
            let recipe = super::recipe::rows(name, [rows, embedding_dim], 0, length, 1.0);
            let weight = self.program.weight(&[1, length as i32, embedding_dim as i32], recipe);
            self.program.binary(Builtin::Add, input, weight)
        };
        Ok((tensor, layout))
    }
}

fn columns_reordered(name: String, outputs: i64, shape: Vec<i64>, order: Vec<usize>, norm: Option<Norm>) -> Recipe {
    // The weight with more dimensions: outputs first, then those of the image.
    let shape: Vec<i64> = std::iter::once(outputs).chain(shape).collect();
    let order: Vec<usize> = std::iter::once(0).chain(order.into_iter().map(|dim| dim + 1)).collect();
    reordered(name, shape, order, norm)
}
