//! Attention, built from products and a softmax.

use plugin_api::Result;
use plugin_api::graph::{Node, Op};

use super::Lowering;
use crate::proto::{Attribute, element};

impl<'a> Lowering<'a, '_> {
    pub(super) fn attention(&mut self, node: &'a Node) -> Result<String> {
        let input = self.input(node)?;
        let (Op::MultiHeadAttention { embed_dim, num_heads, causal, bias, .. }, &[length, _]) =
            (&node.op, self.input_shape(node)?)
        else {
            return Ok(input);
        };
        let part = |part: &str| format!("{}/{part}", node.name);
        let width = embed_dim / num_heads;
        let joined = self.affine(node, &part("joined"), &input, "in_proj_weight", bias.then_some("in_proj_bias"))?;
        let parts = ["query", "key", "value"].map(part);
        // Without lengths, there are as many parts as outputs, all of one length, in every opset from 18 on.
        self.builder.node_with(
            "Split",
            &part("split"),
            &[&joined],
            &parts,
            vec![Attribute::int("axis", -1), Attribute::int("num_outputs", 3)],
        );
        let by_head = self.builder.integers(&part("by_head"), &[0, length, *num_heads, width]);
        let mut heads = Vec::new();
        for (value, order) in parts.iter().zip([[0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]]) {
            let split = self.builder.node("Reshape", &format!("{value}/by_head"), &[value, &by_head], Vec::new());
            let attributes = vec![Attribute::ints("perm", order)];
            heads.push(self.builder.node("Transpose", &format!("{value}/heads"), &[split], attributes));
        }
        let scale = 1.0 / (width as f64).sqrt();
        let mask = causal.then(|| self.causal_mask(node, length));
        let mixed = self.mixed(node, &part("mixed"), [&heads[0], &heads[1], &heads[2]], scale, mask);
        let attributes = vec![Attribute::ints("perm", [0, 2, 1, 3])];
        let mixed = self.builder.node("Transpose", &part("together"), &[mixed], attributes);
        let whole = self.builder.integers(&part("whole"), &[0, length, *embed_dim]);
        let mixed = self.builder.node("Reshape", &part("heads_joined"), &[mixed, whole], Vec::new());
        self.affine(node, &node.name, &mixed, "out_proj.weight", bias.then_some("out_proj.bias"))
    }

    /// Attention over queries, keys and values.
    pub(super) fn scaled_attention(&mut self, node: &'a Node) -> Result<String> {
        let inputs = self.inputs(node)?;
        let (Op::ScaledDotProductAttention { is_causal, scale, is_boolean, .. }, [query, key, value, ..]) =
            (&node.op, &inputs[..])
        else {
            return self.input(node);
        };
        let rank = node.shape.len() as i64 + 1;
        let order = (0..rank - 2).chain([rank - 1, rank - 2]);
        let attributes = vec![Attribute::ints("perm", order)];
        let key = self.builder.node("Transpose", &format!("{}/key", node.name), &[key], attributes);
        let length = self.input_shape(node)?.iter().rev().nth(1).copied().unwrap_or(1);
        let mask = match inputs.len() {
            4 => {
                let mask = self.of_rank(node, 3, node.shape.len())?;
                Some(if *is_boolean { self.added(node, &mask) } else { mask })
            }
            _ => is_causal.then(|| self.causal_mask(node, length)),
        };
        Ok(self.mixed(node, &node.name, [query, &key, value], *scale, mask))
    }

    /// What is added for a mask that has 1 where a position is seen: 0 there, and the least number where it is hidden, whose
    /// softmax is 0 beside any other.
    fn added(&mut self, node: &Node, mask: &str) -> String {
        let part = |part: &str| format!("{}/{part}", node.name);
        let to = vec![Attribute::int("to", i64::from(element::BOOL))];
        let seen = self.builder.node("Cast", &part("seen"), &[mask], to);
        let zero = self.builder.constant(&part("zero"), &[], vec![0.0]);
        let hidden = self.builder.constant(&part("hidden"), &[], vec![f32::MIN]);
        self.builder.node("Where", &part("mask"), &[seen, zero, hidden], Vec::new())
    }

    /// What hides later positions.
    fn causal_mask(&mut self, node: &Node, length: i64) -> String {
        let later = (0..length)
            .flat_map(|row| (0..length).map(move |column| if column > row { f32::NEG_INFINITY } else { 0.0 }));
        self.builder.constant(&format!("{}/mask", node.name), &[length, length], later.collect())
    }

    /// `softmax(scale · Q Kᵀ + mask) V`, called `name`, of queries, transposed keys, and values.
    fn mixed(
        &mut self,
        node: &Node,
        name: &str,
        [query, key, value]: [&str; 3],
        scale: f64,
        mask: Option<String>,
    ) -> String {
        let part = |part: &str| format!("{}/{part}", node.name);
        let scale = self.builder.constant(&part("scale"), &[], vec![scale as f32]);
        let query = self.builder.node("Mul", &part("scaled"), &[query, &scale], Vec::new());
        let mut scores = self.builder.node("MatMul", &part("scores"), &[&query, key], Vec::new());
        if let Some(mask) = mask {
            scores = self.builder.node("Add", &part("masked"), &[scores, mask], Vec::new());
        }
        let weights = self.builder.node("Softmax", &part("weights"), &[scores], vec![Attribute::int("axis", -1)]);
        self.builder.node("MatMul", name, &[&weights, value], Vec::new())
    }
}
