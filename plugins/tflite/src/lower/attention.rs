//! Self-attention as products of matrices.

use plugin_api::graph::{Node, Op};
use plugin_api::{Error, Result};

use super::recipe::{named, rows, whole};
use super::{Lowering, Value, memory_shape};
use crate::builtin::{Builtin, Scalar};
use crate::layout::Layout;
use crate::program::TensorId;

/// Far below every score: its softmax is 0.
const HIDDEN: f32 = -1e9;

impl Lowering<'_> {
    pub(super) fn attention(&mut self, node: &Node, input: &Value) -> Result<(TensorId, Layout)> {
        let (Op::MultiHeadAttention { embed_dim: features, num_heads, causal, bias: has_bias, .. }, [length, _]) =
            (&node.op, input.shape.as_slice())
        else {
            return Err(Error::new("needs a sequence"));
        };
        let (features, length, has_bias) = (*features, *length, *has_bias);
        let sequence = self.plain(input);
        let (heads, each) = (*num_heads as i32, (features / num_heads) as i32);
        let shape = [1, length as i32, features as i32];
        // Scores are divided by √(features of a head): the division is part of the written query weights.
        let scale = (1.0 / f64::from(each).sqrt()) as f32;
        let [query, key, value] = [(0, scale), (1, 1.0), (2, 1.0)].map(|(part, factor)| {
            let first = part * features;
            let weight = rows(named(node, "in_proj_weight"), [3 * features, features], first, features, factor);
            let bias = has_bias.then(|| rows(named(node, "in_proj_bias"), [3 * features, 1], first, features, factor));
            let projected = self.fully_connected(sequence, weight, bias, [features, features], &shape);
            let split = self.program.reshape(projected, &[1, length as i32, heads, each]);
            self.program.transpose(split, &[0, 2, 1, 3])
        });
        let length = length as i32;
        let mask = causal.then(|| self.causal_mask(length, 4));
        let attended = self.attended([query, key, value], mask, &[1, heads, length, each]);
        let joined = self.program.transpose(attended, &[0, 2, 1, 3]);
        let joined = self.program.reshape(joined, &shape);
        let weight = whole(named(node, "out_proj.weight"), features * features);
        let bias = has_bias.then(|| whole(named(node, "out_proj.bias"), features));
        let output = self.fully_connected(joined, weight, bias, [features, features], &shape);
        Ok((output, Layout::plain(2)))
    }

    /// Attention over queries, keys and values.
    pub(super) fn scaled_attention(&mut self, node: &Node, inputs: &[Value]) -> Result<(TensorId, Layout)> {
        let (Op::ScaledDotProductAttention { is_causal, scale, is_boolean, .. }, [query, key, value, mask @ ..]) =
            (&node.op, inputs)
        else {
            return Err(Error::new("needs query, key and value"));
        };
        if *is_boolean {
            return Err(Error::new("a mask that is made of the inputs is not exported as TFLite"));
        }
        let layout = Layout::plain(node.shape.len());
        let shape = memory_shape(&node.shape, &layout)?;
        let length = query.shape.iter().rev().nth(1).copied().unwrap_or(1) as i32;
        let [query, key, value] = [query, key, value].map(|value| self.plain(value));
        let query = self.with_number(Builtin::Mul, query, *scale);
        let mask = match mask.first() {
            Some(mask) => {
                let mask = self.of_rank(mask, node.shape.len());
                Some(self.plain(&mask))
            }
            None => is_causal.then(|| self.causal_mask(length, shape.len())),
        };
        Ok((self.attended([query, key, value], mask, &shape), layout))
    }

    /// What hides later positions, as a value of `rank` dimensions.
    fn causal_mask(&mut self, length: i32, rank: usize) -> TensorId {
        let mask = (0..length).flat_map(|row| (0..length).map(move |at| if at > row { HIDDEN } else { 0.0 }));
        let mut shape = vec![1; rank];
        shape[rank - 2..].fill(length);
        self.program.numbers(&shape, mask.collect())
    }

    /// `softmax(Q Kᵀ + mask) V`, of this shape.
    fn attended(&mut self, [query, key, value]: [TensorId; 3], mask: Option<TensorId>, shape: &[i32]) -> TensorId {
        let mut of_scores = shape.to_vec();
        if let (Some(last), [.., keys, _]) = (of_scores.last_mut(), self.program.shape(key)) {
            *last = *keys;
        }
        let by_key = [(0, Scalar::Bool(false)), (1, Scalar::Bool(true))];
        let mut scores = self.program.apply(Builtin::BatchMatmul, &by_key, &[query, key], &of_scores);
        if let Some(mask) = mask {
            scores = self.program.binary(Builtin::Add, scores, mask);
        }
        let attention = self.program.unary(Builtin::Softmax, &[(0, Scalar::F32(1.0))], scores);
        self.program.apply(Builtin::BatchMatmul, &[], &[attention, value], shape)
    }
}
